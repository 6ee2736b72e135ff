//! Many identities: a keeper with a CA of this process and a list of wishes that tests write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use signet_agent::attest::{Entitlement, Subject, Wanted, WantedBy, Workload};
use signet_agent::bundle_watch::BundleWatch;
use signet_agent::ca_client::CaClient;
use signet_agent::config::Ca;
use signet_agent::keeper::{Ask, AskError, Keeper, Parts};
use signet_agent::metrics::Metrics;
use signet_agent::roster::FIRSTS;
use signet_agent::svids::{Shelves, View, Whose};
use signet_certs::SpiffeId;
use signet_runtime::http::Readiness;
use signet_runtime::shutdown::Tasks;
use signet_runtime::{Clock, SystemClock};
use tokio::sync::{mpsc, oneshot, watch};

use crate::fake_ca::{FakeCa, Mood, domain};
use crate::harness::{SOON, eventually, token_of};

const HOUR: Duration = Duration::from_secs(3_600);

fn id(number: usize) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/w{number}")
        .parse()
        .unwrap()
}

/// A keeper that runs, and what it works with.
struct Running {
    tasks: Tasks,
    shelves: Shelves,
    wanted: watch::Sender<Arc<Wanted>>,
    asks: mpsc::Sender<Ask>,
    metrics: Metrics,
    _dir: tempfile::TempDir,
}

/// A clock that can be moved ahead.
#[derive(Default)]
struct Moved(std::sync::atomic::AtomicU64);

