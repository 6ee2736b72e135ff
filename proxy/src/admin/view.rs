//! The JSON of the pages. No page holds a key.

use serde_json::{Value, json};
use signet_certs::UnixTime;
use signet_certs::certificate::Certificate;
use signet_certs::key::hex;
use signet_runtime::clock::rfc3339;

use crate::accept::Bound;
use crate::connection::{Accepted, Security};
use crate::keys::Own;
use crate::policy_source::status::PolicyStatus;
use crate::shared::Shared;

/// Most connections on one page.
const MOST_SHOWN: usize = 1_000;

pub(super) fn listeners(bound: &[Bound]) -> Value {
    let all: Vec<Value> = bound
        .iter()
        .map(|one| {
            json!({
                "direction": one.direction.as_str(),
                "captures": one.captures,
                "address": one.address.to_string(),
                "upstream": one.upstream,
            })
        })
        .collect();
    json!({ "listeners": all })
}

pub(super) fn secrets(shared: &Shared) -> Value {
    let snapshot = shared.keys.current();
    let now = shared.clock.now();
    let own = snapshot.as_ref().and_then(|snapshot| snapshot.own());
    let mut bundles: Vec<_> = snapshot
        .iter()
        .flat_map(|snapshot| snapshot.bundles().iter())
        .collect();
    bundles.sort_by_key(|bundle| bundle.trust_domain().clone());
    let bundles: Vec<Value> = bundles
        .into_iter()
        .map(|bundle| {
            let roots: Vec<Value> = bundle
                .roots()
                .iter()
                .map(|root| certificate(root.certificate(), now))
                .collect();
            json!({ "trust_domain": bundle.trust_domain().as_str(), "roots": roots })
        })
        .collect();
    let (hits, misses) = shared.keys.chains().served();
    json!({
        "svid": own.map(|own| svid(own, now)),
        "bundles": bundles,
        "verified_chains": { "kept": shared.keys.chains().len(), "hits": hits, "misses": misses },
    })
}

/// An SVID of ours.
pub(super) fn svid(own: &Own, now: UnixTime) -> Value {
    let chain = own.svid().chain();
    let certificates: Vec<Value> = chain.certificates().map(|one| certificate(one, now)).collect();
    json!({
        "spiffe_id": own.id().as_str(),
        "serial": chain.serial(),
        "not_before": rfc3339(chain.not_before()),
        "not_after": rfc3339(own.not_after()),
        "valid": now <= own.not_after(),
        "chain": certificates,
    })
}

fn certificate(certificate: &Certificate, now: UnixTime) -> Value {
    json!({
        "subject": certificate.subject().text(),
        "serial": certificate.serial_hex(),
        "not_before": rfc3339(certificate.not_before()),
        "not_after": rfc3339(certificate.not_after()),
        "valid": certificate.not_before() <= now && now <= certificate.not_after(),
    })
}

/// A chain that somebody presented, with the names in it and who is known to have signed what.
pub(super) fn chain(shared: &Shared, chain: &[Certificate]) -> Vec<Value> {
    let now = shared.clock.now();
    let bundles = signet_certs::tls::BundleSource::bundles(&shared.keys);
    let next = chain.iter().skip(1).map(Some).chain(std::iter::once(None));
    let links = chain.iter().zip(next);
    links
        .map(|(one, next)| {
            let mut value = certificate(one, now);
            let signer = match next {
                Some(next) if signed(one, next) => Some("the next certificate".to_owned()),
                _ => bundles.iter().find_map(|bundle| {
                    let root = bundle
                        .roots()
                        .iter()
                        .find(|root| signed(one, root.certificate()))?;
                    Some(format!(
                        "{} in the bundle of {}",
                        root.certificate().subject().text(),
                        bundle.trust_domain()
                    ))
                }),
            };
            if let Some(fields) = value.as_object_mut() {
                fields.insert("names".into(), json!(names(one)));
                fields.insert("issuer".into(), json!(one.issuer().text()));
                fields.insert("signed_by".into(), json!(signer));
            }
            value
        })
        .collect()
}

