//! The shelves: what whom is woken by, and what is never seen.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use signet_agent::attest::{Entitlement, Subject, Workload};
use signet_agent::bundle_watch::Verdict;
use signet_agent::status::LastFailure;
use signet_agent::svids::view::SPREAD;
use signet_agent::svids::{Keeping, Shelves, Trust, Verified, View, Whose};
use signet_certs::{SigningKey, SpiffeId, TrustBundle, X509Svid};
use tokio::time::{Instant, timeout};

use crate::fake_ca::{Tower, bundle, domain, now};

fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

fn of(account: &str) -> Whose {
    Whose::Of(id(account))
}

fn trust(towers: &[&Tower], sequence: u64) -> Arc<Trust> {
    Arc::new(Trust::new(bundle(towers, sequence), Vec::new()))
}

fn verified(tower: &Tower, account: &str, trust: &Trust) -> Verified {
    let key = Arc::new(SigningKey::generate().unwrap());
    let chain = tower.leaf(id(account).as_str(), &key, Duration::from_secs(600), &[]);
    let svid = X509Svid::new(chain, key).unwrap();
    Verified::check(svid, Arc::clone(trust.own().unwrap()), now(), now()).unwrap()
}

fn workload(accounts: &[&str]) -> Workload {
    let identities = accounts.iter().map(|account| Entitlement {
        id: id(account),
        hint: Some(format!("hint of {account}")),
    });
    Workload {
        identities: identities.collect(),
        subject: Subject::Process {
            uid: 0,
            executable: None,
        },
    }
}

/// Keeps `a` and `b`, both served under one bundle.
fn stocked(tower: &Tower) -> (Keeping, Shelves, Arc<Trust>) {
    let (keeping, shelves) = Shelves::new(domain());
    let trust = trust(&[tower], 1);
    for account in ["a", "b"] {
        keeping.keep(&of(account));
    }
    keeping.put_trust(&trust, Vec::new());
    for account in ["a", "b"] {
        keeping.put(&of(account), Some(verified(tower, account, &trust)));
    }
    (keeping, shelves, trust)
}

fn rings(view: &mut View) -> bool {
    view.changed().now_or_never().is_some()
}

/// Whether it hears of other bundles while their change is spread.
async fn hears(view: &mut View) -> bool {
    timeout(SPREAD, view.changed()).await.is_ok()
}

fn serials(view: &View) -> Vec<Option<String>> {
    let seen = view.current();
    let serial = |v: &Verified| v.svid().chain().serial();
    seen.svids
        .iter()
        .map(|held| held.verified.as_ref().map(serial))
        .collect()
}

#[test]
fn a_workload_sees_its_own_identities_in_their_order_and_noothers() {
    let tower = Tower::new();
    let (_keeping, shelves, _) = stocked(&tower);
    let view = shelves.view(&workload(&["b"]));
    let seen = view.current();
    assert_eq!(seen.svids.len(), 1);
    assert_eq!(seen.svids[0].id, id("b"));
    assert_eq!(seen.svids[0].hint.as_deref(), Some("hint of b"));
    let both = shelves.view(&workload(&["b", "a"])).current();
    let ids: Vec<&str> = both.svids.iter().map(|held| held.id.as_str()).collect();
    assert_eq!(ids, [id("b").as_str(), id("a").as_str()]);
    assert!(both.svids.iter().all(|held| held.verified.is_some()));
}

#[test]
fn a_rotation_wakes_those_who_look_at_it_and_nobody_else() {
    let tower = Tower::new();
    let (keeping, shelves, trust) = stocked(&tower);
    let mut a = shelves.view(&workload(&["a"]));
    let mut b = shelves.view(&workload(&["b"]));
    let mut both = shelves.view(&workload(&["b", "a"]));
    let before = serials(&a);
    keeping.put(&of("a"), Some(verified(&tower, "a", &trust)));
    assert!(rings(&mut a) && rings(&mut both));
    assert!(!rings(&mut b), "not its identity");
    assert!(!rings(&mut a), "once");
    assert_ne!(serials(&a), before);
    keeping.tell(&of("a"), |status| status.renewals += 1);
    assert!(!rings(&mut a), "how the keeping goes is for operators");
}

