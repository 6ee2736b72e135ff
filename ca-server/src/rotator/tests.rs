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
        .turn(&mut state, &mut offered, &JwtSource::Own, &slots, Why::State)
        .await;
    assert!(matches!(refused, Err(RotateError::NoKey)));
    assert_eq!(slots.current().issuing.id(), before);

    let late = rotator(dir.path(), due);
    late.turn(&mut state, &mut offered, &JwtSource::Own, &slots, Why::Due)
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
    early.renew(&mut state, &own, &slots, Why::Due).await.unwrap();
    let (issuing_now, renew_now) = (slots.current().issuing.id(), slots.current().renew_at);
    assert!(issuing_now != issuing && renew_now > renew_at);
    let due = early
        .turn_jwt(&mut state, &mut Supplied::by(JwtSource::Own), &slots)
        .await;
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
    late.renew(&mut state, &own, &slots, Why::Due).await.unwrap();
    late.turn_jwt(&mut state, &mut Supplied::by(JwtSource::Own), &slots)
        .await;
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
    late.renew(&mut state, &JwtSource::Own, &slots, Why::Due)
        .await
        .unwrap();
    let due = late
        .turn_jwt(&mut state, &mut Supplied::by(JwtSource::Own), &slots)
        .await;
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

/// The wall clock of tests whose time is tokio's.
struct Running(tokio::time::Instant);

impl Clock for Running {
    fn now(&self) -> UnixTime {
        plus(NOW, self.0.elapsed())
    }
}

