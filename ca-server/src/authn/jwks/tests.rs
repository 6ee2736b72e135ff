//! When keys are fetched, and what a fetch that fails, hangs or is left does not change.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::registry::Registry;

use super::*;
use crate::authn::claims;

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW + seconds))
}

/// An API server that answers with `status`, or not at all, and counts how often it is asked.
fn jwks(status: Option<u16>) -> (Jwks, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let Some(status) = status else {
                return std::future::pending().await;
            };
            let body = kube::client::Body::from(br#"{"keys":[]}"#.to_vec());
            http::Response::builder().status(status).body(body)
        }
    });
    let client = kube::Client::new(service, "default");
    (Jwks::of(client, Metrics::new(&mut Registry::default())), asked)
}

fn token(key_id: &str) -> (BearerToken, Claims) {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = part(&format!(r#"{{"alg":"ES256","kid":"{key_id}"}}"#));
    let body = part(&format!(
        r#"{{"exp":{},"sub":"system:serviceaccount:a:b"}}"#,
        NOW + 600
    ));
    let token = BearerToken::new(&format!("{header}.{body}.c2ln"));
    let claims = claims::read(&token).unwrap();
    (token, claims)
}

/// As if keys with the id `known` had been read `age` seconds before [`NOW`].
fn read_before(jwks: &Jwks, known: &str, age: u64) {
    let by_id = [(known.to_owned(), Key::P256(vec![4; 65]))].into();
    jwks.keys.store(Arc::new(Keys {
        by_id,
        readable: true,
        fetched: Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW - age))),
    }));
}

#[tokio::test(start_paused = true)]
async fn a_failing_api_server_is_asked_at_most_every_ten_seconds() {
    let (jwks, asked) = jwks(Some(500));
    read_before(&jwks, "known", 400);
    for seconds in 0..25 {
        for key_id in ["known", "invented"] {
            let (token, claims) = token(key_id);
            assert_eq!(jwks.verify(&token, &claims, at(seconds)).await, Signature::Bad);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_api_server_does_not_hold_up_tokens_of_known_keys() {
    let (jwks, _) = jwks(None);
    read_before(&jwks, "known", 400);
    let (token, claims) = token("known");
    let started = tokio::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(jwks.verify(&token, &claims, at(0)).await, Signature::Bad);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn callers_who_leave_neither_end_a_fetch_nor_begin_others() {
    let (jwks, asked) = jwks(None);
    let (token, claims) = token("invented");
    for number in 0..20 {
        let left = tokio::time::timeout(Duration::from_millis(1), jwks.verify(&token, &claims, at(0))).await;
        // Who comes after the first does not wait for what may never come.
        assert_eq!(left.ok(), (number > 0).then_some(Signature::Unknown));
    }
    tokio::time::sleep(FETCH_DEADLINE).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(jwks.verify(&token, &claims, at(1)).await, Signature::Unknown);
}

#[tokio::test]
async fn what_cannot_be_checked_here_is_for_the_review_and_only_by_a_key_of_that_kind() {
    let (jwks, _) = jwks(Some(200));
    let set = r#"{"keys":[{"kty":"EC","crv":"P-521","kid":"large","x":"AA","y":"AA"},
        {"kty":"oct","kid":"shared","k":"AA"}]}"#;
    let mut by_id = parse(set).unwrap();
    assert!(!by_id.contains_key("shared"));
    by_id.insert("small".into(), Key::P256(vec![4; 65]));
    jwks.keys.store(Arc::new(Keys {
        by_id,
        readable: true,
        fetched: Some(at(0)),
    }));
    let said = async |algorithm: &str, key_id: &str| {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let header = part(&format!(r#"{{"alg":"{algorithm}"{key_id}}}"#));
        let body = part(&format!(
            r#"{{"exp":{},"sub":"system:serviceaccount:a:b"}}"#,
            NOW + 600
        ));
        let token = BearerToken::new(&format!("{header}.{body}.c2ln"));
        let claims = claims::read(&token).map_err(|fault| fault.as_str())?;
        Ok::<_, &str>(jwks.verify(&token, &claims, at(1)).await)
    };
    assert_eq!(said("ES512", r#","kid":"large""#).await, Ok(Signature::Unknown));
    assert_eq!(said("ES512", "").await, Ok(Signature::Unknown));
    assert_eq!(said("ES512", r#","kid":"small""#).await, Ok(Signature::Bad));
    assert_eq!(said("ES512", r#","kid":"none""#).await, Ok(Signature::Bad));
    assert_eq!(said("ES256", r#","kid":"large""#).await, Ok(Signature::Bad));
    for refused in ["none", "HS256", "HS512", "ES257"] {
        assert_eq!(said(refused, r#","kid":"large""#).await, Err("token_algorithm"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_does_not_keep_old_keys_in_force() {
    let (jwks, asked) = jwks(Some(200));
    read_before(&jwks, "known", 0);
    let (token, claims) = token("invented");
    let set_back = UnixTime::since_unix_epoch(Duration::from_secs(NOW - 86_400));
    jwks.verify(&token, &claims, set_back).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