#[test]
fn the_same_identity_has_the_same_leaf_and_the_same_encoded_secret_in_every_view() {
    let tower = Tower::new();
    let (_keeping, shelves, _) = stocked(&tower);
    let (one, other) = (
        shelves.view(&workload(&["a"])),
        shelves.view(&workload(&["b", "a"])),
    );
    assert_eq!(serials(&one)[0], serials(&other)[1]);
    let (one, other) = (one.current(), other.current());
    let (one, other) = (one.svids[0].verified.as_ref(), other.svids[1].verified.as_ref());
    assert!(std::ptr::eq(one.unwrap().secrets(), other.unwrap().secrets()));
}

#[tokio::test(start_paused = true)]
async fn other_bundles_and_what_is_served_beside_them_come_in_one_step() {
    let (old, new) = (Tower::new(), Tower::new());
    let (keeping, shelves, before) = stocked(&old);
    let mut view = shelves.view(&workload(&["a"]));
    let wide = trust(&[&old, &new], 2);
    let again = view.current().svids[0].verified.clone().unwrap();
    let again = again.check_again(Arc::clone(wide.own().unwrap()), now()).unwrap();
    assert_eq!(
        keeping.put_trust(&wide, vec![(of("a"), Some(again))]),
        Verdict::Newer
    );
    assert!(hears(&mut view).await);
    let seen = view.current();
    assert_eq!(seen.trust.own().unwrap().sequence(), 2);
    assert!(seen.svids[0].verified.is_some());
    // `b` was not verified under the new bundle, so it is not beside it.
    assert_eq!(serials(&shelves.view(&workload(&["b"]))), [None]);
    assert_eq!(keeping.put_trust(&before, Vec::new()), Verdict::Older);
    assert_eq!(view.current().trust.own().unwrap().sequence(), 2, "never back");
}

