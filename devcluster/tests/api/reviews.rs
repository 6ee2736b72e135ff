//! Every recorded TokenReview case, replayed: the situation is rebuilt, the answer compared with the real one.

use std::time::Duration;

use serde_json::{Value, json};
use signet_devcluster::{Account, DevCluster, Grants, ObjectRef, Options, PodSpec, TokenSpec};

use crate::support::{HandClock, client, cluster_with, send};

/// What a real API server (v1.20.2) answered; see the file's `source`.
const RECORDED: &str = include_str!("../data/tokenreview-v1.20.json");

/// What the recorded server's JOSE library puts in front of its error. This server is built on another.
const JOSE_LIBRARY: &str = "square/go-jose: ";

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A cluster as it was when the case was recorded.
struct Situation {
    cluster: DevCluster,
    /// The token under review.
    token: String,
    /// The token of the one who asks.
    reviewer: String,
    /// Uids in the recording and who they belonged to, with the uids of the same objects here.
    uids: Vec<(&'static str, String)>,
}

/// Recorded uids: the account `api`, its pod and the pod's successor, the account `tmp` and its successor.
const API_UID: &str = "b036ec75-d716-4523-b796-561565b6a2fd";
const POD_UID: &str = "90827332-749a-4423-ad84-0e5d930f9a29";
const NEXT_POD_UID: &str = "bcb54b6b-c8af-4a46-8651-1dc613ae3b4c";
const TMP_UID: &str = "5af98837-4339-4a65-9037-7b1c7f14cc10";
const NEXT_TMP_UID: &str = "1cc7b05b-ce49-4d40-8606-61d1f9822cfb";

async fn rebuild(case: &str) -> Situation {
    let clock = HandClock::new();
    let cluster = cluster_with(Options {
        node_extras: false,
        ..clock.options()
    });
    let uid = |resource, name| {
        let object = cluster.get(&ObjectRef::core(resource, "billing", name)).unwrap();
        object["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let mut uids = vec![(API_UID, uid("serviceaccounts", "api"))];
    let pod = || PodSpec::new("billing", "api-0").service_account("api");
    uids.push((POD_UID, cluster.create_pod(pod()).unwrap()));
    let unbound = TokenSpec::new("billing", "api");
    let bound = unbound.clone().audience("signet-ca").pod("api-0");
    let mut token = cluster.mint_token(&bound).unwrap();
    let mut reviewer = cluster.admin_token().to_owned();
    match case {
        "bound_pod_ok" | "two_audiences_one_match" | "audience_mismatch" | "no_audience_in_request" => {}
        "unbound_ok" => token = cluster.mint_token(&unbound.audience("signet-ca")).unwrap(),
        "api_audience_token" => token = cluster.mint_token(&unbound).unwrap(),
        "garbage" => token = "garbage".to_owned(),
        "empty" => token.clear(),
        "bad_signature" => token = with_other_signature(&token),
        "truncated" => token.truncate(token.len() / 2),
        "reviewer_forbidden" => reviewer = cluster.mint_token(&unbound).unwrap(),
        "reviewer_unauthorized" => reviewer = "nobody".to_owned(),
        "pod_deleted_1s_after" | "pod_deleted" => {
            // The real server had answered for this token just before.
            let admin = client(&cluster, &reviewer).await;
            let body = json!({"spec": {"token": token, "audiences": ["signet-ca"]}}).to_string();
            assert_eq!(
                send(&admin, "POST", REVIEWS, &body).await.1["status"]["authenticated"],
                true
            );
            cluster.delete_pod("billing", "api-0").unwrap();
            clock.advance(Duration::from_secs(if case == "pod_deleted" { 15 } else { 1 }));
        }
        "pod_recreated" => {
            cluster.delete_pod("billing", "api-0").unwrap();
            uids.push((NEXT_POD_UID, cluster.create_pod(pod()).unwrap()));
        }
        "account_deleted" | "account_recreated" => {
            uids.push((TMP_UID, cluster.create_service_account("billing", "tmp").unwrap()));
            token = cluster
                .mint_token(&TokenSpec::new("billing", "tmp").audience("signet-ca"))
                .unwrap();
            cluster.delete_service_account("billing", "tmp").unwrap();
            if case == "account_recreated" {
                uids.push((
                    NEXT_TMP_UID,
                    cluster.create_service_account("billing", "tmp").unwrap(),
                ));
            }
        }
        other => panic!("the recording has a case this test does not rebuild: {other}"),
    }
    Situation {
        cluster,
        token,
        reviewer,
        uids,
    }
}

fn with_other_signature(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other: String = signature
        .chars()
        .map(|c| if c == 'A' { 'B' } else { 'A' })
        .collect();
    // The last digit of 64 bytes in base64url carries four spare bits that have to stay zero.
    let other = format!("{}A", &other[..other.len() - 1]);
    format!("{signed}.{other}")
}

async fn replay(case: &Value) {
    let name = case["case"].as_str().unwrap();
    let situation = rebuild(name).await;
    let asker = client(&situation.cluster, &situation.reviewer).await;
    let mut request = json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": situation.token},
    });
    let audiences = case
        .get("request_audiences")
        .filter(|audiences| !audiences.is_null());
    if let Some(audiences) = audiences {
        request["spec"]["audiences"] = audiences.clone();
    }
    let (status, mut answer) = send(&asker, "POST", REVIEWS, &request.to_string()).await;
    assert_eq!(
        u64::from(status.as_u16()),
        case["http_status"].as_u64().unwrap(),
        "{name}: {answer}"
    );

    let mut recorded = case["response"].to_string().replace(JOSE_LIBRARY, "");
    for (theirs, ours) in &situation.uids {
        recorded = recorded.replace(theirs, ours);
    }
    let mut recorded: Value = serde_json::from_str(&recorded).unwrap();
    for side in [&mut answer, &mut recorded] {
        // The recording leaves out empty metadata and the token.
        side.as_object_mut().unwrap().remove("metadata");
        if let Some(spec) = side.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("token");
        }
    }
    assert_eq!(answer, recorded, "{name}");
    situation.cluster.shutdown().await;
}

