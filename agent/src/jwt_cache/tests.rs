use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use signet_certs::jwt::{JwtAuthority, JwtProfile};
use signet_certs::{Authority, SigningKey, TrustDomain, UnixTime};

use super::*;
use crate::svids::{Keeping, Trust};

const TTL: Duration = Duration::from_secs(300);

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000 + seconds))
}

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

/// A bundle without a root is not put in force.
static ROOT: LazyLock<Authority> = LazyLock::new(|| {
    let key = Arc::new(SigningKey::generate().unwrap());
    Authority::self_signed_root(&domain(), key, Duration::from_secs(86_400 * 365), at(0)).unwrap()
});

fn id(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{name}")
        .parse()
        .unwrap()
}

fn of(name: &str) -> Whose {
    Whose::Of(id(name))
}

fn audience(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn ask(name: &str, names: &[&str]) -> Ask {
    Ask {
        whose: of(name),
        id: id(name),
        audience: audience(names),
    }
}

fn authority() -> JwtAuthority {
    JwtAuthority::new(Arc::new(SigningKey::generate().unwrap())).unwrap()
}

fn token(authority: &JwtAuthority, name: &str, ttl: Duration, now: UnixTime) -> Arc<JwtSvid> {
    let profile = JwtProfile {
        id: id(name),
        audience: audience(&["x"]),
        ttl,
        issuer: None,
    };
    Arc::new(authority.mint(&profile, now).unwrap())
}

fn is_fresh(found: &Found) -> bool {
    matches!(found, Found::Fresh(_))
}

fn is_aging(found: &Found) -> bool {
    matches!(found, Found::Aging(_))
}

fn is_nothing(found: &Found) -> bool {
    matches!(found, Found::Nothing)
}

#[test]
fn the_order_and_number_of_audiences_make_no_other_key_but_their_limits_do() {
    let key = |names: &[&str]| Key::new(&of("cart"), &audience(names));
    assert_eq!(key(&["a", "b"]), key(&["b", "a", "b"]));
    assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    assert_ne!(key(&["a"]), key(&["a", "b"]));
    assert_ne!(key(&["a"]), Key::new(&of("web"), &audience(&["a"])));
    assert_ne!(key(&["a"]), Key::new(&Whose::Own, &audience(&["a"])));
}

proptest! {
    #[test]
    fn keys_are_equal_exactly_when_the_sets_of_audiences_are(
        one in prop::collection::vec("[ab]{0,3}", 0..4), other in prop::collection::vec("[ab]{0,3}", 0..4),
    ) {
        let set = |names: &[String]| names.iter().cloned().collect::<std::collections::BTreeSet<_>>();
        let key = |names: &[String]| Key::new(&Whose::Own, names);
        prop_assert_eq!(key(&one) == key(&other), set(&one) == set(&other));
    }
}

#[test]
fn a_token_is_fresh_for_half_of_its_life_and_handed_out_until_shortly_before_its_end() {
    let authority = authority();
    let mut shelf = Shelf::new(BOUNDS);
    let key = Key::new(&of("cart"), &audience(&["x"]));
    shelf.put(key.clone(), token(&authority, "cart", TTL, at(0)), at(0));
    let all = |_: &str| true;
    assert!(is_fresh(&shelf.get(&key, all, at(149))));
    assert!(is_aging(&shelf.get(&key, all, at(150))));
    assert!(is_aging(&shelf.get(&key, all, at(294))));
    assert!(is_nothing(&shelf.get(&key, all, at(295))));
    assert!(is_nothing(&shelf.get(&key, |_| false, at(1))));
    // A clock that was set back by an hour must not make it young again.
    let before = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000 - 3_600));
    assert!(is_aging(&shelf.get(&key, all, before)));
}

