use super::*;
use crate::jwt_keys::{Entry, Phase};
use signet_certs::{JwtAuthority, UnixTime};
use std::time::Duration;

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

pub(crate) fn fresh(sequence: u64) -> CaState {
    let key = Arc::new(SigningKey::generate().unwrap());
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let root = Authority::self_signed_root(&domain(), key, Duration::from_secs(86_400), now).unwrap();
    CaState::with_root(&domain(), root, sequence).unwrap()
}

#[test]
fn a_state_reads_back_as_it_was_written() {
    let state = fresh(7);
    let read = CaState::parse(&state.expose_json(), &domain()).unwrap();
    assert!(read.same(&state));
    assert_eq!(
        read.active().unwrap().public_key(),
        state.active().unwrap().public_key()
    );
    let keyless = CaState::with_bundle(Arc::clone(state.bundle()));
    assert!(
        CaState::parse(&keyless.expose_json(), &domain())
            .unwrap()
            .active()
            .is_none()
    );
}

#[test]
fn a_newer_schema_is_refused_by_number_even_when_its_body_is_unknown() {
    let refused = CaState::parse(br#"{"schema":9,"future":true}"#, &domain()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "state has schema 9, this signet knows 2; run the newer signet that wrote it"
    );
}

#[test]
fn damage_and_foreign_states_are_told_apart_and_quote_no_key() {
    let json = fresh(1).expose_json();
    let half = json.get(..json.len() / 2).unwrap();
    let damaged = CaState::parse(half, &domain()).unwrap_err().to_string();
    assert!(
        damaged.ends_with("restore it with `signet authority restore`"),
        "{damaged}"
    );
    let other = "other.test".parse().unwrap();
    let foreign = CaState::parse(&json, &other).unwrap_err().to_string();
    assert_eq!(
        foreign,
        "state belongs to trust domain cluster.local, the configuration says other.test"
    );
    assert!(!format!("{:?}", fresh(1)).contains("PRIVATE"));
}

fn entry(phase: Phase, own: bool) -> Entry {
    let made = Arc::new(JwtAuthority::new(Arc::new(SigningKey::generate().unwrap())).unwrap());
    Entry {
        key: made.public().clone(),
        own: own.then_some(made),
        published_at: seconds(1_800_000_000),
        phase,
    }
}

fn seconds(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn jwt_keys() -> JwtKeys {
    JwtKeys(vec![
        entry(Phase::Old { until: seconds(9) }, false),
        entry(Phase::Active { since: seconds(8) }, true),
        entry(Phase::Prepared, true),
    ])
}

#[test]
fn jwt_authorities_read_back_with_their_phases_and_are_in_the_bundle() {
    let state = fresh(7).with_jwt(jwt_keys()).unwrap();
    assert_eq!(
        (state.bundle().sequence(), state.bundle().jwt_keys().len()),
        (8, 3)
    );
    let read = CaState::parse(&state.expose_json(), &domain()).unwrap();
    assert!(read.same(&state) && read.bundle().same_content(state.bundle()));
    let active = read.jwt().active().unwrap();
    assert!(active.own.is_some() && active.phase == Phase::Active { since: seconds(8) });
}

#[test]
fn the_sequence_rises_when_a_key_is_published_or_leaves_and_not_when_it_only_changes_phase() {
    let state = fresh(7).with_jwt(jwt_keys()).unwrap();
    let mut keys = state.jwt().clone();
    keys.0[2].phase = Phase::Active { since: seconds(10) };
    keys.0[1].phase = Phase::Old { until: seconds(11) };
    let same_set = state.with_jwt(keys.clone()).unwrap();
    assert_eq!(same_set.bundle().sequence(), 8);
    assert!(!same_set.same(&state));
    keys.0.remove(0);
    assert_eq!(same_set.with_jwt(keys).unwrap().bundle().sequence(), 9);
}

#[test]
fn a_document_of_schema_1_is_read_without_jwt_authorities() {
    let mut document: serde_json::Value = serde_json::from_slice(&fresh(3).expose_json()).unwrap();
    document.as_object_mut().unwrap().remove("jwt_keys");
    document["schema"] = 1.into();
    let read = CaState::parse(document.to_string().as_bytes(), &domain()).unwrap();
    assert!(read.jwt().0.is_empty() && read.bundle().sequence() == 3);
}

#[test]
fn a_jwt_authority_that_cannot_be_read_damages_the_state() {
    let state = fresh(3).with_jwt(jwt_keys()).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&state.expose_json()).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut document = document.clone();
        change(&mut document["jwt_keys"]);
        CaState::parse(document.to_string().as_bytes(), &domain())
            .unwrap_err()
            .to_string()
    };
    let other = document["jwt_keys"][2]["public_key"].clone();
    for (text, reason) in [
        (
            refused(&|keys| keys[1]["public_key"] = "?".into()),
            "JWT key 1 is not base64",
        ),
        (
            refused(&|keys| keys[1]["public_key"] = other.clone()),
            "JWT key 1 does not belong to its private key",
        ),
        (
            refused(&|keys| keys[0]["phase"] = "active".into()),
            "two JWT keys are active",
        ),
        (
            refused(&|keys| keys[0]["phase"] = "later".into()),
            "it is not the JSON document expected",
        ),
    ] {
        assert!(text.contains(reason), "{text}");
    }
}
