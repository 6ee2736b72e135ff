//! The views of what proxies find when they are asked to try.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{HOUR, at, hold, id};
use crate::proxy::asked::{Decided, TlsChecked};
use crate::proxy::ladder::NOT_NAMED;
use crate::proxy::tls_check::TlsCheck;
use crate::proxy::why::{Names, Requested, Why};

const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";
const CA: &str = "CN=issuing, O=cluster.local";

/// As the proxy says it.
fn read<T: DeserializeOwned>(page: Value) -> T {
    serde_json::from_value(page).unwrap()
}

fn time(offset: i64) -> Value {
    serde_json::to_value(at(offset)).unwrap()
}

fn link(subject: &str, names: &[&str], signed_by: Option<&str>) -> Value {
    json!({
        "subject": subject, "names": names, "issuer": if names.is_empty() { "CN=root, O=cluster.local" } else { CA },
        "signed_by": signed_by, "serial": "4a01", "not_before": time(-2 * HOUR), "not_after": time(22 * HOUR),
        "valid": true,
    })
}

fn tls(presented: &str, root: Option<&str>) -> Value {
    json!({
        "version": "TLSv1_3", "cipher": "TLS13_AES_128_GCM_SHA256", "alpn": "signet", "presented": presented,
        "chain": [link("", &[presented], Some("the next certificate")), link(CA, &[], root)],
    })
}

fn checked(outcome: &str, change: Value) -> TlsChecked {
    let mut page = json!({
        "destination": "orders.shop:8443", "outcome": outcome, "error": null, "alert": null,
        "listed": {"by": "outbound[0]", "upstream": "orders.shop:8443", "mode": "mtls", "expected": [ORDERS],
            "protocol": "http"},
        "default_outbound": "refuse",
        "own": {"spiffe_id": id(), "serial": "77", "not_before": time(-HOUR), "not_after": time(9 * HOUR), "valid": true,
            "chain": []},
        "own_chain_pem": "-----BEGIN CERTIFICATE-----", "address": "10.0.0.1:8443", "source": "10.0.0.7:40000",
        "tls": tls(ORDERS, Some("CN=root, O=cluster.local in the bundle of cluster.local")), "a_member_to_come": 1,
    });
    if let (Value::Object(page), Value::Object(change)) = (&mut page, change) {
        page.extend(change);
    }
    read(page)
}

fn step(step: &str, outcome: &str, sentence: &str) -> Value {
    json!({"step": step, "outcome": outcome, "reason": null, "sentence": sentence, "status": null, "policy": null})
}

fn decided(policy: &Value, votes: &Value) -> Decided {
    read(json!({
        "spiffe_id": ORDERS, "port": 8080, "protocol": "http", "application": "127.0.0.1:8080", "mode": "STRICT",
        "mode_by": "PeerAuthentication shop/default", "version": "17", "caller": id(),
        "steps": [
            step("mode", "ok", "the port takes mutual TLS only, and the caller speaks it"),
            step("certificate", "ok", "its chain leads to a root of ours"),
            step("token", "ok", "no RequestAuthentication reaches the workload"),
            policy,
            step("application", "ok", "the application listens at 127.0.0.1:8080"),
        ],
        "votes": votes, "a_member_to_come": 1,
    }))
}

#[test]
fn tls_checks() {
    let allowed = || decided(&step("policy", "ok", "shop/allow rules[0] allows it"), &json!([]));
    let asked = (Some("shop/orders-1".to_owned()), Ok(allowed()));
    let unasked = || (None, Err(NOT_NAMED.to_owned()));
    let check = |checked, to| TlsCheck::of("web/frontend-1".into(), checked, to);
    hold("tls-check", &check(checked("ok", json!({})), asked));
    let other = json!({"error": format!("peer is {OTHER}, expected {ORDERS}"), "tls": tls(OTHER, None)});
    hold(
        "tls-check-other",
        &check(checked("other_identity", other), unasked()),
    );
    let unlisted = json!({"listed": null, "address": null, "source": null, "tls": null});
    hold(
        "tls-check-unlisted",
        &check(checked("unlisted", unlisted), unasked()),
    );
}

fn names(to_proxy: Option<&str>) -> Names {
    Names {
        from: "web/frontend-1".into(),
        to_proxy: to_proxy.map(str::to_owned),
        request: Requested {
            method: "POST".into(),
            path: "/api/v1/items".into(),
            host: "orders.shop:8443".into(),
            headers: vec!["x-tenant".into()],
            token: true,
        },
    }
}

#[test]
fn whys() {
    let found = checked("ok", json!({}));
    let good = decided(&step("policy", "ok", "shop/allow rules[0] allows it"), &json!([]));
    hold("why", &Why::of(names(Some("shop/orders-1")), &found, Ok(&good)));
    let refused = json!({
        "step": "policy", "outcome": "refused", "reason": "policy_not_allowed",
        "sentence": "none of 1 ALLOW policies matches", "status": 403, "policy": "AuthorizationPolicy shop/allow",
    });
    let votes = json!([
        {"policy": "AuthorizationPolicy shop/old", "action": "DENY", "dry_run": true, "says": "matches",
            "because": ["rules[0]"]},
        {"policy": "AuthorizationPolicy shop/allow", "action": "ALLOW", "dry_run": false, "says": "does_not_match",
            "because": ["rules[0].to[0].operation.methods: the method is \"POST\", and must be one of GET"]},
    ]);
    let denied = decided(&refused, &votes);
    hold(
        "why-refused",
        &Why::of(names(Some("shop/orders-1")), &found, Ok(&denied)),
    );
    hold("why-unknown", &Why::of(names(None), &found, Err(NOT_NAMED)));
}
