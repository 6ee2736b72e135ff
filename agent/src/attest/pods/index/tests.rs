use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::attest::cgroup::ContainerId;

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn uid(n: u8) -> PodUid {
    PodUid::parse(&format!("00000000-0000-4000-8000-{n:012x}")).unwrap()
}

fn pod(n: u8, name: u8, account: u8) -> PodFacts {
    PodFacts {
        uid: uid(n),
        namespace: "shop".into(),
        name: format!("pod-{name}"),
        account: if account == 0 {
            String::new()
        } else {
            format!("account-{account}")
        },
        labels: std::collections::BTreeMap::new(),
        containers: BTreeSet::new(),
        ports: Vec::new(),
        over: false,
    }
}

#[test]
fn a_pod_replaced_under_the_same_name_is_another_pod() {
    let mut index = Index::default();
    index.apply(Event::Applied(pod(1, 7, 1)), &domain());
    let former = Arc::clone(index.get(uid(1)).unwrap());
    let change = index.apply(Event::Applied(pod(2, 7, 1)), &domain());
    assert!(change.any && change.wanted && former.ended.is_cancelled());
    assert!(index.get(uid(1)).is_none());
    assert!(!index.get(uid(2)).unwrap().ended.is_cancelled());
    // The former's end, told late, takes nothing from the successor.
    assert_eq!(index.apply(Event::Deleted(uid(1)), &domain()), Change::default());
    assert!(!index.get(uid(2)).unwrap().ended.is_cancelled());
}

#[test]
fn a_list_after_a_gap_ends_what_is_not_in_it_and_keeps_the_rest() {
    let mut index = Index::default();
    index.apply(Event::Listed(vec![pod(1, 1, 1), pod(2, 2, 2)]), &domain());
    let (kept, gone) = (
        index.get(uid(1)).unwrap().clone(),
        index.get(uid(2)).unwrap().clone(),
    );
    index.apply(Event::Listed(vec![pod(1, 1, 1), pod(3, 2, 2)]), &domain());
    assert!(!kept.ended.is_cancelled() && gone.ended.is_cancelled());
    assert!(index.get(uid(3)).is_some());
}

#[test]
fn news_that_is_none_changes_nothing() {
    let mut index = Index::default();
    index.apply(Event::Applied(pod(1, 1, 1)), &domain());
    assert_eq!(
        index.apply(Event::Applied(pod(1, 1, 1)), &domain()),
        Change::default()
    );
    let listed = PodFacts {
        containers: BTreeSet::from([ContainerId::parse(&"a".repeat(64)).unwrap()]),
        ..pod(1, 1, 1)
    };
    let change = index.apply(Event::Applied(listed), &domain());
    assert!(
        change.any && !change.wanted,
        "a new container, the same identities"
    );
}

#[test]
fn a_pod_that_is_over_wants_nothing_and_is_still_known() {
    let mut index = Index::default();
    index.apply(Event::Applied(pod(1, 1, 1)), &domain());
    let token = index.get(uid(1)).unwrap().ended.clone();
    let change = index.apply(
        Event::Applied(PodFacts {
            over: true,
            ..pod(1, 1, 1)
        }),
        &domain(),
    );
    assert!(change.wanted && token.is_cancelled());
    assert!(index.get(uid(1)).unwrap().facts.over && index.wanted(None).ids.is_empty());
    assert!(!index.apply(Event::Deleted(uid(1)), &domain()).wanted);
}

#[test]
fn the_agents_own_pod_wants_nothing() {
    let mut index = Index::default();
    index.apply(
        Event::Listed(vec![pod(1, 1, 1), pod(2, 2, 1), pod(3, 3, 2)]),
        &domain(),
    );
    let wanted = index.wanted(Some(uid(3)));
    let pods: Vec<&str> = wanted
        .ids
        .values()
        .flat_map(|by| &by.pods)
        .map(|pod| pod.name.as_str())
        .collect();
    assert_eq!((wanted.ids.len(), pods), (1, vec!["pod-1", "pod-2"]));
}

/// The same as a plain map, made anew from every event.
#[derive(Default)]
struct Naive(BTreeMap<PodUid, PodFacts>);

impl Naive {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Applied(pod) => {
                self.0
                    .retain(|_, other| (&other.namespace, &other.name) != (&pod.namespace, &pod.name));
                self.0.insert(pod.uid, pod.clone());
            }
            Event::Deleted(uid) => {
                self.0.remove(uid);
            }
            Event::Listed(list) => self.0 = list.iter().map(|pod| (pod.uid, pod.clone())).collect(),
        }
    }

    /// Whose word must not have been given, and what they are.
    fn entitled(&self) -> BTreeMap<PodUid, String> {
        let entitled = self.0.values().filter(|pod| !pod.over);
        entitled
            .map(|pod| (pod.uid, format!("{} {}", pod.name, pod.account)))
            .collect()
    }

    fn wanted(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in self.0.values().filter(|pod| !pod.over && !pod.account.is_empty()) {
            let id = format!("spiffe://cluster.local/ns/{}/sa/{}", pod.namespace, pod.account);
            wanted.entry(id).or_default().insert(pod.uid.to_string());
        }
        wanted
    }
}

fn any_pod() -> impl Strategy<Value = PodFacts> {
    (0u8..6, 0u8..4, 0u8..3, any::<bool>(), 0u8..2).prop_map(|(n, name, account, over, containers)| {
        PodFacts {
            over,
            containers: (0..containers)
                .filter_map(|n| ContainerId::parse(&format!("{n:064x}")))
                .collect(),
            ..pod(n, name, account)
        }
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any_pod().prop_map(Event::Applied),
        3 => (0u8..6).prop_map(|n| Event::Deleted(uid(n))),
        // A list names every uid and every name once.
        1 => proptest::collection::vec(any_pod(), 0..6).prop_map(|list| {
            let (mut uids, mut names) = (BTreeSet::new(), BTreeSet::new());
            Event::Listed(list.into_iter().filter(|pod| uids.insert(pod.uid) && names.insert(pod.name.clone())).collect())
        }),
    ]
}

proptest! {
    #[test]
    fn the_index_is_a_naive_model_under_any_events(events in proptest::collection::vec(any_event(), 0..60)) {
        let (mut index, mut naive) = (Index::default(), Naive::default());
        let mut wanted = index.wanted(None);
        let mut held: BTreeMap<PodUid, (String, CancellationToken)> = BTreeMap::new();
        for event in events {
            naive.apply(&event);
            let change = index.apply(event, &domain());
            // The same pods.
            prop_assert_eq!(index.len(), naive.0.len());
            for (uid, pod) in &naive.0 {
                prop_assert_eq!(&index.get(*uid).unwrap().facts, pod);
            }
            // The same identities in use; a change of them is always told.
            let now = index.wanted(None);
            let shown: BTreeMap<String, BTreeSet<String>> = now.ids.iter()
                .map(|(id, by)| (id.to_string(), by.pods.iter().map(|pod| pod.uid.clone()).collect()))
                .collect();
            prop_assert_eq!(shown, naive.wanted());
            prop_assert!(change.wanted || now == wanted);
            wanted = now;
            // Who was entitled and is no more hears of it; nobody else does.
            let entitled = naive.entitled();
            for (uid, (who, token)) in &held {
                prop_assert_eq!(token.is_cancelled(), entitled.get(uid) != Some(who));
            }
            held = entitled.into_iter()
                .map(|(uid, who)| (uid, (who, index.get(uid).unwrap().ended.clone())))
                .collect();
            prop_assert!(held.values().all(|(_, token)| !token.is_cancelled()));
        }
    }
}
