use std::time::Duration;

use serde_json::json;
use signet_policy::model::{Kind, ObjectKey};
use signet_runtime::UnixTime;

use super::*;
use crate::policy::issuers::KeyFetching;
use crate::policy::object::{Told, told};
use crate::policy::{KINDS, Settings, Source};

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_000))
    }
}

const LISTED: State = State::Listed { version: Some("v1") };

fn keeper() -> (Keeper, Policies, Parts) {
    let parts = Parts {
        clock: Arc::new(Fixed),
        metrics: Metrics::default(),
        readiness: Readiness::waiting_for(&[(READY, "the policies are not known yet")]),
    };
    let mesh = Mesh {
        domain: "td".parse().unwrap(),
        settings: Settings {
            source: Source::Kubernetes { kubeconfig: None },
            root_namespace: "root".into(),
            aliases: Vec::new(),
            keys: KeyFetching::default(),
        },
    };
    let (keeper, _, policies) = Keeper::new(mesh, parts.clone());
    (keeper, policies, parts)
}

fn listed(kind: Kind, all: Vec<Told>) -> Heard {
    Heard::Well(Part::Kind(kind), LISTED, Event::Listed(kind, all))
}

fn no_services() -> Heard {
    let none = services::Event::Listed(Vec::new());
    Heard::Well(Part::Services, LISTED, Event::Services(none))
}

fn policy(name: &str, action: &str) -> Told {
    let object = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"action": action, "rules": [{}]},
    });
    told(
        Kind::AuthorizationPolicy,
        "v1",
        serde_json::from_value(object).unwrap(),
    )
    .unwrap()
}

fn count(parts: &Parts, state: &'static str) -> i64 {
    parts.metrics.policies.get_or_create(&InState { state }).get()
}

#[test]
fn nothing_is_published_before_every_kind_was_listed_and_what_is_missing_is_named() {
    let (mut keeper, policies, parts) = keeper();
    keeper.take([listed(Kind::AuthorizationPolicy, vec![policy("p", "DENY")])]);
    let failed = Part::Kind(Kind::PeerAuthentication);
    keeper.take([Heard::Failed(failed, "list", "forbidden".into())]);
    assert!(policies.view.borrow().is_none());
    assert_eq!(
        parts.readiness.missing(),
        [
            "policies: PeerAuthentication: forbidden; RequestAuthentication: not listed yet; Service: not listed yet"
        ]
    );
    keeper.take([listed(Kind::PeerAuthentication, Vec::new())]);
    let kind = Kind::RequestAuthentication;
    let none = Event::Listed(kind, Vec::new());
    keeper.take([Heard::Well(Part::Kind(kind), State::Absent, none)]);
    assert!(policies.view.borrow().is_none(), "the services are not known");
    keeper.take([no_services()]);
    let view = policies.view.borrow().clone().unwrap();
    assert_eq!(view.spaces.items().count(), 1);
    assert!(parts.readiness.missing().is_empty());
    assert_eq!(count(&parts, "sound"), 1);
}

#[test]
fn a_failure_later_changes_nothing_that_is_published() {
    let (mut keeper, mut policies, parts) = keeper();
    keeper.take(KINDS.map(|kind| listed(kind, Vec::new())));
    keeper.take([no_services()]);
    policies.view.mark_unchanged();
    for kind in KINDS {
        keeper.take([Heard::Failed(Part::Kind(kind), "list", "gone".into())]);
    }
    assert!(!policies.view.has_changed().unwrap() && policies.view.borrow().is_some());
    assert!(parts.readiness.missing().is_empty());
    assert!(policies.sources.borrow().synced());
}

#[test]
fn a_source_that_is_well_again_without_news_is_said_to_be_so() {
    let (mut keeper, policies, _) = keeper();
    let part = Part::Kind(Kind::AuthorizationPolicy);
    keeper.take([Heard::Failed(part, "list", "gone".into())]);
    assert!(
        policies
            .sources
            .borrow()
            .missing()
            .starts_with("AuthorizationPolicy: gone")
    );
    keeper.take([Heard::Recovered(part)]);
    assert!(
        policies
            .sources
            .borrow()
            .missing()
            .starts_with("AuthorizationPolicy: not listed yet")
    );
}

#[test]
fn changes_that_come_together_make_one_view_and_changes_of_nothing_none() {
    let (mut keeper, mut policies, parts) = keeper();
    keeper.take(KINDS.map(|kind| listed(kind, Vec::new())));
    keeper.take([no_services()]);
    policies.view.mark_unchanged();
    let part = Part::Kind(Kind::AuthorizationPolicy);
    let applied = |name: &str, action: &str| Heard::Well(part, LISTED, Event::Applied(policy(name, action)));
    keeper.take([
        applied("a", "DENY"),
        applied("b", "NO"),
        applied("c", "DENY"),
        applied("c", "NO"),
    ]);
    assert!(policies.view.has_changed().unwrap());
    let states = ["sound", "denies_all", "last_good"].map(|state| count(&parts, state));
    assert_eq!(states, [1, 1, 1]);
    policies.view.mark_unchanged();
    keeper.take([applied("a", "DENY"), applied("b", "NO")]);
    assert!(!policies.view.has_changed().unwrap());
    let key = |name: &str| ObjectKey {
        kind: Kind::AuthorizationPolicy,
        namespace: "shop".into(),
        name: name.into(),
    };
    keeper.take(["b", "c"].map(|name| Heard::Well(part, LISTED, Event::Deleted(key(name)))));
    assert_eq!(count(&parts, "denies_all") + count(&parts, "last_good"), 0);
    assert!(keeper.told.is_empty());
}

#[tokio::test]
async fn room_that_is_free_again_rings_for_a_list() {
    let (mut keeper, _, parts) = keeper();
    let part = Part::Kind(Kind::AuthorizationPolicy);
    let bells = KINDS.map(|kind| keeper.bell(kind));
    let many = (0..=BOUNDS.of_one).map(|n| policy(&format!("p{n}"), "DENY"));
    keeper.take([listed(Kind::AuthorizationPolicy, many.collect())]);
    let no_room = Outcome { outcome: "no_room" };
    assert_eq!(parts.metrics.policy_events.get_or_create(&no_room).get(), 1);
    let rung = |bell: &Arc<Notify>| {
        let bell = Arc::clone(bell);
        async move { futures::FutureExt::now_or_never(bell.notified()).is_some() }
    };
    assert!(!rung(&bells[0]).await);
    let key = ObjectKey {
        kind: Kind::AuthorizationPolicy,
        namespace: "shop".into(),
        name: "p0".into(),
    };
    keeper.take([Heard::Well(part, LISTED, Event::Deleted(key))]);
    assert_eq!(KINDS[0], Kind::AuthorizationPolicy);
    assert!(rung(&bells[0]).await && !rung(&bells[1]).await);
}
