//! What an agent tells of its node, and steering one of its identities.

use serde_json::json;

use crate::daemons::{Daemon, svid};
use crate::support::{Pki, signet};

#[tokio::test]
async fn the_workloads_of_a_node_are_listed_and_later_members_do_not_matter() {
    let page = json!({"attestor": "kubernetes", "later": 1, "workloads": [
        {"kind": "pod", "namespace": "shop", "pod": "cart-0", "account": "shop/cart", "state": "served",
            "spiffe_id": "spiffe://cluster.local/ns/shop/sa/cart", "clients": {"delta": 2}, "later": true},
        {"kind": "process", "pid": 7, "state": "waiting", "spiffe_id": null, "last_failure": null},
    ]});
    let agent = Daemon::start([("GET /v1/workloads", (200, page.to_string()))].into());
    let shown = signet(&["workload", "list", "--admin", &agent.socket()]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    for words in ["pods of this node", "pod shop/cart-0", "delta 2", "process 7"] {
        assert!(shown.out.contains(words), "{words}: {}", shown.out);
    }
    let json = signet(&["workload", "list", "--admin", &agent.socket(), "-o", "json"])
        .await
        .json();
    assert_eq!(json["workloads"][0]["clients"], json!({"delta": 2}));
    let nameless = json!({"attestor": "unix", "workloads": [{"state": "served"}]});
    let agent = Daemon::start([("GET /v1/workloads", (200, nameless.to_string()))].into());
    let shown = signet(&["workload", "list", "--admin", &agent.socket()]).await;
    assert!(
        shown.code == 2 && shown.err.contains("missing field `kind`"),
        "{}",
        shown.err
    );
}

#[tokio::test]
async fn policies_are_in_force_everywhere_or_the_answer_is_no() {
    let page = |acked: &str, state: &str| {
        json!({"source": "kubernetes", "root_namespace": "istio-system", "synced": true, "services": 1, "later": 1,
            "sources": {"PeerAuthentication": {"state": "listed", "version": "v1", "failure": null}},
            "policies": [{"policy": "AuthorizationPolicy shop/a", "kind": "AuthorizationPolicy", "namespace": "shop",
                "origin": "kubernetes", "state": state, "faults": []}],
            "key_sets": null,
            "proxies": [{"kind": "policies", "node": "", "uid": 0, "pid": 7, "workload": "own", "names": [],
                "version": "v2", "acked": acked, "last_nack": null}]})
        .to_string()
    };
    for (acked, state, code) in [("v2", "sound", 0), ("v1", "sound", 1), ("v2", "denies_all", 1)] {
        let agent = Daemon::start([("GET /v1/policies", (200, page(acked, state)))].into());
        let ran = signet(&["workload", "policies", "--admin", &agent.socket(), "-o", "json"]).await;
        assert_eq!(
            (ran.code, &ran.json()["proxies"][0]["acked"]),
            (code, &json!(acked)),
            "{ran:?}"
        );
    }
    let refused =
        json!({"reason": "not_served", "error": "the configuration has no policies; set policies.source"});
    let agent = Daemon::start([("GET /v1/policies", (404, refused.to_string()))].into());
    let ran = signet(&["workload", "policies", "--admin", &agent.socket()]).await;
    assert!(
        ran.code != 0 && ran.err.contains("set policies.source"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn federated_domains_are_listed() {
    let page = json!({"trust_domain": "cluster.local", "sequence": 3, "federated": [
        {"trust_domain": "partner.example", "sequence": 9, "roots": 1, "jwt_keys": 0, "refresh_hint_seconds": null},
    ]});
    let agent = Daemon::start([("GET /v1/federation", (200, page.to_string()))].into());
    let shown = signet(&["federation", "list", "--admin", &agent.socket(), "-o", "json"]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert_eq!(shown.json()["federated"][0]["trust_domain"], "partner.example");
    let of_ca = json!({"trust_domain": "cluster.local", "federated": [
        {"trust_domain": "partner.example", "in_force": false, "sequence": null, "roots": null, "jwt_keys": null,
            "refresh_hint_seconds": null, "outcome": "unreachable", "error": "connection refused",
            "last_success": "2027-01-15T08:00:00Z", "next_poll": "2027-01-15T08:05:00Z"},
    ]});
    let ca = Daemon::start([("GET /v1/federation", (200, of_ca.to_string()))].into());
    let shown = signet(&["federation", "list", "--admin", &ca.socket(), "-o", "json"]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    let domain = &shown.json()["federated"][0];
    assert_eq!(
        (&domain["received_at"], &domain["error"]),
        (&json!("2027-01-15T08:00:00Z"), &json!("connection refused"))
    );
}

#[tokio::test]
async fn one_of_several_identities_is_rotated_by_its_name() {
    let pki = Pki::new();
    let (old, new) = (svid(&pki), svid(&pki));
    let id = old["spiffe_id"].as_str().unwrap();
    let agent = Daemon::start(
        [
            ("GET /v1/svids", (200, json!({"svids": [old]}).to_string())),
            ("POST /v1/svids/rotate", (200, new.to_string())),
        ]
        .into(),
    );
    let ran = signet(&[
        "svid",
        "rotate",
        "--admin",
        &agent.socket(),
        "--id",
        id,
        "-o",
        "json",
    ])
    .await;
    assert_eq!(
        (ran.code, &ran.json()["new_serial"]),
        (0, &new["serial"]),
        "{}",
        ran.err
    );
    assert_eq!(
        agent.asked("POST /v1/svids/rotate"),
        Some(json!({"spiffe_id": id}).to_string())
    );
    let unasked = signet(&["svid", "rotate", "--admin", &agent.socket()]).await;
    assert_eq!(
        (unasked.code, agent.asked("POST /v1/svids/rotate")),
        (0, Some(String::new()))
    );
}
