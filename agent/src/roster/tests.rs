//! Who is kept and who asks when, as rows and under arbitrary interleavings.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use signet_certs::lifetime::until;

use super::*;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

const EVEN: Chance = Chance {
    jitter: Jitter::NONE,
    backoff: 1.0,
};

fn set(keys: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    keys.into_iter().collect()
}

fn requests(roster: &mut Roster<u32>) -> Vec<u32> {
    let deeds = roster.take_deeds().into_iter();
    deeds
        .filter_map(|deed| match deed {
            Deed::Request(key) => Some(key),
            _ => None,
        })
        .collect()
}

fn issue(roster: &mut Roster<u32>, key: u32, now: u64, life: u64) {
    let facts = Facts {
        received: at(now),
        usable_until: at(now + life),
    };
    roster.tell(&key, Event::Issued(facts), at(now), EVEN);
}

fn fail(roster: &mut Roster<u32>, key: u32, now: u64) {
    roster.tell(&key, Event::Failed { retry_after: None }, at(now), EVEN);
}

/// Keeps `keys`, each with an SVID of `life` seconds received at 1000.
fn holding(keys: impl IntoIterator<Item = u32>, life: impl Fn(u32) -> u64) -> Roster<u32> {
    let keys = set(keys);
    let mut roster = Roster::default();
    roster.want(&keys, true, at(1000));
    loop {
        let asked = requests(&mut roster);
        if asked.is_empty() {
            return roster;
        }
        for key in asked {
            issue(&mut roster, key, 1000, life(key));
        }
    }
}

#[test]
fn no_more_ask_at_once_than_may_and_the_next_starts_when_one_is_answered() {
    let mut roster = Roster::default();
    roster.want(&set(0..20), true, at(1000));
    let asked = requests(&mut roster);
    assert_eq!(asked, (0..6).collect::<Vec<_>>());
    assert_eq!(roster.counts().queued, 14);
    issue(&mut roster, 3, 1000, 100);
    assert_eq!(requests(&mut roster), [6]);
}

#[test]
fn places_are_left_for_renewals_when_those_without_an_svid_take_long() {
    let mut roster = holding(100..110, |_| 100);
    roster.want(&set((0..20).chain(100..110)), true, at(1001));
    assert_eq!(requests(&mut roster).len(), FIRSTS);
    roster.wake(at(1050));
    let renewals = requests(&mut roster);
    assert_eq!(renewals.len(), PARALLEL - FIRSTS);
    assert!(renewals.iter().all(|key| *key >= 100), "{renewals:?}");
}

#[test]
fn those_without_an_svid_come_first_then_who_ends_soonest() {
    let mut roster = holding(0..12, |key| 1_000 - u64::from(key) * 10);
    // All are due; the first eight take the places.
    roster.wake(at(1600));
    let first = requests(&mut roster);
    assert_eq!(
        first,
        (4..12).rev().collect::<Vec<_>>(),
        "the shortest lives first"
    );
    roster.want(&set(0..13), true, at(1600));
    issue(&mut roster, 11, 1600, 1_000);
    assert_eq!(requests(&mut roster), [12], "it has none");
    issue(&mut roster, 10, 1600, 1_000);
    assert_eq!(requests(&mut roster), [3], "it ends next");
}

#[test]
fn one_that_is_refused_again_and_again_stands_behind_one_that_is_new() {
    let mut roster = Roster::default();
    roster.want(&set(0..10), true, at(1000));
    let asked = requests(&mut roster);
    for key in asked {
        fail(&mut roster, key, 1000);
    }
    roster.wake(at(1002));
    let next = requests(&mut roster);
    assert!(next.starts_with(&[6, 7, 8, 9]), "{next:?}");
}

#[test]
fn an_identity_lingers_after_its_last_workload_left_and_is_found_by_the_next() {
    let mut roster = holding([1], |_| 1_000);
    roster.want(&set([]), true, at(1010));
    roster.wake(at(1069));
    assert!(roster.serves(&1) && roster.lingers(&1));
    roster.want(&set([1]), true, at(1069));
    assert!(!roster.lingers(&1));
    roster.wake(at(1200));
    assert!(roster.serves(&1), "what it had is still there");
    assert!(requests(&mut roster).is_empty(), "and nobody had to ask");
    roster.want(&set([]), true, at(1300));
    assert_eq!(roster.wake_at(), Some(at(1360)));
    roster.wake(at(1360));
    assert_eq!(roster.take_deeds(), [Deed::Drop(1)]);
    assert_eq!(roster.keys().count(), 0);
}

#[test]
fn nobody_goes_for_not_being_on_a_list_that_is_not_whole() {
    let mut roster = holding([1, 2], |_| 1_000);
    roster.want(&set([2, 3]), false, at(1010));
    roster.wake(at(1100));
    assert!(roster.serves(&1) && !roster.lingers(&1));
    assert_eq!(roster.keys().count(), 3);
}