impl Moved {
    fn ahead(&self, by: Duration) {
        self.0
            .fetch_add(by.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for Moved {
    fn now(&self) -> signet_certs::UnixTime {
        let by = Duration::from_secs(self.0.load(std::sync::atomic::Ordering::SeqCst));
        signet_certs::lifetime::plus(SystemClock.now(), by)
    }
}

impl Running {
    fn start(ca: &FakeCa, clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, contents: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, contents).unwrap();
            path
        };
        let config = Ca {
            host: "127.0.0.1".into(),
            port: ca.address.port(),
            server_name: "localhost".try_into().unwrap(),
            root_file: file("root.pem", ca.root_pem()),
            token_file: file("token", token_of("signet-system/signet-agent")),
            deadline: Duration::from_secs(5),
        };
        let (metrics, tasks) = (Metrics::default(), Tasks::new());
        let (newest, trust) = watch::channel(None);
        let client = CaClient::new(
            Arc::new(config),
            domain(),
            trust.clone(),
            Arc::clone(&clock),
            metrics.clone(),
        )
        .unwrap();
        let (keeping, shelves) = Shelves::new(domain());
        let (wanted, wishes) = watch::channel(Arc::new(Wanted::default()));
        let (asks, asked) = mpsc::channel(8);
        let watch = BundleWatch {
            ca: client.clone(),
            domain: domain(),
            newest,
            metrics: metrics.clone(),
            readiness: None,
        };
        let keeper = Keeper::new(Parts {
            ca: client,
            ttl: HOUR,
            trust,
            wanted: Some(wishes),
            shelves: keeping,
            asks: asked,
            clock,
            metrics: metrics.clone(),
            readiness: Readiness::waiting_for(&[]),
        });
        tasks.spawn_until_shutdown(watch.run());
        tasks.spawn_until_shutdown(keeper.run());
        Self {
            tasks,
            shelves,
            wanted,
            asks,
            metrics,
            _dir: dir,
        }
    }

    fn want(&self, numbers: impl IntoIterator<Item = usize>, synced: bool) {
        let ids = numbers.into_iter().map(|n| (id(n), WantedBy::default()));
        self.wanted.send_replace(Arc::new(Wanted {
            ids: ids.collect(),
            synced,
        }));
    }

    fn served(&self) -> BTreeSet<SpiffeId> {
        let all = self.shelves.all().into_iter();
        all.filter(|shown| shown.verified.is_some())
            .filter_map(|shown| shown.id)
            .collect()
    }

    fn serial(&self, number: usize) -> Option<String> {
        let all = self.shelves.all().into_iter();
        let shown = all
            .filter(|shown| shown.id == Some(id(number)))
            .find_map(|s| s.verified);
        shown.map(|verified| verified.svid().chain().serial())
    }

    fn view(&self, number: usize) -> View {
        self.shelves.view(&Workload {
            identities: vec![Entitlement {
                id: id(number),
                hint: None,
            }],
            subject: Subject::Process {
                uid: 0,
                executable: None,
            },
        })
    }

    async fn rotate(&self, id: Option<SpiffeId>) -> Result<Whose, AskError> {
        let (reply, outcome) = oneshot::channel();
        self.asks.send(Ask { id, reply }).await.unwrap();
        tokio::time::timeout(SOON, outcome).await.unwrap().unwrap()
    }

    async fn until_served(&self, numbers: impl IntoIterator<Item = usize>) {
        let all: BTreeSet<SpiffeId> = numbers.into_iter().map(id).collect();
        eventually("all SVIDs", || async { (self.served() == all).then_some(()) }).await;
    }
}

#[tokio::test]
async fn every_identity_wanted_gets_its_own_svid_with_a_bounded_number_of_requests_at_once() {
    let ca = FakeCa::start(Mood::impersonate(HOUR)).await;
    let keeper = Running::start(&ca, Arc::new(SystemClock));
    keeper.want(0..60, true);
    keeper.until_served(0..60).await;
    assert_eq!(ca.requests(), 60);
    let most = ca.most_at_once();
    assert!((2..=FIRSTS).contains(&most), "{most} at once");
    assert_eq!(keeper.metrics.svid_issued.get(), 60);
    // One token is behind all of them, and each request named its workload.
    let asked: BTreeSet<String> = ca
        .state
        .impersonated
        .lock()
        .unwrap()
        .iter()
        .flatten()
        .cloned()
        .collect();
    assert_eq!(asked, (0..60).map(|n| id(n).to_string()).collect());
    assert!(keeper.tasks.drain(SOON).await);
}

#[tokio::test]
async fn an_answer_of_another_identity_than_was_asked_for_is_refused() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let keeper = Running::start(&ca, Arc::new(SystemClock));
    keeper.want([1], true);
    let cause = eventually("the refusal", || async {
        let shown = keeper.shelves.all().pop()?;
        shown
            .status
            .last_failure
            .as_ref()
            .map(|failure| failure.text.clone())
    })
    .await;
    assert_eq!(
        cause,
        "the CA answered with spiffe://cluster.local/ns/shop/sa/cart, but the SVID asked for is of \
         spiffe://cluster.local/ns/shop/sa/w1"
    );
    assert!(keeper.served().is_empty());
    assert!(keeper.tasks.drain(SOON).await);
}

#[tokio::test]
async fn an_identity_goes_some_time_after_its_last_workload_and_comes_back_as_another_svid() {
    let ca = FakeCa::start(Mood::impersonate(HOUR)).await;
    let clock = Arc::new(Moved::default());
    let keeper = Running::start(&ca, Arc::clone(&clock) as _);
    keeper.want([1, 2], true);
    keeper.until_served([1, 2]).await;
    let first = keeper.serial(1);
    let mut view = keeper.view(1);
    keeper.want([2], true);
    keeper.want([1, 2], true);
    let due = keeper.metrics.svid_next_renewal.get();
    clock.ahead(Duration::from_secs(120));
    eventually("a look at the clock", || async {
        (keeper.metrics.svid_next_renewal.get() < due - 100).then_some(())
    })
    .await;
    assert_eq!(keeper.serial(1), first, "wanted again in time");
    keeper.want([2], true);
    eventually("it to linger", || async {
        let state = signet_agent::metrics::IdentityState::Lingering;
        (keeper.metrics.identities(state).get() == 1).then_some(())
    })
    .await;
    assert_eq!(keeper.serial(1), first, "nobody wants it, and it is kept a while");
    clock.ahead(Duration::from_secs(61));
    keeper.until_served([2]).await;
    assert_eq!(keeper.metrics.svids_dropped.get(), 1);
    view.changed().await;
    keeper.want([1, 2], true);
    keeper.until_served([1, 2]).await;
    assert_ne!(keeper.serial(1), first);
    assert!(
        view.current().svids[0].verified.is_some(),
        "one who looked all the time sees it"
    );
    assert!(keeper.tasks.drain(SOON).await);
}

