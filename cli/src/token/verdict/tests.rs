use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::print::{Format, Printer};

const NOW: u64 = 1_800_000_000;

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW))
}

/// A token with these claims, signed by nobody.
fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "RS256"})), part(claims))
}

fn good() -> Value {
    json!({
        "aud": ["signet-ca"], "exp": NOW + 3600, "iat": NOW - 60, "nbf": NOW - 60,
        "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:shop:cart",
        "kubernetes.io": {"pod": {"name": "cart-0", "uid": "0b0e"}, "node": {"name": "node-1"}},
    })
}

fn finding(name: &str, value: Value) -> Finding {
    let mut claims = good();
    claims[name] = value;
    if claims[name].is_null() {
        claims.as_object_mut().unwrap().remove(name);
    }
    let claims = AccountClaims::read(&token(&claims)).unwrap();
    Finding::of_claims(&claims, "signet-ca", now()).unwrap()
}

fn verdict() -> Verdict {
    Verdict::new(
        "signet-ca",
        Some(&AccountClaims::read(&token(&good())).unwrap()),
        now(),
    )
}

#[test]
fn every_fault_in_its_own_words_has_a_reason_and_a_fix() {
    for (name, value, reason, explanation) in [
        (
            "aud",
            json!(["istio-ca"]),
            "token_audience",
            "it has audience istio-ca; the CA accepts signet-ca",
        ),
        (
            "aud",
            json!(null),
            "token_audience",
            "it has no audience; the CA accepts signet-ca",
        ),
        ("exp", json!(NOW - 200), "token_expired", "it expired 3m 20s ago"),
        (
            "exp",
            json!(null),
            "token_no_expiry",
            "it never expires, as only legacy tokens from Secrets do; the CA refuses those",
        ),
        (
            "nbf",
            json!(NOW + 60),
            "token_not_yet_valid",
            "it is valid only in 1m",
        ),
        (
            "sub",
            json!("jane"),
            "token_subject",
            "it belongs to \"jane\", which is no service account",
        ),
    ] {
        let finding = finding(name, value);
        assert_eq!(
            (finding.reason.as_str(), finding.explanation.as_str()),
            (reason, explanation)
        );
        assert!(!finding.fix.is_empty());
    }
    let claims = AccountClaims::read(&token(&good())).unwrap();
    assert_eq!(Finding::of_claims(&claims, "signet-ca", now()), None);
}

#[test]
fn the_fix_for_an_audience_is_yaml_with_that_audience() {
    let fix = finding("aud", json!(["istio-ca"])).fix;
    let (_, yaml) = fix.split_once('\n').unwrap();
    let volumes: Value = serde_saphyr::from_str(yaml).unwrap();
    let token = volumes
        .pointer("/volumes/0/projected/sources/0/serviceAccountToken")
        .unwrap();
    assert_eq!(token["audience"], "signet-ca");
    assert_eq!(token["expirationSeconds"], 43200);
}

#[test]
fn the_api_servers_words_lead_to_different_fixes() {
    let fix = |error: &str| Finding::review(error, "signet-ca").fix;
    assert!(
        fix("token audiences [\"a\"] is invalid for the target audiences [\"b\"]").starts_with("mount a")
    );
    assert!(fix("[invalid bearer token, Token has been invalidated]").starts_with("the pod it was bound to"));
    assert!(fix("serviceaccounts \"api\" not found").starts_with("its service account"));
    assert!(fix("[invalid bearer token, Token has expired]").starts_with("read the mounted file"));
    assert!(fix("invalid bearer token").starts_with("make sure the token is of this cluster"));
}

#[test]
fn the_verdict_keeps_its_shape() {
    let refused = verdict().refused(
        Judge::ApiServer,
        Finding::of_claims(&AccountClaims::read(&token(&good())).unwrap(), "istio-ca", now()).unwrap(),
    );
    insta::assert_snapshot!("refused", print(&refused, Format::Table));
    insta::assert_snapshot!("refused_json", print(&refused, Format::Json));
    insta::assert_snapshot!("unverified", print(&verdict().unverified(), Format::Table));
    insta::assert_snapshot!("accepted_yaml", print(&verdict().accepted(), Format::Yaml));
}

fn print(view: &Verdict, format: Format) -> String {
    let printed = crate::print::tests::Printed::default();
    Printer::new(Box::new(printed.clone()), format, false)
        .show(view, now())
        .unwrap();
    printed.text()
}