#[test]
fn one_nobody_wants_does_not_ask() {
    let mut roster = holding([1], |_| 100);
    roster.want(&set([]), true, at(1040));
    roster.wake(at(1060));
    assert!(requests(&mut roster).is_empty());
    roster.want(&set([1]), true, at(1061));
    assert_eq!(requests(&mut roster), [1]);
}

#[test]
fn more_than_are_kept_are_refused_and_counted() {
    let mut roster = Roster::default();
    let most = u32::try_from(MAX_KEPT).unwrap();
    assert_eq!(roster.want(&set(0..most + 7), true, at(1000)), 7);
    assert_eq!(roster.keys().count(), MAX_KEPT);
}

#[test]
fn a_newcomer_gets_the_place_of_who_lingered_longest_and_one_in_use_keeps_its_own() {
    let most = u32::try_from(MAX_KEPT).unwrap();
    let mut roster = Roster::default();
    roster.want(&set(0..most), true, at(1000));
    roster.want(&set((0..most).filter(|key| *key != 7)), true, at(1010));
    roster.want(
        &set((0..most).filter(|key| ![3, 7].contains(key))),
        true,
        at(1020),
    );
    roster.take_deeds();
    let wanted = set((0..=most).filter(|key| ![3, 7].contains(key)));
    assert_eq!(roster.want(&wanted, true, at(1030)), 0);
    assert_eq!(roster.take_deeds()[..2], [Deed::Drop(7), Deed::Keep(most)]);
    assert!(roster.lingers(&3));
    let wanted = set((0..most + 3).filter(|key| ![3, 7].contains(key)));
    assert_eq!(
        roster.want(&wanted, true, at(1030)),
        1,
        "nobody in use goes for it"
    );
    assert_eq!(roster.keys().count(), MAX_KEPT);
}

#[test]
fn an_answer_for_one_that_went_in_the_meantime_changes_nothing() {
    let mut roster = Roster::default();
    roster.want(&set([1]), true, at(1000));
    assert_eq!(requests(&mut roster), [1]);
    roster.want(&set([]), true, at(1000));
    roster.wake(at(1060));
    issue(&mut roster, 1, 1060, 100);
    assert_eq!(roster.take_deeds(), [Deed::Drop(1)]);
    assert_eq!(roster.counts(), Counts::default());
}

#[derive(Clone, Debug)]
enum Happening {
    Want { keys: BTreeSet<u32>, whole: bool },
    Answer { which: usize, life: Option<u64> },
    Bundle { until: Option<u64> },
    Ask { key: u32 },
    Woke,
}

fn happening() -> impl Strategy<Value = (Happening, i64)> {
    let keys = proptest::collection::btree_set(0u32..14, 0..14);
    let event = prop_oneof![
        3 => (keys, proptest::bool::weighted(0.8)).prop_map(|(keys, whole)| Happening::Want { keys, whole }),
        6 => (0usize..8, proptest::option::weighted(0.8, 0u64..5_000))
            .prop_map(|(which, life)| Happening::Answer { which, life }),
        1 => proptest::option::of(0u64..5_000).prop_map(|until| Happening::Bundle { until }),
        1 => (0u32..14).prop_map(|key| Happening::Ask { key }),
        3 => Just(Happening::Woke),
    ];
    (
        event,
        prop_oneof![6 => 0i64..40, 2 => 0i64..2_000, 1 => -500i64..0],
    )
}

/// What the driver and the world know, kept without the roster's help.
#[derive(Default)]
struct Model {
    now: u64,
    wanted: BTreeMap<u32, bool>,
    unwanted_for: BTreeMap<u32, u64>,
    in_flight: Vec<u32>,
    held: BTreeMap<u32, (u64, Facts, bool)>,
    issued: u64,
    published: BTreeMap<u32, u64>,
}

impl Model {
    fn valid(&self, key: u32) -> bool {
        self.held
            .get(&key)
            .is_some_and(|(_, facts, verifies)| *verifies && at(self.now) <= facts.usable_until)
    }

