//! The views of a proxy.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{HOUR, NOW, at, hold, id};
use crate::proxy::verdict::{Client, Judged, StrictReady, Verdict};
use crate::proxy::wire::{Connections, Listeners, PlaintextClients, Policies, Secrets};
use crate::times::Moment;

const PEER: &str = "spiffe://cluster.local/ns/web/sa/frontend";

/// As the proxy's page says it.
fn read<T: DeserializeOwned>(page: Value) -> T {
    serde_json::from_value(page).unwrap()
}

fn time(offset: i64) -> Value {
    serde_json::to_value(at(offset)).unwrap()
}

fn certificate(subject: &str, serial: &str, end: i64) -> Value {
    json!({
        "subject": subject, "serial": serial, "not_before": time(-2 * HOUR), "not_after": time(end), "valid": end > 0,
        "a_member_to_come": 1,
    })
}

#[test]
fn secrets() {
    let ca = "CN=issuing, O=cluster.local";
    let page = |end: i64| {
        json!({
            "svid": {
                "spiffe_id": id(), "serial": "4a01", "not_before": time(-2 * HOUR), "not_after": time(end),
                "valid": end > 0, "chain": [certificate("", "4a01", end), certificate(ca, "11", 300 * HOUR)],
            },
            "bundles": [
                {"trust_domain": "cluster.local", "roots": [certificate("CN=root, O=cluster.local", "01", 9000 * HOUR)]},
                {"trust_domain": "partner.example", "roots": [certificate("CN=theirs", "02", -HOUR)]},
            ],
            "verified_chains": {"kept": 3, "hits": 40, "misses": 5},
        })
    };
    hold("proxy-secrets", &read::<Secrets>(page(22 * HOUR)));
    hold("proxy-secrets-expired", &read::<Secrets>(page(-60)));
    let none = json!({"svid": null, "bundles": [], "verified_chains": {"kept": 0, "hits": 0, "misses": 0}});
    hold("proxy-secrets-none", &read::<Secrets>(none));
}

#[test]
fn policies() {
    let page = json!({
        "source": {
            "source": "agent", "version": "17", "since": time(-HOUR), "namespace": "shop",
            "labels": {"app": "cart", "tier": "front"},
            "faults": [{"policy": "AuthorizationPolicy shop/bad", "origin": "cluster", "state": "last_good",
                "faults": ["spec.acton: unknown field"]}],
            "failure": ["unavailable", "the agent's socket is gone"],
        },
        "in_force": {
            "version": "17", "policies": ["shop/deny-all", "shop/allow-frontend"],
            "unenforceable": [
                {"policy": "shop/allow-frontend", "rule": 0, "field": "to[0].operation.methods", "everywhere": false,
                    "never_matches": true, "ports": [7000, 7001]},
                {"policy": "shop/deny-all", "rule": 1, "field": "when[0]", "everywhere": true, "never_matches": false},
            ],
            "mutual_tls": {
                "workload": {"mode": "STRICT", "by": "shop/default"},
                "ports": {"9090": {"mode": "PERMISSIVE", "by": "shop/metrics"}, "443": {"mode": "STRICT", "by": null}},
            },
            "token_issuers": ["https://issuer.example", null], "tokens_unenforceable_on": [7000],
        },
    });
    hold("proxy-policies", &read::<Policies>(page));
    let none = json!({
        "source": {"source": "files", "version": null, "since": null, "namespace": null, "labels": {}, "faults": [],
            "failure": null},
        "in_force": null,
    });
    hold("proxy-policies-none", &read::<Policies>(none));
}

#[test]
fn traffic() {
    let page = json!({
        "open": 3,
        "connections": [
            {"connection": 1, "direction": "inbound", "security": "mutual_tls", "source": "10.0.0.7:40000",
                "destination": "10.0.0.1:8080", "port": 8080,
                "peer": {"spiffe_id": PEER, "leaf_sha256": "ab12", "not_after": time(5 * HOUR)}, "own_id": id(),
                "own_not_after": time(22 * HOUR), "sni": "cart.shop", "alpn": "istio"},
            {"connection": 2, "direction": "inbound", "security": "plaintext", "source": "[fd00::9]:40001",
                "destination": "[fd00::1]:8080", "port": 8080, "peer": null, "own_id": null, "own_not_after": null,
                "sni": null, "alpn": null},
        ],
    });
    hold("proxy-connections", &read::<Connections>(page));
    hold(
        "proxy-connections-none",
        &read::<Connections>(json!({"open": 0, "connections": []})),
    );
    let page = json!({"listeners": [
        {"direction": "inbound", "captures": false, "address": "10.0.0.1:8443", "upstream": "127.0.0.1:8080"},
        {"direction": "outbound", "captures": true, "address": "0.0.0.0:15001", "upstream": null},
    ]});
    hold("proxy-listeners", &read::<Listeners>(page));
    hold(
        "proxy-listeners-none",
        &read::<Listeners>(json!({"listeners": []})),
    );
    let page = json!({
        "since": time(-30 * HOUR), "unlisted_connections": 7,
        "clients": [
            {"address": "10.0.0.9", "port": 8080, "connections": 12, "passed_through": 0, "first": time(-HOUR),
                "last": time(-60)},
            {"address": "fd00::9", "port": 9090, "connections": 3, "passed_through": 3, "last": time(-2 * HOUR)},
        ],
    });
    hold("proxy-plaintext-clients", &read::<PlaintextClients>(page));
    let none = json!({"since": time(-HOUR), "clients": [], "unlisted_connections": 0});
    hold("proxy-plaintext-clients-none", &read::<PlaintextClients>(none));
}

fn judged(admin: &str, mode: &str) -> Judged {
    Judged {
        admin: admin.into(),
        verdict: Verdict::Go,
        reason: None,
        spiffe_id: Some(id()),
        mode: Some(mode.into()),
        port_modes: [(9090, "DISABLE".to_owned())].into(),
        observed_since: Some(at(-30 * HOUR)),
        clients: Vec::new(),
        unlisted_connections: 0,
    }
}

#[test]
fn strict_ready() {
    assert_eq!(at(0).0.as_secs(), NOW);
    let mut strict = judged("127.0.0.1:15001", "STRICT");
    strict.port_modes.clear();
    let go = vec![judged("127.0.0.1:15000", "PERMISSIVE"), strict];
    let day = std::time::Duration::from_secs(86_400);
    hold("strict-ready", &StrictReady::of(go, Some(day)));
    let client = |address: &str, passed_through, open, last: Moment| Client {
        address: address.parse().unwrap(),
        port: 8080,
        connections: 12,
        passed_through,
        open,
        first: Some(at(-20 * HOUR)),
        last,
    };
    let no_go = Judged {
        verdict: Verdict::NoGo,
        clients: vec![
            client("10.0.0.9", 0, 1, at(-60)),
            client("fd00::9", 12, 0, at(-HOUR)),
        ],
        unlisted_connections: 7,
        ..judged("127.0.0.1:15000", "PERMISSIVE")
    };
    let silent = Judged::unanswered(
        "127.0.0.1:15001".into(),
        "127.0.0.1:15001: connection refused".into(),
    );
    hold(
        "strict-ready-no-go",
        &StrictReady::of(vec![no_go, silent.clone()], None),
    );
    hold("strict-ready-unanswered", &StrictReady::of(vec![silent], None));
}