#[test]
fn sweeping_drops_what_is_over_withdrawn_or_nobodys() {
    let (old, new) = (authority(), authority());
    let mut shelf = Shelf::new(BOUNDS);
    for (name, authority, ttl) in [
        ("cart", &new, TTL),
        ("withdrawn", &old, TTL),
        ("gone", &new, TTL),
        ("over", &new, Duration::from_secs(10)),
    ] {
        let key = Key::new(&of(name), &audience(&["x"]));
        shelf.put(key, token(authority, name, ttl, at(0)), at(0));
    }
    let kid = new.public().kid().to_owned();
    shelf.sweep(|k| k == kid, |whose| *whose != of("gone"), at(20));
    assert_eq!(shelf.len(), 1);
    let key = Key::new(&of("cart"), &audience(&["x"]));
    assert!(is_fresh(&shelf.get(&key, |_| true, at(20))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn bounds_hold_and_what_ends_first_goes_first(
        puts in prop::collection::vec((0..4_usize, 0..6_usize, 20..400_u64), 1..40),
    ) {
        let authority = authority();
        let bounds = Bounds { entries: 6, entries_of_one: 3, bytes: 4_000, failures: 2 };
        let mut shelf = Shelf::new(bounds);
        let mut evicted = 0;
        let mut distinct = std::collections::BTreeSet::new();
        for (name, who, ttl) in puts {
            let name = format!("w{name}");
            let key = Key::new(&of(&name), &[who.to_string()]);
            distinct.insert(key.clone());
            let token = token(&authority, &name, Duration::from_secs(ttl), at(0));
            evicted += shelf.put(key.clone(), token, at(0));
            prop_assert!(shelf.len() <= bounds.entries && shelf.bytes() <= bounds.bytes);
            // The one that just came is there, whatever had to go for it.
            prop_assert!(!is_nothing(&shelf.get(&key, |_| true, at(0))));
        }
        prop_assert!(shelf.len() + evicted >= distinct.len());
        shelf.sweep(|_| false, |_| true, at(0));
        prop_assert_eq!((shelf.len(), shelf.bytes()), (0, 0));
    }
}

#[test]
fn failures_are_remembered_for_their_time_and_no_more_of_them_than_the_bound() {
    let mut shelf = Shelf::new(Bounds {
        failures: 2,
        ..BOUNDS
    });
    let failure = Failure::new(FailureKind::Unavailable, "no");
    let key = |n: usize| Key::new(&of("cart"), &[n.to_string()]);
    for n in 0..3 {
        shelf.put_failure(key(n), failure.clone(), at(0), at(1));
    }
    assert_eq!(shelf.failure(&key(0), at(0)), Some(&failure));
    assert_eq!(shelf.failure(&key(2), at(0)), None);
    assert_eq!(shelf.failure(&key(0), at(1)), None);
    shelf.put_failure(key(2), failure.clone(), at(1), at(2));
    assert_eq!(shelf.failure(&key(2), at(1)), Some(&failure));
    let before = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000 - 3_600));
    assert_eq!(shelf.failure(&key(2), before), None);
}

/// A CA that signs what it is asked for, as a test wants it.
struct FakeMint {
    authority: JwtAuthority,
    clock: TestClock,
    asked: AtomicUsize,
    down: AtomicBool,
    /// What it signs in place of what it is asked for.
    instead: Mutex<Option<JwtProfile>>,
}

impl Mint for FakeMint {
    fn mint<'a>(
        &'a self,
        whose: &'a Whose,
        audience: &'a [String],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
            if self.down.load(Ordering::Relaxed) {
                return Err(Failure::new(FailureKind::Unavailable, "the CA is away"));
            }
            let Whose::Of(id) = whose else {
                panic!("nobody asks for the agent's own token here")
            };
            let profile = JwtProfile {
                id: id.clone(),
                audience: audience.to_vec(),
                ttl,
                issuer: None,
            };
            let profile = self.instead.lock().unwrap().clone().unwrap_or(profile);
            let token = self.authority.mint(&profile, self.clock.now()).unwrap();
            Ok(token.expose_token().to_owned())
        }
        .boxed()
    }
}

#[derive(Clone)]
struct TestClock(Arc<Mutex<UnixTime>>);

impl TestClock {
    fn set(&self, now: UnixTime) {
        *self.0.lock().unwrap() = now;
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        *self.0.lock().unwrap()
    }
}

struct Bench {
    cache: JwtCache,
    mint: Arc<FakeMint>,
    clock: TestClock,
    keeping: Keeping,
}

impl Bench {
    fn new() -> Self {
        let clock = TestClock(Arc::new(Mutex::new(at(0))));
        let mint = Arc::new(FakeMint {
            authority: authority(),
            clock: clock.clone(),
            asked: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            instead: Mutex::new(None),
        });
        let (keeping, shelves) = Shelves::new(domain());
        let cache = JwtCache::new(
            Arc::<FakeMint>::clone(&mint),
            shelves,
            TTL,
            Arc::new(clock.clone()),
            Metrics::default(),
        );
        let bench = Self {
            cache,
            mint,
            clock,
            keeping,
        };
        let key = bench.mint.authority.public().clone();
        bench.publish(1, vec![key]);
        bench
    }

    fn publish(&self, sequence: u64, keys: Vec<signet_certs::jwt::JwtKey>) {
        let bundle = TrustBundle::new(domain(), vec![ROOT.certificate().clone()], sequence).unwrap();
        let bundle = bundle.with_jwt_keys(keys).unwrap();
        let trust = Arc::new(Trust::new(Arc::new(bundle), Vec::new()));
        self.keeping.put_trust(&trust, Vec::new());
    }

    fn asked(&self) -> usize {
        self.mint.asked.load(Ordering::Relaxed)
    }