/// A replica that runs: what it has in force, and how often it wrote.
struct Replica {
    slots: Slots,
    metrics: Metrics,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Replica {
    async fn start(
        state: &std::path::Path,
        plugged_in: Option<PathBuf>,
        keys: Option<&std::path::Path>,
    ) -> Self {
        let mut rotator = rotator(state, NOW);
        rotator.clock = Arc::new(Running(tokio::time::Instant::now()));
        rotator.plugged_in = plugged_in;
        let metrics = rotator.metrics.clone();
        let source = JwtSource::open(keys).unwrap();
        let stored = rotator.store.create(&fresh(1)).await.unwrap();
        let (state, snapshot) = rotator.start(&stored, &source).await.unwrap();
        let slots = Slots::new(snapshot);
        let task = tokio::spawn(rotator.run(state, source, slots.clone()));
        Self { slots, metrics, task }
    }

    fn failed(&self) -> u64 {
        let outcome = "failed";
        let family = &self.metrics.rotations;
        family.get_or_create(&crate::metrics::Outcome { outcome }).get()
    }

    fn count(&self, outcome: &'static str) -> u64 {
        let family = &self.metrics.trust.jwt_rotations;
        family.get_or_create(&crate::metrics::Outcome { outcome }).get()
    }

    fn changes(&self) -> u64 {
        ["prepared", "activated", "retired"]
            .map(|o| self.count(o))
            .iter()
            .sum()
    }

    fn signs(&self) -> String {
        self.slots
            .current()
            .jwt
            .as_ref()
            .unwrap()
            .public()
            .kid()
            .to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_whose_key_files_change_some_seconds_apart_do_not_undo_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let pems: Vec<String> = (0..2)
        .map(|_| SigningKey::generate().unwrap().expose_pem().to_string())
        .collect();
    let files = ["a.pem", "b.pem"].map(|name| dir.path().join(name));
    let write = |file: &std::path::Path, keys: &[usize]| {
        std::fs::write(
            file,
            keys.iter().map(|key| pems[*key].as_str()).collect::<String>(),
        )
        .unwrap();
    };
    files.iter().for_each(|file| write(file, &[0]));
    let state = dir.path().join("state");
    let a = Replica::start(&state, None, Some(&files[0])).await;
    let b = Replica::start(&state, None, Some(&files[1])).await;
    let first = a.signs();
    let before = a.changes() + b.changes();
    // Appended, put first, and the old one removed: each file follows five seconds after the other.
    for keys in [&[0, 1][..], &[1, 0], &[1]] {
        write(&files[0], keys);
        tokio::time::sleep(Duration::from_secs(5)).await;
        write(&files[1], keys);
        tokio::time::sleep(policy().lead + Duration::from_secs(60)).await;
        assert!(
            a.slots.current().bundle.same_content(&b.slots.current().bundle),
            "{keys:?}"
        );
        assert_eq!(a.signs(), b.signs(), "{keys:?}");
    }
    assert_ne!(a.signs(), first, "the second key took over");
    assert_eq!(
        a.changes() + b.changes() - before,
        3,
        "prepared, activated, retired: once each"
    );
    assert_eq!(b.count("not_held"), 0, "both had it in time");
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_the_key_that_signs_goes_on_with_the_one_before_and_then_with_none() {
    let dir = tempfile::tempdir().unwrap();
    let pems: Vec<String> = (0..2)
        .map(|_| SigningKey::generate().unwrap().expose_pem().to_string())
        .collect();
    let files = ["a.pem", "b.pem"].map(|name| dir.path().join(name));
    files
        .iter()
        .for_each(|file| std::fs::write(file, &pems[0]).unwrap());
    let state = dir.path().join("state");
    let a = Replica::start(&state, None, Some(&files[0])).await;
    let b = Replica::start(&state, None, Some(&files[1])).await;
    let first = b.signs();
    std::fs::write(&files[0], &pems[1]).unwrap();
    tokio::time::sleep(policy().lead + Duration::from_secs(60)).await;
    assert_ne!(a.signs(), first);
    assert_eq!((b.signs(), b.count("not_held")), (first, 1));
    tokio::time::sleep(policy().lead).await;
    assert!(
        b.slots.current().jwt.is_none(),
        "a token of it would outlive its key"
    );
    std::fs::write(&files[1], &pems[1]).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(b.signs(), a.signs());
    assert_eq!((b.changes(), b.count("not_held")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn replicas_whose_plugged_in_roots_change_some_seconds_apart_do_not_undo_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let life = Duration::from_secs(86_400);
    let root = |at| {
        let key = Arc::new(SigningKey::generate().unwrap());
        Authority::self_signed_root(&domain(), key, life, at).unwrap()
    };
    let (old, new) = (root(NOW), root(NOW));
    let pem = |authority: &Authority| authority.certificate().to_pem();
    let cas = ["a", "b"].map(|name| dir.path().join(name));
    let write = |ca: &std::path::Path, file: &str, text: &str| {
        std::fs::create_dir_all(ca).unwrap();
        std::fs::write(ca.join(file), text).unwrap();
    };
    for ca in &cas {
        write(ca, "tls.crt", &pem(&old));
        write(ca, "tls.key", &old.key().expose_pem());
        write(ca, "ca.crt", &pem(&old));
    }
    let state = dir.path().join("state");
    let born = TrustBundle::new(domain(), vec![old.certificate().clone()], 1).unwrap();
    let store = FileStore::open(&state).unwrap();
    store.create(&CaState::with_bundle(Arc::new(born))).unwrap();
    let a = Replica::start(&state, Some(cas[0].clone()), None).await;
    let b = Replica::start(&state, Some(cas[1].clone()), None).await;
    let before = a.slots.current().bundle.sequence();
    let both = format!("{}{}", pem(&old), pem(&new));
    for (turn, roots) in [(1, &both), (2, &pem(&old))] {
        write(&cas[0], "ca.crt", roots);
        tokio::time::sleep(Duration::from_secs(5)).await;
        write(&cas[1], "ca.crt", roots);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (of_a, of_b) = (a.slots.current(), b.slots.current());
        assert!(of_a.bundle.same_content(&of_b.bundle), "{turn}");
        assert_eq!(of_a.bundle.sequence(), before + turn, "written once");
    }
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_the_store_went_back_on_is_not_tried_again() {
    let other_keys = first_keys(&JwtSource::Own, &policy(), NOW).unwrap();
    for with_other_keys in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::start(dir.path(), None, None).await;
        let store = FileStore::open(dir.path()).unwrap();
        let good = store.load(&domain()).unwrap().unwrap();
        let keyless = CaState::with_bundle(Arc::new(TrustBundle::clone(fresh(9).bundle())));
        store.update(&good, &keyless).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(replica.failed() > 1, "it is offered, and tried again");

        let back = match with_other_keys {
            false => good,
            true => good.with_jwt(other_keys.clone()).unwrap(),
        };
        store.update(&keyless, &back).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let failed = replica.failed();
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(replica.failed(), failed, "other keys: {with_other_keys}");
        assert!(replica.slots.current().bundle.same_content(back.bundle()));
    }
}