    fn carry_out(&mut self, roster: &mut Roster<u32>) -> Result<(), TestCaseError> {
        for deed in roster.take_deeds() {
            match deed {
                Deed::Keep(key) => {
                    prop_assert!(!self.held.contains_key(&key), "kept twice");
                }
                Deed::Request(key) => {
                    prop_assert!(!self.in_flight.contains(&key), "two requests for one identity");
                    self.in_flight.push(key);
                    prop_assert!(self.in_flight.len() <= PARALLEL, "too many at once");
                }
                Deed::Publish(key) => {
                    if roster.serves(&key) {
                        let (number, ..) = self.held.get(&key).copied().unwrap();
                        let before = self.published.insert(key, number).unwrap_or_default();
                        prop_assert!(number >= before, "served something older");
                    }
                }
                Deed::TooSoon(_, when) => prop_assert!(when > at(self.now)),
                Deed::Drop(key) => {
                    let alone = self.unwanted_for.get(&key).copied();
                    prop_assert!(
                        alone.is_some_and(|s| s >= LINGER.as_secs()),
                        "dropped while wanted or too soon"
                    );
                    self.held.remove(&key);
                    self.published.remove(&key);
                    self.in_flight.retain(|k| *k != key);
                }
            }
        }
        Ok(())
    }
}

proptest! {
    /// Whatever happens in whatever order: a valid SVID is served as long as somebody may want it,
    /// nothing older is ever served, requests are bounded, who is wanted is kept and who is not goes,
    /// and there is always a next wake-up.
    #[test]
    fn keeps_its_promises_under_any_interleaving(
        happenings in proptest::collection::vec(happening(), 1..80),
    ) {
        let mut roster: Roster<u32> = Roster::default();
        let mut model = Model { now: 1_000_000, ..Model::default() };
        for (happening, passed) in happenings {
            model.now = model.now.saturating_add_signed(passed);
            for alone in model.unwanted_for.values_mut() {
                // Of a clock that went back nobody knows how long it really was.
                *alone = if passed < 0 { u64::MAX / 2 } else { alone.saturating_add(passed.unsigned_abs()) };
            }
            let now = at(model.now);
            match happening {
                Happening::Want { keys, whole } => {
                    for key in &keys {
                        model.wanted.insert(*key, true);
                        model.unwanted_for.remove(key);
                    }
                    if whole {
                        let gone: Vec<u32> = model.wanted.keys().copied().filter(|k| !keys.contains(k)).collect();
                        for key in gone {
                            model.wanted.remove(&key);
                            model.unwanted_for.insert(key, 0);
                        }
                    }
                    roster.want(&keys, whole, now);
                }
                Happening::Answer { which, life } if !model.in_flight.is_empty() => {
                    let key = model.in_flight.remove(which % model.in_flight.len());
                    match life {
                        Some(life) => {
                            model.issued += 1;
                            let facts = Facts { received: now, usable_until: at(model.now + life) };
                            model.held.insert(key, (model.issued, facts, true));
                            roster.tell(&key, Event::Issued(facts), now, EVEN);
                        }
                        None => fail(&mut roster, key, model.now),
                    }
                }
                Happening::Bundle { until } => {
                    let kept: Vec<u32> = roster.keys().copied().collect();
                    let usable_until = until.map(|u| at(model.now + u));
                    for key in kept {
                        if let Some((_, facts, verifies)) = model.held.get_mut(&key) {
                            *verifies = usable_until.is_some();
                            facts.usable_until = usable_until.unwrap_or(facts.usable_until);
                        }
                        roster.tell(&key, Event::BundleChanged { usable_until }, now, EVEN);
                    }
                }
                Happening::Ask { key } => roster.tell(&key, Event::Asked, now, EVEN),
                _ => {}
            }
            model.carry_out(&mut roster)?;
            roster.wake(now);
            model.carry_out(&mut roster)?;
            for key in model.wanted.keys() {
                prop_assert!(roster.keys().any(|k| k == key), "{key} is wanted and not kept");
            }
            for key in roster.keys() {
                prop_assert_eq!(roster.serves(key), model.valid(*key), "a valid SVID is served and no other");
            }
            let kept = roster.keys().count();
            let counts = roster.counts();
            prop_assert_eq!(counts.served + counts.waiting + counts.lingering, kept);
            prop_assert_eq!(counts.in_flight, model.in_flight.len());
            match roster.wake_at() {
                None => prop_assert_eq!(kept, 0, "nobody would ever wake"),
                Some(wake) => prop_assert!(until(wake, now) <= Duration::from_secs(3_600)),
            }
        }
    }
}

#[test]
fn an_answer_that_is_over_or_older_than_what_is_held_is_not_held_and_counts_as_a_failure() {
    let facts = |received: u64, until: u64| Facts {
        received: at(received),
        usable_until: at(until),
    };
    for refused in [facts(1000, 1039), facts(999, 2000)] {
        let mut roster = holding([1], |_| 100);
        let held = facts(1000, 1100);
        assert!(roster.holds(&1, held));
        roster.tell(&1, Event::Issued(refused), at(1040), EVEN);
        assert!(
            roster.holds(&1, held) && !roster.holds(&1, refused),
            "{refused:?}"
        );
        assert!(roster.serves(&1) && roster.failures(&1) == 1);
    }
}
