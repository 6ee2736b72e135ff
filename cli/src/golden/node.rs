//! The views of a node: workloads, federation, tokens.

use std::collections::BTreeMap;

use serde_json::json;
use signet_certs::jwt::Unverified;

use super::{DAY, HOUR, at, failure, hold, id};
use crate::admin::{
    FederatedDomain, Federation, NodeKeySet, NodePolicies, NodePolicy, PolicyStream, SourceHealth, Workload,
    Workloads,
};
use crate::inputs::NamedBy;
use crate::jwt::fetch::Fetched;
use crate::jwt::inspect::Inspected;
use crate::jwt::validate::{Judge, Verdict};

fn nobody() -> Workload {
    Workload {
        kind: "identity".into(),
        namespace: None,
        pod: None,
        pod_uid: None,
        pid: None,
        uid: None,
        executable: None,
        account: Some("shop/bank".into()),
        spiffe_id: Some("spiffe://cluster.local/ns/shop/sa/bank".into()),
        state: "waiting".into(),
        clients: BTreeMap::new(),
        received_at: None,
        age_seconds: None,
        not_after: None,
        renews_at: Some(at(30)),
        renewals: 0,
        last_failure: Some(failure()),
    }
}

fn served() -> Workload {
    Workload {
        spiffe_id: Some(id()),
        account: Some("shop/cart".into()),
        state: "served".into(),
        clients: [("delta".into(), 1), ("x509_svid".into(), 2)].into(),
        received_at: Some(at(-2 * HOUR)),
        age_seconds: Some(7200),
        not_after: Some(at(22 * HOUR)),
        renews_at: Some(at(10 * HOUR)),
        renewals: 7,
        last_failure: None,
        ..nobody()
    }
}

#[test]
fn workload_list() {
    let pod = Workload {
        kind: "pod".into(),
        namespace: Some("shop".into()),
        pod: Some("cart-0".into()),
        pod_uid: Some("90827332-dead-beef-9b2c-0a6f3a3d5c01".into()),
        ..served()
    };
    let mut deleted = pod.clone();
    deleted.pod = Some("cart-1".into());
    deleted.state = "lingering".into();
    deleted.clients.clear();
    hold(
        "workload-list-pods",
        &Workloads {
            attestor: "kubernetes".into(),
            workloads: vec![pod, deleted],
        },
    );
    let process = Workload {
        kind: "process".into(),
        pid: Some(4711),
        uid: Some(1000),
        executable: Some("/usr/bin/envoy".into()),
        ..served()
    };
    hold(
        "workload-list-processes",
        &Workloads {
            attestor: "unix".into(),
            workloads: vec![process, nobody()],
        },
    );
    let own = Workload {
        kind: "own".into(),
        ..served()
    };
    hold(
        "workload-list-own",
        &Workloads {
            attestor: "own".into(),
            workloads: vec![own],
        },
    );
    hold(
        "workload-list-none",
        &Workloads {
            attestor: "kubernetes".into(),
            workloads: Vec::new(),
        },
    );
}

fn proxy(workload: &str, version: Option<&str>, acked: Option<&str>) -> PolicyStream {
    PolicyStream {
        workload: Some(workload.into()),
        node: "signet-proxy".into(),
        pid: Some(4711),
        uid: 1337,
        version: version.map(Into::into),
        acked: acked.map(Into::into),
        last_nack: None,
    }
}

fn sound(policy: &str) -> NodePolicy {
    NodePolicy {
        policy: policy.into(),
        kind: Some("AuthorizationPolicy".into()),
        namespace: Some("shop".into()),
        origin: "kubernetes".into(),
        state: "sound".into(),
        faults: Vec::new(),
    }
}

fn listed() -> SourceHealth {
    SourceHealth {
        state: "listed".into(),
        version: Some("v1".into()),
        failure: None,
    }
}

