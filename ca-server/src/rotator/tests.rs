use super::*;
use crate::jwt_keys::Phase;
use crate::store::file::FileStore;
use signet_certs::lifetime::minus;
use signet_certs::{Authority, JwtSvid, SigningKey, TrustBundle};

const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

struct At(UnixTime);

impl Clock for At {
    fn now(&self) -> UnixTime {
        self.0
    }
}

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn fresh(sequence: u64) -> CaState {
    let key = Arc::new(SigningKey::generate().unwrap());
    let root = Authority::self_signed_root(&domain(), key, Duration::from_secs(86_400), NOW).unwrap();
    CaState::with_root(&domain(), root, sequence).unwrap()
}

fn rotator(directory: &std::path::Path, now: UnixTime) -> Rotator {
    Rotator {
        domain: domain(),
        issuing_life: Duration::from_secs(1_000),
        refresh_hint: Duration::from_secs(300),
        jwt: policy(),
        plugged_in: None,
        store: Store::File(FileStore::open(directory).unwrap()),
        clock: Arc::new(At(now)),
        metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
    }
}

#[tokio::test]
async fn a_stored_state_that_cannot_sign_does_not_stop_renewal_under_the_last_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let rotator_now = rotator(dir.path(), NOW);
    let stored = rotator_now.store.create(&fresh(1)).await.unwrap();
    let (mut state, first) = rotator_now.start(&stored, &JwtSource::Own).await.unwrap();
    let due = first.renew_at;
    let before = first.issuing.id();
    let slots = Slots::new(first);
    let keyless = CaState::with_bundle(Arc::new(TrustBundle::clone(fresh(9).bundle())));

    let mut offered = Some(keyless);
    let early = rotator(dir.path(), minus(due, Duration::from_secs(1)));
    let refused = early
        .turn(&mut state, &mut offered, &JwtSource::Own, &slots, "state")
        .await;
    assert!(matches!(refused, Err(RotateError::NoKey)));
    assert_eq!(slots.current().issuing.id(), before);

    let late = rotator(dir.path(), due);
    late.turn(&mut state, &mut offered, &JwtSource::Own, &slots, "due")
        .await
        .unwrap();
    assert_ne!(slots.current().issuing.id(), before, "renewed all the same");
    assert_eq!(slots.current().bundle.sequence(), 2);
    assert!(offered.is_some(), "tried again later");
}

#[tokio::test]
async fn a_stored_state_with_other_roots_under_the_same_sequence_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let rotator = rotator(dir.path(), NOW);
    let state = fresh(4);
    assert!(rotator.adopt(Seen::State(fresh(4)), &state).is_none());
    assert!(rotator.adopt(Seen::State(fresh(3)), &state).is_none());
    assert!(rotator.adopt(Seen::State(fresh(5)), &state).is_some());
}

fn policy() -> Policy {
    let seconds = Duration::from_secs;
    Policy::new(seconds(300), seconds(10_000), seconds(3_600))
}

fn kid(state: &CaState) -> String {
    state.jwt().active().unwrap().key.kid().to_owned()
}

async fn started(directory: &std::path::Path) -> (CaState, Slots) {
    let rotator = rotator(directory, NOW);
    let first = rotator.store.create(&fresh(1)).await.unwrap();
    let (state, snapshot) = rotator.start(&first, &JwtSource::Own).await.unwrap();
    (state, Slots::new(snapshot))
}

#[tokio::test]
async fn the_first_start_makes_a_jwt_authority_that_the_bundle_verifies_and_the_store_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let (state, slots) = started(dir.path()).await;
    let snapshot = slots.current();
    assert_eq!(snapshot.bundle.sequence(), 2);
    let profile = signet_certs::jwt::JwtProfile {
        id: "spiffe://cluster.local/ns/a/sa/b".parse().unwrap(),
        audience: vec!["x".into()],
        ttl: Duration::from_secs(60),
        issuer: None,
    };
    let token = snapshot.jwt.as_ref().unwrap().mint(&profile, NOW).unwrap();
    JwtSvid::validate(token.expose_token(), "x", &snapshot.bundles, NOW).unwrap();

    let again = rotator(dir.path(), NOW);
    let stored = again.store.load(&domain()).await.unwrap().unwrap();
    assert!(stored.same(&state));
    let (restarted, _) = again.start(&stored, &JwtSource::Own).await.unwrap();
    assert!(restarted.same(&state), "a restart changes nothing");
}