#[test]
fn an_svid_that_verified_under_another_bundle_is_never_served_whoever_puts_it_there() {
    let (old, new) = (Tower::new(), Tower::new());
    let (keeping, shelves, before) = stocked(&old);
    keeping.put_trust(&trust(&[&new], 2), Vec::new());
    let view = shelves.view(&workload(&["a"]));
    assert_eq!(serials(&view), [None]);
    keeping.put(&of("a"), Some(verified(&old, "a", &before)));
    assert_eq!(serials(&view), [None]);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_bundle_wakes_everybody_and_takes_no_svid_away() {
    let tower = Tower::new();
    let (keeping, shelves, trust) = stocked(&tower);
    let mut view = shelves.view(&workload(&["a"]));
    let root = tower.root.certificate().clone();
    let foreign = TrustBundle::new("partner.test".parse().unwrap(), vec![root], 1).unwrap();
    let own = Arc::clone(trust.own().unwrap());
    let federated = Arc::new(Trust::new(own, vec![Arc::new(foreign)]));
    let served: Vec<_> = shelves.all().into_iter().map(|s| (s.whose, s.verified)).collect();
    assert_eq!(keeping.put_trust(&federated, served), Verdict::Same);
    assert!(hears(&mut view).await);
    assert!(serials(&view)[0].is_some());
    assert_eq!(view.current().trust.foreign().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn other_bundles_alone_reach_many_streams_spread_over_a_second_and_a_new_svid_at_once() {
    let (old, new) = (Tower::new(), Tower::new());
    let (keeping, shelves, _) = stocked(&old);
    let heard: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let mut views: Vec<View> = (0..2_000).map(|_| shelves.view(&workload(&["a"]))).collect();
    let wide = trust(&[&old, &new], 2);
    let again = shelves.view(&workload(&["a"])).current().svids[0]
        .verified
        .clone();
    let again = again.map(|v| v.check_again(Arc::clone(wide.own().unwrap()), now()).unwrap());
    let start = Instant::now();
    keeping.put_trust(&wide, vec![(of("a"), again)]);
    let waits = views.iter_mut().map(|view| async {
        view.changed().await;
        assert_eq!(view.current().trust.own().unwrap().sequence(), 2);
        heard.lock().unwrap().push(start.elapsed());
    });
    futures::future::join_all(waits).await;
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    assert_eq!(heard.len(), 2_000);
    assert!(
        heard
            .iter()
            .all(|after| *after <= SPREAD + Duration::from_millis(1))
    );
    for tenth in 0..10 {
        let within = heard
            .iter()
            .filter(|after| after.as_millis() / 100 == tenth)
            .count();
        assert!((100..300).contains(&within), "{within} in tenth {tenth}");
    }
    assert!(!rings(&mut views[0]), "heard once");
    let (keeping_on, second) = (trust(&[&old, &new], 3), start.elapsed());
    keeping.put_trust(&keeping_on, Vec::new());
    keeping.put(&of("a"), Some(verified(&old, "a", &keeping_on)));
    assert!(rings(&mut views[0]) && start.elapsed() == second);
    assert_eq!(
        views[0].current().trust.own().unwrap().sequence(),
        3,
        "and all the news with it"
    );
    assert!(!hears(&mut views[0]).await, "nothing more of the bundles");
}

#[tokio::test(start_paused = true)]
async fn few_streams_and_those_that_wait_for_the_first_bundle_are_not_kept_waiting() {
    let tower = Tower::new();
    let (keeping, shelves) = Shelves::new(domain());
    let mut view = shelves.view(&workload(&["a"]));
    let others: Vec<View> = (0..2_000).map(|_| shelves.view(&workload(&["b"]))).collect();
    keeping.put_trust(&trust(&[&tower], 1), Vec::new());
    assert!(rings(&mut view), "the first");
    drop(others);
    keeping.put_trust(&trust(&[&tower], 2), Vec::new());
    assert!(timeout(Duration::from_millis(2), view.changed()).await.is_ok());
}

#[test]
fn one_who_looks_keeps_the_place_and_finds_an_svid_there_when_it_is_kept_again() {
    let tower = Tower::new();
    let (keeping, shelves, trust) = stocked(&tower);
    let mut view = shelves.view(&workload(&["a"]));
    keeping.clear(&of("a"));
    assert!(rings(&mut view));
    assert_eq!(serials(&view), [None]);
    assert!(!shelves.keeps(&id("a")) && shelves.keeps(&id("b")));
    assert_eq!(
        shelves.all().len(),
        1,
        "a place that is merely looked at is not kept"
    );
    keeping.keep(&of("a"));
    keeping.put(&of("a"), Some(verified(&tower, "a", &trust)));
    assert!(rings(&mut view));
    assert!(serials(&view)[0].is_some());
}

#[test]
fn the_key_of_an_identity_that_is_dropped_goes_with_it() {
    let tower = Tower::new();
    let (keeping, shelves, _) = stocked(&tower);
    let view = shelves.view(&workload(&["a"]));
    let key = Arc::downgrade(view.current().svids[0].verified.as_ref().unwrap().svid().key());
    assert!(key.upgrade().is_some());
    keeping.clear(&of("a"));
    assert!(key.upgrade().is_none(), "nobody holds it any more");
}

#[test]
fn who_waits_hears_the_cause_of_what_it_lacks() {
    let (keeping, shelves) = Shelves::new(domain());
    keeping.keep(&Whose::Own);
    keeping.keep(&of("a"));
    let own = shelves.view(&Workload::own());
    assert!(own.current().svids.is_empty(), "our own name is not known yet");
    let failure = |text: &str| LastFailure {
        at: now(),
        kind: signet_agent::ca_client::FailureKind::Refused,
        text: text.into(),
    };
    keeping.tell(&Whose::Own, |s| s.last_failure = Some(failure("no token")));
    keeping.tell(&of("a"), |s| s.last_failure = Some(failure("not yours")));
    assert!(own.current().cause().starts_with("no token (refused, "));
    let a = shelves.view(&workload(&["a"]));
    assert!(a.current().cause().starts_with("not yours (refused, "));
    keeping.name(&Whose::Own, &id("me"));
    assert_eq!(own.current().svids[0].id, id("me"));
    assert!(own.current().cause().starts_with("no token (refused, "));
}
