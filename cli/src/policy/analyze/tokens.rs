//! Mistakes around RequestAuthentication.

use std::net::IpAddr;

use signet_certs::jws::KeySet;
use signet_policy::model::request::KeySource;
use signet_policy::model::{
    Action, Attribute, AuthorizationPolicy, JwtRule, Object, ObjectKey, RequestAuthentication, Term,
};

use super::Findings;
use super::finding::Code;

pub(super) fn look(findings: &mut Findings<'_>) {
    let evidence = findings.evidence;
    for object in evidence.set.objects() {
        match &**object {
            Object::Request(request) => {
                for (at, rule) in request.rules.iter().enumerate() {
                    keys(findings, (&object.key(), at), rule);
                }
                not_demanded(findings, (&object.key(), object), request);
            }
            Object::Authorization(policy) => no_tokens(findings, (&object.key(), object), policy),
            Object::Peer(_) => {}
        }
    }
}

fn is_token(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::RequestPrincipal | Attribute::Audiences | Attribute::Presenter | Attribute::Claim(_)
    )
}

/// Rules on tokens that nobody reads.
fn no_tokens(
    findings: &mut Findings<'_>,
    (key, object): (&ObjectKey, &Object),
    policy: &AuthorizationPolicy,
) {
    let subjects = findings.subjects(object);
    for (at, rule) in policy.rules.iter().enumerate() {
        let Some(term) = rule.terms().find(|term| is_token(&term.attribute)) else {
            continue;
        };
        let Some(subject) = subjects.iter().find(|subject| subject.in_force.tokens.is_empty()) else {
            continue;
        };
        let effect = if term.negated {
            "always holds"
        } else {
            "never matches"
        };
        findings.add(
            Code::NoTokens,
            (key, &format!("spec.rules[{at}].{}", term.place)),
            format!(
                "no RequestAuthentication reaches {}, so no request has a {} and this {effect}",
                subject.name(),
                term.attribute
            ),
            "add a RequestAuthentication with the issuer and its keys for the same workloads",
        );
    }
}

/// Tokens that are looked at and that nobody needs.
fn not_demanded(
    findings: &mut Findings<'_>,
    (key, object): (&ObjectKey, &Object),
    request: &RequestAuthentication,
) {
    if request.rules.is_empty() {
        return;
    }
    let demands = |policy: &AuthorizationPolicy| {
        let demand = |term: &Term| match policy.action {
            Action::Allow => is_token(&term.attribute) && !term.negated,
            Action::Deny => is_token(&term.attribute) && term.negated,
            Action::Audit | Action::Custom(_) => false,
        };
        !policy.meta.dry_run && policy.rules.iter().any(|rule| rule.terms().any(demand))
    };
    for subject in findings.subjects(object) {
        let demanded = subject
            .objects(findings.evidence)
            .into_iter()
            .any(|object| match object {
                Object::Authorization(policy) => demands(policy),
                Object::Peer(_) | Object::Request(_) => false,
            });
        if !demanded {
            findings.add(
                Code::TokenNotDemanded,
                (key, "spec.jwtRules"),
                format!(
                    "bad tokens are refused at {}, and requests without any token pass: no policy demands one",
                    subject.name()
                ),
                "add an ALLOW policy with requestPrincipals: [\"*\"], or a DENY with notRequestPrincipals: [\"*\"]",
            );
            return;
        }
    }
}

fn keys(findings: &mut Findings<'_>, (key, at): (&ObjectKey, usize), rule: &JwtRule) {
    let field = |name: &str| format!("spec.jwtRules[{at}].{name}");
    match &rule.keys {
        KeySource::Inline(text) => inline(findings, (key, &field("jwks")), text),
        KeySource::Uri(uri) => address(findings, (key, &field("jwksUri")), uri),
        KeySource::Discovery => {
            if let Some(issuer) = &rule.issuer {
                address(findings, (key, &field("issuer")), issuer);
            }
        }
    }
    if rule.audiences.is_empty() {
        findings.add(
            Code::AnyAudience,
            (key, &format!("spec.jwtRules[{at}]")),
            "a token that the issuer made for another service is good here too".to_owned(),
            "list the audiences that are meant",
        );
    }
}

fn inline(findings: &mut Findings<'_>, at: (&ObjectKey, &str), text: &str) {
    let keys = match KeySet::parse(text.as_bytes()) {
        Ok(keys) => keys,
        Err(wrong) => {
            findings.add(
                Code::NoUsableKey,
                at,
                format!("every token of the issuer is refused: {wrong}"),
                "list the issuer's public keys as its jwks_uri has them; keys for HMAC (kty oct) are never taken",
            );
            return;
        }
    };
    let numbers: Vec<String> = keys.with_private_half().iter().map(usize::to_string).collect();
    if !numbers.is_empty() {
        findings.add(
            Code::PrivateKey,
            at,
            format!(
                "keys[{}] come with their private half: whoever reads this object can make tokens of the issuer",
                numbers.join("], keys[")
            ),
            "replace these keys at the issuer, and list public halves only",
        );
    }
}

fn address(findings: &mut Findings<'_>, at: (&ObjectKey, &str), uri: &str) {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.split(']').next())
        .unwrap_or_else(|| host.split(':').next().unwrap_or_default());
    let here = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(four)) => four.is_loopback() || four.is_link_local() || four.is_unspecified(),
        Ok(IpAddr::V6(six)) => six.is_loopback() || six.is_unicast_link_local() || six.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost") || host == "metadata.google.internal",
    };
    if here {
        findings.add(
            Code::KeysInClear,
            at,
            format!("{host} is the machine itself or its cloud's metadata, where proxies fetch no keys"),
            "name the issuer's own host",
        );
    } else if scheme == "http" {
        findings.add(
            Code::KeysInClear,
            at,
            "the keys come without TLS: whoever is on the way can put their own in place".to_owned(),
            "write https",
        );
    }
}
