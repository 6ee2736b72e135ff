use std::collections::BTreeSet;

use super::*;
use crate::attest::cgroup::ContainerId;
use crate::attest::pods::facts::PodFacts;
use crate::attest::pods::index::{Event, Index};

const UID: &str = "2fc932ce-fdcc-454b-97bd-aadfdeb4c340";

fn container() -> Container {
    Container {
        pod: PodUid::parse(UID).unwrap(),
        id: ContainerId::parse(&"a".repeat(64)).unwrap(),
    }
}

fn pod() -> PodFacts {
    PodFacts {
        uid: container().pod,
        namespace: "shop".into(),
        name: "cart-0".into(),
        account: "cart".into(),
        labels: std::collections::BTreeMap::new(),
        containers: BTreeSet::from([container().id]),
        ports: Vec::new(),
        over: false,
    }
}

fn view(pods: Vec<PodFacts>, known_as_of: Option<Instant>) -> View {
    let mut index = Index::default();
    index.apply(Event::Listed(pods), &"cluster.local".parse().unwrap());
    View {
        index: Arc::new(index),
        known_as_of,
    }
}

fn said(view: &View, first: Instant, now: Instant) -> String {
    match judge(view, None, &container(), first, now) {
        Verdict::Is(pod) => format!("is {}", pod.id.as_ref().unwrap()),
        Verdict::Never(reason) => format!("never {reason}"),
        Verdict::NotYet(reason) => format!("not yet {reason}"),
        Verdict::Relist(reason) => format!("relist {reason}"),
    }
}

#[test]
fn a_pod_that_was_here_and_is_gone_is_denied_without_a_wait_until_it_is_forgotten() {
    let start = Instant::now();
    let mut view = view(vec![pod()], Some(start));
    let domain = "cluster.local".parse().unwrap();
    let index = Arc::make_mut(&mut view.index);
    index.apply(Event::Deleted(container().pod), &domain);
    assert_eq!(said(&view, start, start), "never pod_ended");
    let index = Arc::make_mut(&mut view.index);
    for n in 0..2_000 {
        let mut other = pod();
        other.uid = PodUid::parse(&format!("00000000-0000-4000-8000-{n:012x}")).unwrap();
        let uid = other.uid;
        index.apply(Event::Applied(other), &domain);
        index.apply(Event::Deleted(uid), &domain);
    }
    assert_eq!(said(&view, start, start), "not yet pod_unseen");
}

#[test]
fn the_three_answers_are_never_mixed() {
    let start = Instant::now();
    let (early, due, late) = (start + PATIENCE / 2, start + PATIENCE, start + 2 * PATIENCE);
    let without = |change: fn(&mut PodFacts)| {
        let mut pod = pod();
        change(&mut pod);
        vec![pod]
    };
    let unlisted = || without(|pod| pod.containers.clear());
    for (pods, known, now, answer) in [
        (vec![], None, late, "not yet pods_unsynced"),
        (
            vec![pod()],
            Some(start),
            start,
            "is spiffe://cluster.local/ns/shop/sa/cart",
        ),
        // As old as it is, what is known stays in use.
        (
            vec![pod()],
            Some(start),
            late,
            "is spiffe://cluster.local/ns/shop/sa/cart",
        ),
        (vec![], Some(early), early, "not yet pod_unseen"),
        (vec![], Some(late), late, "never pod_unseen"),
        (vec![], Some(early), late, "relist pod_unseen"),
        (vec![], Some(due), due, "never pod_unseen"),
        (unlisted(), Some(early), early, "not yet container_unseen"),
        (unlisted(), Some(late), late, "never container_unseen"),
        (unlisted(), Some(early), late, "relist container_unseen"),
        (
            without(|pod| pod.over = true),
            Some(start),
            start,
            "never pod_ended",
        ),
        (
            without(|pod| pod.account.clear()),
            Some(start),
            start,
            "never no_account",
        ),
    ] {
        assert_eq!(said(&view(pods, known), start, now), answer);
    }
}

#[test]
fn the_agents_own_pod_gets_nothing_even_before_the_first_list() {
    let now = Instant::now();
    let own = Some(container().pod);
    for view in [view(vec![pod()], Some(now)), View::empty()] {
        assert!(matches!(
            judge(&view, own, &container(), now, now),
            Verdict::Never("own_pod")
        ));
    }
}

#[test]
fn with_pods_left_out_absence_proves_nothing() {
    let start = Instant::now();
    let many = (0..=crate::attest::pods::index::MAX_PODS as u64).map(|n| PodFacts {
        uid: PodUid::parse(&format!("00000000-0000-0000-0000-{n:012x}")).unwrap(),
        name: format!("pod-{n}"),
        ..pod()
    });
    let view = view(many.collect(), Some(start + 2 * PATIENCE));
    assert!(view.index.is_full());
    assert_eq!(said(&view, start, start + 2 * PATIENCE), "relist pod_unseen");
}

#[test]
fn the_first_question_is_remembered_until_the_container_is_seen() {
    let start = Instant::now();
    let mut asked = Asked::default();
    assert_eq!(asked.first(&container(), start), start);
    assert_eq!(asked.first(&container(), start + PATIENCE), start);
    asked.seen(&container());
    assert_eq!(asked.first(&container(), start + PATIENCE), start + PATIENCE);
}

#[test]
fn questions_are_remembered_within_bounds() {
    let start = Instant::now();
    let mut asked = Asked::default();
    let other = |n: usize| Container {
        id: ContainerId::parse(&format!("{n:064x}")).unwrap(),
        ..container()
    };
    for n in 0..2 * MAX_ASKED {
        asked.first(&other(n), start);
    }
    assert_eq!(asked.0.len(), MAX_ASKED);
    // One for which there is no room is always new, and so is never told that it gets nothing.
    let later = start + PATIENCE;
    assert_eq!(asked.first(&other(MAX_ASKED), later), later);
    asked.first(&other(0), start + FORGET);
    assert_eq!(asked.first(&other(MAX_ASKED), start + FORGET), start + FORGET);
    assert_eq!(asked.0.len(), 2, "those that did not come back are forgotten");
}