#[test]
fn workload_policies() {
    let (old, new) = ("4f1d0c2b9a7788", "90e2b7715c3d11");
    let well = NodePolicies {
        source: "kubernetes".into(),
        root_namespace: "istio-system".into(),
        synced: true,
        sources: [("AuthorizationPolicy".into(), listed())].into(),
        policies: vec![sound("AuthorizationPolicy shop/deny-all")],
        services: Some(4),
        key_sets: Some(Vec::new()),
        proxies: vec![proxy("pod shop/cart-0 (90827332)", Some(new), Some(new))],
    };
    assert!(well.all_well());
    hold("workload-policies", &well);

    let mut refusing = proxy("pod shop/bank-0 (11aa22bb)", Some(new), Some(old));
    refusing.last_nack = Some(format!("{new}: the snapshot is of trust domain other.example"));
    let failing = SourceHealth {
        failure: Some(("forbidden".into(), "list: cannot list resource".into())),
        ..listed()
    };
    let absent = SourceHealth {
        state: "absent".into(),
        version: None,
        failure: None,
    };
    let faulty = |policy: &str, state: &str, fault: &str| NodePolicy {
        state: state.into(),
        faults: vec![fault.into()],
        ..sound(policy)
    };
    let ill = NodePolicies {
        sources: [
            ("AuthorizationPolicy".into(), failing),
            ("RequestAuthentication".into(), absent),
        ]
        .into(),
        policies: vec![
            sound("AuthorizationPolicy shop/deny-all"),
            faulty(
                "AuthorizationPolicy shop/bad",
                "denies_all",
                "spec.acton: no such field; did you mean action?",
            ),
            faulty(
                "PeerAuthentication shop/old",
                "last_good",
                "spec.mtls.mode: STRICTER is no mode",
            ),
        ],
        key_sets: Some(vec![NodeKeySet {
            address: "https://id.example/keys".into(),
            keys: None,
            failure: Some("connection refused".into()),
        }]),
        proxies: vec![refusing, proxy("pod shop/late-0 (33cc44dd)", Some(new), None)],
        ..well.clone()
    };
    assert!(!ill.all_well());
    hold("workload-policies-faulty", &ill);
    let none = NodePolicies {
        synced: false,
        policies: Vec::new(),
        services: None,
        proxies: Vec::new(),
        ..well
    };
    assert!(!none.all_well());
    hold("workload-policies-none", &none);
}

#[test]
fn federation_list() {
    let partner = FederatedDomain {
        trust_domain: "partner.example".into(),
        sequence: Some(12),
        roots: Some(2),
        jwt_keys: Some(1),
        refresh_hint_seconds: Some(300),
        received_at: Some(at(-90)),
        next_poll: Some(at(210)),
        error: None,
    };
    let silent = FederatedDomain {
        trust_domain: "silent.example".into(),
        sequence: None,
        roots: None,
        jwt_keys: None,
        refresh_hint_seconds: None,
        received_at: None,
        next_poll: Some(at(30)),
        error: Some("connect to bundle.silent.example:443: refused".into()),
    };
    let mut federation = Federation {
        trust_domain: "cluster.local".into(),
        sequence: Some(3),
        federated: vec![partner, silent],
    };
    hold("federation-list", &federation);
    federation.federated.clear();
    hold("federation-list-none", &federation);
}

#[test]
fn jwt_fetch() {
    let fetched = Fetched {
        spiffe_id: id(),
        audiences: vec!["vault".into()],
        kid: Some("hYn6-thumbprint".into()),
        expires_at: at(300),
        seconds_left: 300,
        token_file: "./token".into(),
    };
    hold("jwt-fetch", &fetched);
}

fn says(header: serde_json::Value, claims: serde_json::Value) -> Unverified {
    let members = |value| match value {
        serde_json::Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    Unverified {
        header: members(header),
        claims: members(claims),
    }
}

#[test]
fn jwt_inspect() {
    let good = says(
        json!({"alg": "ES256", "kid": "hYn6-thumbprint", "typ": "JWT"}),
        json!({"sub": id(), "aud": ["vault"], "iss": "https://id.example", "iat": 1_799_999_700u64,
            "exp": 1_800_000_300u64, "team": {"name": "cart"}}),
    );
    hold("jwt-inspect", &Inspected::of(good, at(0).0));
    let bad = says(
        json!({"alg": "HS256", "jku": "https://elsewhere.example"}),
        json!({"sub": "somebody", "aud": "vault", "exp": 1_799_990_000u64}),
    );
    let bad = Inspected::of(bad, at(0).0);
    assert!(!bad.verified && !bad.well_formed);
    hold("jwt-inspect-foreign", &bad);
}

#[test]
fn jwt_validate() {
    let accepted = Verdict {
        accepted: true,
        reason: None,
        explanation: None,
        spiffe_id: Some(id()),
        audience: "vault".into(),
        audiences: vec!["vault".into(), "db".into()],
        kid: Some("hYn6-thumbprint".into()),
        expires_at: Some(at(DAY)),
        at: at(0),
        judged_by: Judge::Bundle,
        trust_domain: Some("cluster.local".into()),
        trust_domain_from: Some(NamedBy::Chain),
    };
    hold("jwt-validate", &accepted);
    let refused = Verdict {
        accepted: false,
        reason: Some("audience"),
        explanation: Some("token is not for audience \"db\"".into()),
        spiffe_id: None,
        audiences: Vec::new(),
        kid: None,
        expires_at: None,
        trust_domain_from: Some(NamedBy::Operator),
        ..accepted.clone()
    };
    hold("jwt-validate-refused", &refused);
    let by_agent = Verdict {
        judged_by: Judge::Agent,
        trust_domain: None,
        trust_domain_from: None,
        ..accepted
    };
    hold("jwt-validate-agent", &by_agent);
}
