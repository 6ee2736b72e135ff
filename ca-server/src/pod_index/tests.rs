//! The index by example and against a naive model, under events in any order.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn pod<'a>(namespace: &'a str, account: &'a str, node: &'a str) -> LivePod<'a> {
    LivePod {
        namespace,
        account,
        node,
    }
}

fn account(namespace: &str, name: &str) -> ServiceAccountId {
    ServiceAccountId::new(namespace, name).unwrap()
}

#[test]
fn an_account_runs_on_a_node_until_its_last_pod_there_is_gone() {
    let mut index = PodIndex::default();
    let cart = account("shop", "cart");
    index.put("u1", pod("shop", "cart", "n1"));
    index.put("u2", pod("shop", "cart", "n1"));
    assert!(index.runs("n1", &cart));
    assert!(!index.runs("n2", &cart) && !index.runs("n1", &account("shop", "bank")));
    index.remove("u1");
    assert!(index.runs("n1", &cart));
    index.remove("u2");
    assert!(!index.runs("n1", &cart));
    assert!(index.is_empty() && index.nodes.len() == 0 && index.accounts.len() == 0);
}

#[test]
fn a_successor_of_the_same_name_is_another_pod() {
    let mut index = PodIndex::default();
    index.put("u1", pod("shop", "cart", "n1"));
    index.put("u2", pod("shop", "cart", "n2"));
    index.remove("u1");
    assert_eq!(index.pod("u1"), None);
    assert_eq!(index.pod("u2"), Some(pod("shop", "cart", "n2")));
}

#[test]
fn a_listing_takes_out_what_it_does_not_name_only_once_it_is_complete() {
    let mut index = PodIndex::default();
    index.put("u1", pod("shop", "cart", "n1"));
    index.put("u2", pod("shop", "bank", "n1"));
    index.begin_listing();
    index.put("u2", pod("shop", "bank", "n1"));
    // It broke off; the next one starts from the beginning.
    index.begin_listing();
    index.put("u1", pod("shop", "cart", "n1"));
    assert_eq!(index.len(), 2);
    index.end_listing();
    assert_eq!(index.len(), 1);
    assert!(!index.runs("n1", &account("shop", "bank")));
}

#[test]
fn uids_of_any_form_are_told_apart() {
    let forms = [
        "0d8e1c36-8f5e-4d5b-9f0e-3a2b1c4d5e6f",
        "0D8E1C36-8F5E-4D5B-9F0E-3A2B1C4D5E6F",
        "0d8e1c368f5e4d5b9f0e3a2b1c4d5e6f",
        "0d8e1c36-8f5e-4d5b-9f0e-3a2b1c4d5e6g",
        "0d8e1c3-68f5e-4d5b-9f0e-3a2b1c4d5e6f",
        "",
        "mirror-of-static-pod",
    ];
    let mut seen = std::collections::HashSet::new();
    assert!(forms.iter().all(|form| seen.insert(compact(form))));
    assert!(uuid(forms[0]).is_some() && forms[1..].iter().all(|form| uuid(form).is_none()));
}

#[test]
fn a_full_index_leaves_pods_out_and_says_so() {
    let mut index = PodIndex::default();
    for n in 0..MOST_PODS {
        index.pods.insert(
            u128::try_from(n).unwrap().to_be_bytes(),
            Known {
                place: Place { node: 0, account: 0 },
                round: 0,
            },
        );
    }
    assert!(!index.put("one more", pod("shop", "cart", "n1")));
    assert_eq!(index.pod("one more"), None);
    assert!(!index.runs("n1", &account("shop", "cart")));
}

#[test]
fn a_hundred_thousand_pods_take_less_than_a_hundred_bytes_each() {
    let mut index = PodIndex::default();
    for n in 0..100_000u32 {
        let (node, namespace) = (
            format!("node-{}.example.internal", n % 1_000),
            format!("team-{}", n % 500),
        );
        let uid = format!("{n:08x}-8f5e-4d5b-9f0e-3a2b1c4d5e6f");
        index.put(&uid, pod(&namespace, &format!("service-{}", n % 5_000), &node));
    }
    assert_eq!(index.len(), 100_000);
    let each = index.bytes() / index.len();
    assert!(each < 100, "{each} bytes per pod");
}