    fn counted(&self, outcome: &'static str) -> u64 {
        let family = &self.cache.0.metrics.jwt_cache;
        family.get_or_create(&crate::metrics::Outcome { outcome }).get()
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_at_once_the_ca_is_asked_once_and_later_callers_not_at_all() {
    let bench = Bench::new();
    let asks = (0..20).map(|_| bench.cache.token(ask("cart", &["a", "b"])));
    let tokens = futures::future::try_join_all(asks).await.unwrap();
    assert_eq!(bench.asked(), 1);
    assert!(tokens.iter().all(|token| Arc::ptr_eq(token, &tokens[0])));
    let again = bench.cache.token(ask("cart", &["b", "a", "a"])).await.unwrap();
    assert!(Arc::ptr_eq(&again, &tokens[0]));
    assert_eq!(
        (bench.asked(), bench.counted("cached"), bench.counted("joined")),
        (1, 1, 19)
    );
    bench.cache.token(ask("cart", &["a"])).await.unwrap();
    bench.cache.token(ask("web", &["a", "b"])).await.unwrap();
    assert_eq!(bench.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_takes_nobodys_token_away() {
    let bench = Bench::new();
    let first = tokio::time::timeout(Duration::from_millis(10), bench.cache.token(ask("cart", &["a"])));
    let second = bench.cache.token(ask("cart", &["a"]));
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_err());
    second.unwrap();
    assert_eq!(bench.asked(), 1);
    // And one whose callers have all left does not stand in the way of the next.
    let alone = tokio::time::timeout(Duration::from_millis(10), bench.cache.token(ask("web", &["a"])));
    assert!(alone.await.is_err());
    bench.cache.token(ask("web", &["a"])).await.unwrap();
    assert_eq!(bench.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn while_the_ca_is_away_an_aging_token_is_handed_out_and_nobody_asks_every_time() {
    let bench = Bench::new();
    let first = bench.cache.token(ask("cart", &["a"])).await.unwrap();
    bench.mint.down.store(true, Ordering::Relaxed);
    bench.clock.set(at(200));
    for _ in 0..5 {
        let token = bench.cache.token(ask("cart", &["a"])).await.unwrap();
        assert!(Arc::ptr_eq(&token, &first));
    }
    assert_eq!((bench.asked(), bench.counted("aging")), (2, 5));
    let failure = bench.cache.token(ask("cart", &["b"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unavailable);
    bench.clock.set(at(296));
    assert!(bench.cache.token(ask("cart", &["a"])).await.is_err());
    bench.mint.down.store(false, Ordering::Relaxed);
    bench.clock.set(at(298));
    let second = bench.cache.token(ask("cart", &["a"])).await.unwrap();
    assert!(!Arc::ptr_eq(&second, &first));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_what_was_asked_for_or_not_good_here_is_not_handed_out() {
    let bench = Bench::new();
    let profile = |name: &str, names: &[&str], ttl| JwtProfile {
        id: id(name),
        audience: audience(names),
        ttl,
        issuer: None,
    };
    for (instead, why) in [
        (profile("other", &["a"], TTL), "token is of"),
        (profile("cart", &["b"], TTL), "audience"),
    ] {
        *bench.mint.instead.lock().unwrap() = Some(instead);
        let failure = bench.cache.token(ask("cart", &["a"])).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadAnswer);
        assert!(failure.text.contains(why), "{failure}");
        bench.clock.set(plus(bench.clock.now(), Duration::from_secs(2)));
    }
    *bench.mint.instead.lock().unwrap() = None;
    // Its key leaves the bundle: neither what is kept nor what comes anew is good any more.
    bench.cache.token(ask("cart", &["a"])).await.unwrap();
    bench.publish(2, vec![authority().public().clone()]);
    let failure = bench.cache.token(ask("cart", &["a"])).await.unwrap_err();
    assert!(failure.text.contains("no jwt-svid key"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn one_identity_does_not_crowd_out_the_others() {
    let bench = Bench::new();
    let audiences: Vec<String> = (0..MAX_FLIGHTS_OF_ONE + 8).map(|n| n.to_string()).collect();
    let greedy = futures::future::join_all(
        audiences
            .iter()
            .map(|audience| bench.cache.token(ask("cart", &[audience]))),
    );
    let (greedy, modest) = tokio::join!(greedy, bench.cache.token(ask("web", &["a"])));
    modest.unwrap();
    let refused = greedy.iter().filter(|answer| answer.is_err()).count();
    assert_eq!((refused, bench.counted("too_many")), (8, 8));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_workloads_that_left_are_dropped() {
    let bench = Bench::new();
    bench.cache.token(ask("cart", &["a"])).await.unwrap();
    bench.cache.token(ask("web", &["a"])).await.unwrap();
    let (wants, wanted) = watch::channel(Arc::new(Wanted::default()));
    let cleaning = tokio::spawn(bench.cache.clone().keep_clean(wanted));
    let held = || bench.cache.0.lock().shelf.len();
    tokio::time::sleep(SWEEP_EVERY * 2).await;
    assert_eq!(held(), 2, "nobody is gone as long as the list is not complete");
    let synced = Wanted {
        ids: [(id("cart"), crate::attest::WantedBy::default())].into(),
        synced: true,
    };
    wants.send_replace(Arc::new(synced));
    tokio::time::sleep(SETTLE * 2).await;
    assert_eq!(held(), 1);
    cleaning.abort();
}