#[tokio::test]
async fn a_jwt_rotation_raises_the_sequence_and_leaves_the_issuing_authority_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, slots) = started(dir.path()).await;
    let (issuing, renew_at, first) = (
        slots.current().issuing.id(),
        slots.current().renew_at,
        kid(&state),
    );
    let life = policy().life;
    let early = rotator(dir.path(), plus(NOW, life - policy().lead));
    let own = JwtSource::Own;
    // The issuing authority of these tests lives 1,000 s: it is renewed as its loop would.
    early.renew(&mut state, &own, &slots, "due").await.unwrap();
    let (issuing_now, renew_now) = (slots.current().issuing.id(), slots.current().renew_at);
    assert!(issuing_now != issuing && renew_now > renew_at);
    let due = early.turn_jwt(&mut state, &own, &slots).await;
    assert_eq!(due, plus(NOW, life));
    let prepared = slots.current();
    assert_eq!(
        (prepared.bundle.sequence(), prepared.bundle.jwt_keys().len()),
        (3, 2)
    );
    assert_eq!(
        (prepared.issuing.id(), prepared.renew_at),
        (issuing_now, renew_now)
    );
    assert_eq!(prepared.jwt.as_ref().unwrap().public().kid(), first);

    let late = rotator(dir.path(), plus(NOW, life));
    late.renew(&mut state, &own, &slots, "due").await.unwrap();
    late.turn_jwt(&mut state, &own, &slots).await;
    let activated = slots.current();
    assert_eq!(
        (activated.bundle.sequence(), activated.bundle.jwt_keys().len()),
        (3, 2)
    );
    assert_ne!(activated.jwt.as_ref().unwrap().public().kid(), first);
}

#[tokio::test]
async fn of_two_replicas_that_start_together_one_adopts_the_others_key() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (rotator(dir.path(), NOW), rotator(dir.path(), NOW));
    let both = one.store.create(&fresh(1)).await.unwrap();
    let (first, _) = one.start(&both, &JwtSource::Own).await.unwrap();
    let (second, snapshot) = two.start(&both, &JwtSource::Own).await.unwrap();
    assert!(second.same(&first));
    assert_eq!(snapshot.jwt.unwrap().public().kid(), kid(&first));
}

#[tokio::test]
async fn a_conflict_while_running_is_left_to_the_watch_and_the_key_in_force_signs_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, slots) = started(dir.path()).await;
    let before = kid(&state);
    let other = rotator(dir.path(), plus(NOW, policy().life));
    let (theirs, _) = other.start(&state, &JwtSource::Own).await.unwrap();
    let late = rotator(dir.path(), plus(NOW, policy().life));
    late.renew(&mut state, &JwtSource::Own, &slots, "due")
        .await
        .unwrap();
    let due = late.turn_jwt(&mut state, &JwtSource::Own, &slots).await;
    assert_eq!(due, plus(NOW, policy().life + RETRY));
    assert_eq!(slots.current().jwt.as_ref().unwrap().public().kid(), before);

    let adopted = late.adopt(Seen::State(theirs.clone()), &state).unwrap();
    assert!(adopted.same_roots(&state));
    late.republish(&adopted, &JwtSource::Own, &slots);
    assert!(slots.current().bundle.same_content(theirs.bundle()));
    assert!(adopted.jwt().0.iter().any(|entry| entry.phase == Phase::Prepared));
}

#[tokio::test]
async fn an_operators_key_signs_and_never_lies_in_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwt.pem");
    let pem = SigningKey::generate().unwrap().expose_pem();
    std::fs::write(&path, pem.as_bytes()).unwrap();
    let source = JwtSource::open(Some(&path)).unwrap();
    let rotator = rotator(&dir.path().join("state"), NOW);
    let first = rotator.store.create(&fresh(1)).await.unwrap();
    let (state, snapshot) = rotator.start(&first, &source).await.unwrap();
    assert_eq!(snapshot.jwt.unwrap().public().kid(), kid(&state));
    let json = String::from_utf8(state.expose_json().to_vec()).unwrap();
    assert_eq!(
        json.matches("PRIVATE KEY-----\\n").count(),
        2,
        "the root's alone, begin and end"
    );
}