#[test]
fn a_view_answers_only_while_the_watch_is_believed_and_only_for_the_right_namespace() {
    let at = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
    let view = PodView::default();
    let cart = account("shop", "cart");
    view.write().index.put("u1", pod("shop", "cart", "n1"));
    assert!(!view.runs("n1", &cart, at(1_000)) && view.pod("shop", "u1", at(1_000)).is_none());
    view.write().liveness.listed(at(1_000));
    assert!(view.runs("n1", &cart, at(1_300)));
    let facts = view.pod("shop", "u1", at(1_300)).unwrap();
    assert_eq!(
        (facts.account.as_str(), facts.node.as_deref()),
        ("cart", Some("n1"))
    );
    assert!(view.pod("bank", "u1", at(1_300)).is_none());
    assert!(!view.runs("n1", &cart, at(1_301)) && view.pod("shop", "u1", at(1_301)).is_none());
}

/// What may happen to an index.
#[derive(Clone, Debug)]
enum Event {
    Put { uid: u8, account: u8, node: u8 },
    Remove { uid: u8 },
    Begin,
    End,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..12u8, 0..4u8, 0..3u8).prop_map(|(uid, account, node)| Event::Put { uid, account, node }),
        3 => (0..12u8).prop_map(|uid| Event::Remove { uid }),
        1 => Just(Event::Begin),
        1 => Just(Event::End),
    ];
    prop::collection::vec(event, 0..80)
}

/// Every pod with its account and node, and whether it was seen since the listing began.
#[derive(Default)]
struct Model(BTreeMap<u8, (u8, u8, bool)>);

impl Model {
    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Put { uid, account, node } => drop(self.0.insert(uid, (account, node, true))),
            Event::Remove { uid } => drop(self.0.remove(&uid)),
            Event::Begin => self.0.values_mut().for_each(|pod| pod.2 = false),
            Event::End => self.0.retain(|_, pod| pod.2),
        }
    }
}

fn apply(index: &mut PodIndex, event: &Event) {
    match *event {
        Event::Put { uid, account, node } => {
            let (account, node) = (format!("a{account}"), format!("n{node}"));
            assert!(index.put(&uid.to_string(), pod("ns", &account, &node)));
        }
        Event::Remove { uid } => index.remove(&uid.to_string()),
        Event::Begin => index.begin_listing(),
        Event::End => index.end_listing(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_index_says_what_the_naive_model_says_and_keeps_no_name_too_long(events in events()) {
        let (mut index, mut model) = (PodIndex::default(), Model::default());
        // Before the first listing everything counts as seen.
        for event in &events {
            apply(&mut index, event);
            model.apply(event);
            prop_assert_eq!(index.len(), model.0.len());
            for uid in 0..12u8 {
                let found = index.pod(&uid.to_string()).map(|pod| (pod.account.to_owned(), pod.node.to_owned()));
                let expected = model.0.get(&uid).map(|(a, n, _)| (format!("a{a}"), format!("n{n}")));
                prop_assert_eq!(found, expected);
            }
            for (a, n) in (0..4u8).flat_map(|a| (0..3u8).map(move |n| (a, n))) {
                let runs = model.0.values().any(|pod| (pod.0, pod.1) == (a, n));
                prop_assert_eq!(index.runs(&format!("n{n}"), &account("ns", &format!("a{a}"))), runs);
            }
            let names = |of: fn(&(u8, u8, bool)) -> u8| {
                model.0.values().map(of).collect::<std::collections::BTreeSet<_>>().len()
            };
            prop_assert_eq!(index.accounts.len(), names(|pod| pod.0));
            prop_assert_eq!(index.nodes.len(), names(|pod| pod.1));
        }
    }
}