/// Whether `signer` is who `certificate` says that signed it. The signature itself is for the handshake to judge.
fn signed(certificate: &Certificate, signer: &Certificate) -> bool {
    let key = match (certificate.authority_key_id(), signer.subject_key_id()) {
        (Some(wanted), Some(found)) => wanted == found,
        _ => true,
    };
    key && certificate.issuer().der == signer.subject().der
}

fn names(certificate: &Certificate) -> Vec<String> {
    let names = certificate.names();
    let dns = names.dns.iter().map(|name| format!("dns {name}"));
    let all = names.uris.iter().cloned().chain(dns);
    all.chain(names.others.iter().cloned()).collect()
}

pub(super) fn connections(shared: &Shared) -> Value {
    let open = shared.connections.list(MOST_SHOWN);
    let shown: Vec<Value> = open.iter().map(|accepted| connection(accepted)).collect();
    json!({ "open": shared.connections.count(), "connections": shown })
}

fn connection(accepted: &Accepted) -> Value {
    let peer = match &accepted.security {
        Security::Mutual(peer) => Some(json!({
            "spiffe_id": peer.id.as_str(),
            "leaf_sha256": hex(&peer.leaf_sha256),
            "not_after": rfc3339(peer.not_after),
        })),
        Security::PassedThrough | Security::Plaintext | Security::Unsettled => None,
    };
    json!({
        "connection": accepted.id,
        "direction": accepted.direction.as_str(),
        "security": accepted.security.as_str(),
        "source": accepted.source.to_string(),
        "destination": accepted.destination.to_string(),
        "port": accepted.port,
        "peer": peer,
        "own_id": accepted.own_id.as_ref().map(|id| id.as_str()),
        "own_not_after": accepted.own_not_after.map(rfc3339),
        "sni": accepted.sni,
        "alpn": accepted.alpn.as_deref().map(String::from_utf8_lossy),
    })
}

pub(super) fn plaintext_clients(shared: &Shared, since: UnixTime) -> Value {
    let (clients, unlisted) = shared.connections.plaintext_clients();
    let clients: Vec<Value> = clients
        .into_iter()
        .map(|((address, port), seen)| {
            json!({
                "address": address.to_string(),
                "port": port,
                "connections": seen.connections,
                "passed_through": seen.passed_through,
                "first": rfc3339(seen.first),
                "last": rfc3339(seen.last),
            })
        })
        .collect();
    json!({ "since": rfc3339(since), "clients": clients, "unlisted_connections": unlisted })
}

pub(super) fn policies(shared: &Shared, status: &PolicyStatus) -> Value {
    let Some(enforced) = shared.policies.current() else {
        return json!({ "source": status, "in_force": null });
    };
    let in_force = &enforced.in_force;
    let names: Vec<String> = in_force.program.policies().map(ToString::to_string).collect();
    let peers = &in_force.peers;
    let ruling = |ruling: &signet_policy::mtls::Ruling| json!({ "mode": ruling.mode.as_str(), "by": ruling.by.as_ref().map(ToString::to_string) });
    let ports: serde_json::Map<String, Value> = peers
        .ports()
        .map(|(port, one)| (port.to_string(), ruling(one)))
        .collect();
    let issuers: Vec<Option<&str>> = in_force
        .tokens
        .rules()
        .iter()
        .map(|rule| rule.issuer.as_deref())
        .collect();
    json!({
        "source": status,
        "in_force": {
            "version": enforced.version,
            "policies": names,
            "unenforceable": status.lost.fields,
            // On these ports no request's token is looked at; none for all, nothing where there is no such port.
            "tokens_unenforceable_on": status.lost.tokens,
            // Port 0 has no ruling of its own.
            "mutual_tls": { "workload": ruling(peers.ruling(0)), "ports": ports },
            "token_issuers": issuers,
        },
    })
}