#[tokio::test]
async fn an_incomplete_list_of_wishes_takes_nothing_away() {
    let ca = FakeCa::start(Mood::impersonate(HOUR)).await;
    let clock = Arc::new(Moved::default());
    let keeper = Running::start(&ca, Arc::clone(&clock) as _);
    keeper.want([1], true);
    keeper.until_served([1]).await;
    keeper.want([2], false);
    keeper.until_served([1, 2]).await;
    clock.ahead(Duration::from_secs(600));
    keeper.want([2, 3], false);
    keeper.until_served([1, 2, 3]).await;
    assert!(keeper.tasks.drain(SOON).await);
}

#[tokio::test]
async fn one_refused_identity_does_not_keep_others_from_theirs() {
    let ca = FakeCa::start(Mood::RefuseOne {
        id: id(1),
        ttl: HOUR,
        status: tonic::Status::unauthenticated("request impersonation authentication failure"),
    })
    .await;
    let keeper = Running::start(&ca, Arc::new(SystemClock));
    keeper.want(0..10, true);
    keeper.until_served((0..10).filter(|n| *n != 1)).await;
    let cause = keeper.view(1).current().cause();
    assert!(
        cause.contains("request impersonation authentication failure (refused, "),
        "{cause}"
    );
    assert!(!cause.contains("w2"), "nothing of others is told");
    ca.set(Mood::impersonate(HOUR));
    keeper.until_served(0..10).await;
    assert!(keeper.tasks.drain(SOON).await);
}

#[tokio::test]
async fn a_renewal_is_asked_for_by_name_and_renews_that_one_only() {
    let ca = FakeCa::start(Mood::impersonate(Duration::from_secs(20))).await;
    let keeper = Running::start(&ca, Arc::new(SystemClock));
    keeper.want([1, 2], true);
    keeper.until_served([1, 2]).await;
    assert_eq!(keeper.rotate(None).await, Err(AskError::Which(2)));
    assert_eq!(keeper.rotate(Some(id(3))).await, Err(AskError::Unknown(id(3))));
    let before = (keeper.serial(1), keeper.serial(2));
    let mut other = keeper.view(2);
    assert_eq!(keeper.rotate(Some(id(1))).await, Ok(Whose::Of(id(1))));
    assert_ne!(keeper.serial(1), before.0);
    assert_eq!(keeper.serial(2), before.1);
    let woken = tokio::time::timeout(Duration::from_millis(50), other.changed()).await;
    assert!(woken.is_err(), "nobody else was woken");
    assert!(keeper.tasks.drain(SOON).await);
}

#[tokio::test]
async fn a_new_root_reaches_every_identity_and_none_is_without_an_svid_in_between() {
    let ca = FakeCa::start(Mood::impersonate(HOUR)).await;
    let keeper = Running::start(&ca, Arc::new(SystemClock));
    keeper.want(0..20, true);
    keeper.until_served(0..20).await;
    let (old, new) = (ca.tower(), crate::fake_ca::Tower::new());
    ca.publish(crate::fake_ca::bundle(&[&old, &new], 2));
    let views: Vec<View> = (0..20).map(|n| keeper.view(n)).collect();
    eventually("the new root", || async {
        for view in &views {
            let seen = view.current();
            assert!(seen.svids[0].verified.is_some(), "an SVID went away");
        }
        let trust = keeper.shelves.trust();
        (trust.own().map(|own| own.sequence()) == Some(2)).then_some(())
    })
    .await;
    assert_eq!(keeper.metrics.svid_withdrawn.get(), 0);
    assert_eq!(ca.requests(), 20, "nobody had to ask again");
    assert!(keeper.tasks.drain(SOON).await);
}
