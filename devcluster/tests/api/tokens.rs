//! TokenRequest and what the tokens are made of.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use signet_devcluster::{OldKey, Options, PodSpec, TokenSpec};

use crate::support::{admin, cluster, cluster_with, refusal, send, within};

fn decode(token: &str, part: usize) -> Value {
    serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(token.split('.').nth(part).unwrap())
            .unwrap(),
    )
    .unwrap()
}

fn request(seconds: i64, pod: Option<(&str, Option<&str>)>) -> TokenRequest {
    let bound = pod.map(|(name, uid)| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(name.to_owned()),
        uid: uid.map(str::to_owned),
    });
    let spec = TokenRequestSpec {
        audiences: vec!["signet-ca".to_owned()],
        expiration_seconds: Some(seconds),
        bound_object_ref: bound,
    };
    TokenRequest {
        spec,
        ..TokenRequest::default()
    }
}

#[tokio::test]
async fn token_request_binds_to_a_pod() {
    let cluster = cluster();
    let uid = cluster
        .create_pod(PodSpec::new("billing", "api-0").service_account("api").node("n1"))
        .unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin(&cluster).await, "billing");
    let wanted = request(600, Some(("api-0", Some(&uid))));
    let made = within(accounts.create_token_request("api", &PostParams::default(), &wanted))
        .await
        .unwrap();
    let claims = decode(&made.status.unwrap().token, 1);
    assert_eq!(
        claims["kubernetes.io"]["pod"],
        json!({"name": "api-0", "uid": uid})
    );
    assert_eq!(
        claims["kubernetes.io"]["node"],
        json!({"name": "n1"}),
        "the node object is missing"
    );
    assert_eq!(claims["sub"], "system:serviceaccount:billing:api");
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        600
    );
    assert_eq!(claims["aud"], json!(["signet-ca"]));
    assert!(claims["jti"].is_string());
}

#[tokio::test]
async fn claims_without_extras_are_those_of_the_recorded_server() {
    let recorded: Value = serde_json::from_str(include_str!("../data/tokenreview-v1.20.json")).unwrap();
    let recorded = &recorded["token_claims_of_bound_pod_case"];
    let cluster = cluster_with(Options {
        node_extras: false,
        ..Options::default()
    });
    cluster.create_node("n1").unwrap();
    cluster
        .create_pod(PodSpec::new("billing", "api-0").service_account("api").node("n1"))
        .unwrap();
    let token = cluster.mint_token(
        &TokenSpec::new("billing", "api")
            .audience("signet-ca")
            .pod("api-0"),
    );
    let claims = decode(&token.unwrap(), 1);
    assert_eq!(shape(&claims), shape(recorded));
    for same in ["aud", "iss", "sub"] {
        assert_eq!(claims[same], recorded[same]);
    }
}

/// The keys of an object and below it, sorted.
fn shape(value: &Value) -> Vec<String> {
    let Some(map) = value.as_object() else {
        return Vec::new();
    };
    let below = |(key, value): (&String, &Value)| {
        let inner = shape(value)
            .into_iter()
            .map(|inner| format!("{key}.{inner}"))
            .collect::<Vec<_>>();
        std::iter::once(key.clone()).chain(inner).collect::<Vec<_>>()
    };
    let mut keys: Vec<String> = map.iter().flat_map(below).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn token_request_refuses_what_kubernetes_refuses() {
    let cluster = cluster();
    cluster.create_pod(PodSpec::new("billing", "other")).unwrap();
    cluster
        .create_pod(PodSpec::new("billing", "api-0").service_account("api"))
        .unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin(&cluster).await, "billing");
    let cases = [
        ("api", request(599, None), 422, "Invalid"),
        ("none", request(600, None), 404, "NotFound"),
        ("api", request(600, Some(("gone", None))), 404, "NotFound"),
        (
            "api",
            request(600, Some(("api-0", Some("another-uid")))),
            409,
            "Conflict",
        ),
        ("api", request(600, Some(("other", None))), 400, "BadRequest"),
    ];
    for (account, wanted, code, reason) in cases {
        let made = within(accounts.create_token_request(account, &PostParams::default(), &wanted)).await;
        let status = refusal(made);
        assert_eq!(
            (status.code, status.reason.as_str()),
            (code, reason),
            "{}",
            status.message
        );
    }
}

#[tokio::test]
async fn published_keys_verify_tokens_across_rotation() {
    let cluster = cluster();
    let admin = admin(&cluster).await;
    let first = cluster.mint_token(&TokenSpec::new("billing", "api")).unwrap();
    assert_ne!(
        cluster.rotate_signing_key(OldKey::Keep).unwrap(),
        decode(&first, 0)["kid"]
    );
    let second = cluster.mint_token(&TokenSpec::new("billing", "api")).unwrap();
    let (status, keys) = send(&admin, "GET", "/openid/v1/jwks", "").await;
    assert_eq!(status, 200);
    assert_eq!(keys, cluster.jwks());
    assert!(verifies(&keys, &first) && verifies(&keys, &second));
    cluster.rotate_signing_key(OldKey::Drop).unwrap();
    let (_, keys) = send(&admin, "GET", "/openid/v1/jwks", "").await;
    assert!(!verifies(&keys, &first));
    let (_, openid) = send(&admin, "GET", "/.well-known/openid-configuration", "").await;
    assert_eq!(openid["issuer"], decode(&second, 1)["iss"]);
}

fn verifies(keys: &Value, token: &str) -> bool {
    let header = decode(token, 0);
    assert_eq!(header["alg"], "ES256");
    let Some(key) = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == header["kid"])
    else {
        return false;
    };
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &signature)
        .is_ok()
}