#[tokio::test]
async fn answers_as_the_recorded_server_in_all_17_cases() {
    let recording: Value = serde_json::from_str(RECORDED).unwrap();
    let cases = recording["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 17);
    for case in cases {
        replay(case).await;
    }
}

#[tokio::test]
async fn answers_of_newer_servers_name_the_node_and_the_credential() {
    let cluster = cluster_with(Options::default());
    let node_uid = cluster.create_node("n1").unwrap();
    cluster
        .create_pod(PodSpec::new("billing", "api-0").service_account("api").node("n1"))
        .unwrap();
    let spec = TokenSpec::new("billing", "api")
        .audience("signet-ca")
        .pod("api-0");
    let token = cluster.mint_token(&spec).unwrap();
    let extra = |key: &str| format!("authentication.kubernetes.io/{key}");
    let status = review(&cluster, &token).await;
    let found = &status["user"]["extra"];
    assert_eq!(found[extra("node-name")], json!(["n1"]));
    assert_eq!(found[extra("node-uid")], json!([node_uid]));
    assert!(
        found[extra("credential-id")][0]
            .as_str()
            .unwrap()
            .starts_with("JTI=")
    );
}

#[tokio::test]
async fn expired_and_early_tokens_do_not_pass() {
    let clock = HandClock::new();
    let cluster = cluster_with(clock.options());
    let spec = TokenSpec::new("billing", "api")
        .audience("signet-ca")
        .lifetime(Duration::from_secs(5));
    let token = cluster.mint_token(&spec).unwrap();
    clock.advance(Duration::from_secs(65));
    assert_eq!(
        review(&cluster, &token).await["authenticated"],
        true,
        "a real server allows a minute"
    );
    clock.advance(Duration::from_secs(11));
    let late = review(&cluster, &token).await;
    assert_eq!(late["error"], "[invalid bearer token, Token has expired]");

    let early = claims(&cluster, &json!({"nbf": 1_795_294_391_u64 + 3600}));
    let status = review(&cluster, &early).await;
    assert_eq!(status["error"], "[invalid bearer token, Token is not valid yet]");
}

#[tokio::test]
async fn tokens_of_other_issuers_and_dropped_keys_are_foreign() {
    use signet_devcluster::OldKey;
    let cluster = cluster_with(Options::default());
    let elsewhere = claims(&cluster, &json!({"iss": "https://elsewhere"}));
    assert_eq!(
        review(&cluster, &elsewhere).await["error"],
        "invalid bearer token"
    );
    let token = cluster
        .mint_token(&TokenSpec::new("billing", "api").audience("signet-ca"))
        .unwrap();
    cluster.rotate_signing_key(OldKey::Keep).unwrap();
    assert_eq!(review(&cluster, &token).await["authenticated"], true);
    cluster.rotate_signing_key(OldKey::Drop).unwrap();
    let newer = cluster
        .mint_token(&TokenSpec::new("billing", "api").audience("signet-ca"))
        .unwrap();
    assert_eq!(review(&cluster, &newer).await["authenticated"], true);
    let other = TokenSpec::new("billing", "api")
        .audience("signet-ca")
        .audience("other");
    let before = cluster.mint_token(&other).unwrap();
    cluster.rotate_signing_key(OldKey::Drop).unwrap();
    assert_eq!(review(&cluster, &before).await["error"], "invalid bearer token");
}

#[tokio::test]
async fn an_account_may_be_granted_to_review() {
    let cluster = cluster_with(Options::default());
    let reviewer = Account::new("billing", "api");
    cluster.grant(
        reviewer,
        Grants::none().allow(["create"], "authentication.k8s.io", ["tokenreviews"]),
    );
    let own = cluster.mint_token(&TokenSpec::new("billing", "api")).unwrap();
    let body = json!({"spec": {"token": own}}).to_string();
    let (status, answer) = send(&client(&cluster, &own).await, "POST", REVIEWS, &body).await;
    assert_eq!(status, 201);
    assert_eq!(
        answer["status"]["user"]["username"],
        "system:serviceaccount:billing:api"
    );
    assert_eq!(
        answer["status"]["audiences"],
        json!([signet_devcluster::API_AUDIENCE])
    );
}

async fn review(cluster: &DevCluster, token: &str) -> Value {
    let admin = client(cluster, cluster.admin_token()).await;
    let body = json!({"spec": {"token": token, "audiences": ["signet-ca"]}}).to_string();
    let (status, answer) = send(&admin, "POST", REVIEWS, &body).await;
    assert_eq!(status, 201, "{answer}");
    answer["status"].clone()
}

/// A token of the account `api` with some claims changed.
fn claims(cluster: &DevCluster, changed: &Value) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let token = cluster
        .mint_token(&TokenSpec::new("billing", "api").audience("signet-ca"))
        .unwrap();
    let part = token.split('.').nth(1).unwrap();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    for (key, value) in changed.as_object().unwrap() {
        claims[key] = value.clone();
    }
    cluster.sign_claims(&claims).unwrap()
}
