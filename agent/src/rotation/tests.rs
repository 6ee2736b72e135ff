//! The machine as a table, and under arbitrary orders of events.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn facts(received: u64, usable_until: u64) -> Facts {
    Facts {
        received: at(received),
        usable_until: at(usable_until),
    }
}

const EVEN: Chance = Chance {
    jitter: Jitter::NONE,
    backoff: 1.0,
};

fn woke(state: State, now: u64) -> (State, Action) {
    step(state, Event::Woke, at(now), EVEN)
}

fn failed(state: State, now: u64, hint: Option<u64>) -> (State, Action) {
    step(
        state,
        Event::Failed {
            retry_after: hint.map(Duration::from_secs),
        },
        at(now),
        EVEN,
    )
}

/// Holds an SVID of 100 s, received at 1000.
fn holding() -> State {
    let (state, action) = woke(State::new(), 1000);
    assert_eq!(action, Action::Request);
    let (state, action) = step(state, Event::Issued(facts(1000, 1100)), at(1000), EVEN);
    assert_eq!(action, Action::Publish);
    assert!(state.serves());
    state
}

#[test]
fn asks_at_once_when_it_has_nothing_and_only_once() {
    let (state, action) = woke(State::new(), 1000);
    assert_eq!(action, Action::Request);
    assert!(matches!(woke(state, 1001).1, Action::WakeAt(_)));
}

#[test]
fn renews_half_way_and_not_before() {
    assert_eq!(woke(holding(), 1001).1, Action::WakeAt(at(1050)));
    assert_eq!(woke(holding(), 1049).1, Action::WakeAt(at(1050)));
    assert_eq!(woke(holding(), 1050).1, Action::Request);
}

#[test]
fn renewal_is_spread_by_the_jitter() {
    let (state, _) = woke(State::new(), 1000);
    let early = Chance {
        jitter: Jitter::new(0.0),
        backoff: 1.0,
    };
    let (state, _) = step(state, Event::Issued(facts(1000, 1100)), at(1000), early);
    assert_eq!(woke(state, 1000).1, Action::WakeAt(at(1040)));
}

#[test]
fn a_failed_renewal_keeps_the_svid_to_its_last_second_and_retries_ever_slower() {
    let (state, _) = woke(holding(), 1050);
    let (state, action) = failed(state, 1050, None);
    assert!(state.serves());
    assert_eq!(action, Action::WakeAt(at(1051)));
    let (state, action) = woke(state, 1051);
    assert_eq!(action, Action::Request);
    let (state, action) = failed(state, 1051, None);
    assert_eq!(action, Action::WakeAt(at(1053)));
    let (mut state, _) = woke(state, 1053);
    for now in 1054..=1100 {
        let (next, _) = failed(state, now, None);
        assert!(next.serves(), "at {now}");
        state = woke(next, now).0;
    }
    let (state, action) = woke(state, 1101);
    assert_eq!(action, Action::Publish);
    assert!(!state.serves());
}

#[test]
fn waits_shrink_as_the_end_comes_near() {
    let (state, _) = woke(holding(), 1050);
    let mut state = state;
    for _ in 0..10 {
        state = failed(state, 1092, None).0;
    }
    assert_eq!(failed(state, 1092, None).1, Action::WakeAt(at(1093)));
}

#[test]
fn a_first_bundle_ends_the_wait_of_one_who_has_nothing() {
    let (state, _) = woke(State::new(), 1000);
    let (state, action) = failed(state, 1001, Some(10));
    assert!(matches!(action, Action::WakeAt(when) if when > at(1010)));
    let (state, action) = step(state, Event::BundleChanged { usable_until: None }, at(1002), EVEN);
    assert_eq!(action, Action::Publish);
    assert_eq!(woke(state, 1002).1, Action::Request);
}

#[test]
fn a_hint_of_the_ca_is_the_least_wait() {
    let (state, _) = woke(State::new(), 1000);
    assert_eq!(failed(state, 1000, Some(30)).1, Action::WakeAt(at(1031)));
}

#[test]
fn never_asks_again_sooner_than_a_tenth_of_the_life_after_a_success_whatever_the_reason() {
    let lost = Event::BundleChanged { usable_until: None };
    let (state, action) = step(holding(), lost, at(1002), EVEN);
    assert_eq!(action, Action::Publish);
    assert!(!state.serves());
    assert_eq!(woke(state, 1002).1, Action::WakeAt(at(1010)));
    assert_eq!(woke(state, 1010).1, Action::Request);
    let (state, action) = step(holding(), Event::Asked, at(1002), EVEN);
    assert_eq!(action, Action::WakeAt(at(1010)));
    assert_eq!(woke(state, 1010).1, Action::Request);
}

#[test]
fn an_operator_who_would_wait_long_is_told_when_to_come_back() {
    let (state, _) = woke(State::new(), 1000);
    let (state, _) = step(state, Event::Issued(facts(1000, 2000)), at(1000), EVEN);
    assert_eq!(
        step(state, Event::Asked, at(1001), EVEN).1,
        Action::TooSoon(at(1100))
    );
    assert_eq!(
        step(state, Event::Asked, at(1091), EVEN).1,
        Action::WakeAt(at(1100))
    );
    assert_eq!(step(state, Event::Asked, at(1100), EVEN).1, Action::Request);
}

#[test]
fn an_operators_word_overrides_the_wait_after_a_failure() {
    let (state, _) = woke(holding(), 1050);
    let (state, _) = failed(state, 1050, Some(40));
    assert_eq!(step(state, Event::Asked, at(1051), EVEN).1, Action::Request);
}

#[test]
fn a_bundle_that_drops_the_issuer_withdraws_the_svid_and_one_that_brings_it_back_restores_it() {
    let (state, _) = step(
        holding(),
        Event::BundleChanged { usable_until: None },
        at(1020),
        EVEN,
    );
    assert!(!state.serves());
    assert_eq!(woke(state, 1020).1, Action::Request);
    let back = Event::BundleChanged {
        usable_until: Some(at(1100)),
    };
    let (state, action) = step(state, back, at(1021), EVEN);
    assert_eq!(action, Action::Publish);
    assert!(state.serves());
}

#[test]
fn a_root_that_ends_sooner_than_the_svid_brings_the_renewal_forward() {
    let sooner = Event::BundleChanged {
        usable_until: Some(at(1060)),
    };
    let (state, _) = step(holding(), sooner, at(1005), EVEN);
    assert_eq!(woke(state, 1005).1, Action::WakeAt(at(1030)));
}

#[test]
fn a_suspended_machine_renews_on_waking_and_serves_nothing_that_is_over() {
    let (state, action) = woke(holding(), 5000);
    assert_eq!(action, Action::Publish);
    assert!(!state.serves());
    assert_eq!(woke(state, 5000).1, Action::Request);
}

#[test]
fn a_clock_set_back_moves_waits_along_and_restores_an_svid_that_is_valid_again() {
    let (state, _) = woke(holding(), 5000);
    assert!(!state.serves());
    let (state, action) = woke(state, 1020);
    assert_eq!(action, Action::Publish);
    assert!(state.serves());
    let (state, _) = woke(holding(), 1050);
    let (state, action) = failed(state, 1050, Some(40));
    assert_eq!(action, Action::WakeAt(at(1091)));
    assert_eq!(woke(state, 550).1, Action::WakeAt(at(591)));
}

#[test]
fn an_answer_that_ended_before_it_came_counts_as_a_failure() {
    let (state, _) = woke(State::new(), 1000);
    let (state, action) = step(state, Event::Issued(facts(900, 950)), at(1000), EVEN);
    assert!(!state.serves());
    assert!(matches!(action, Action::WakeAt(_)));
    assert_eq!(state.failures(), 1);
}

#[derive(Clone, Debug)]
enum Happening {
    Woke,
    Issued { life: u64 },
    Failed { hint: Option<u64> },
    Bundle { until: Option<u64> },
    Asked,
}

fn happening() -> impl Strategy<Value = (Happening, i64, f64, f64)> {
    let event = prop_oneof![
        4 => Just(Happening::Woke),
        3 => (0u64..100_000).prop_map(|life| Happening::Issued { life }),
        2 => proptest::option::of(0u64..400).prop_map(|hint| Happening::Failed { hint }),
        1 => proptest::option::of(0u64..100_000).prop_map(|until| Happening::Bundle { until }),
        1 => Just(Happening::Asked),
    ];
    (event, -2_000i64..50_000, 0.0..=1.0, 0.0..=1.0)
}

proptest! {
    /// Whatever happens in whatever order: what is served never gets older, a valid SVID stays in
    /// service, requests never overlap and keep the floor, and there is always a next wake-up.
    #[test]
    fn keeps_its_promises_under_any_order_of_events(
        happenings in proptest::collection::vec(happening(), 1..60),
    ) {
        let mut state = State::new();
        let mut now = 1_000_000u64;
        let mut in_flight = false;
        let mut served = None::<u64>;
        let mut held = None::<(u64, Facts, bool)>;
        let mut issued = 0u64;
        let mut floor = None::<u64>;
        for (happening, passed, jitter, backoff) in happenings {
            let chance = Chance { jitter: Jitter::new(jitter), backoff };
            let before = now;
            now = now.saturating_add_signed(passed);
            if now < before {
                floor = floor.map(|f| f - (before - now));
            }
            let event = match happening {
                Happening::Issued { life } if in_flight => Event::Issued(facts(now, now + life)),
                Happening::Failed { hint } if in_flight => {
                    Event::Failed { retry_after: hint.map(Duration::from_secs) }
                }
                Happening::Bundle { until } => {
                    Event::BundleChanged { usable_until: until.map(|u| at(now + u)) }
                }
                Happening::Asked => Event::Asked,
                _ => Event::Woke,
            };
            match event {
                Event::Issued(facts) => {
                    in_flight = false;
                    issued += 1;
                    held = Some((issued, facts, true));
                    let life = until(facts.usable_until, facts.received);
                    floor = Some(now + renewal_floor(life).as_secs());
                }
                Event::Failed { .. } => in_flight = false,
                Event::BundleChanged { usable_until } => if let Some((_, facts, verifies)) = &mut held {
                    *verifies = usable_until.is_some();
                    facts.usable_until = usable_until.unwrap_or(facts.usable_until);
                },
                Event::Woke | Event::Asked => {}
            }
            let mut event = event;
            for turn in 0.. {
                prop_assert!(turn < 6, "the machine does not come to rest");
                let (next, action) = step(state, event, at(now), chance);
                state = next;
                event = Event::Woke;
                match action {
                    Action::Request => {
                        prop_assert!(!in_flight, "two requests at once");
                        prop_assert!(floor.is_none_or(|f| now >= f), "asked before the floor");
                        in_flight = true;
                    }
                    Action::Publish => if state.serves() {
                        let newest = held.map(|(number, ..)| number);
                        prop_assert!(newest >= served, "served something older");
                        served = newest;
                    },
                    Action::TooSoon(when) => prop_assert!(when > at(now)),
                    Action::WakeAt(when) => {
                        prop_assert!(when > at(now) && when <= at(now + 3_600), "no wake-up");
                        break;
                    }
                }
            }
            let valid = held.is_some_and(|(_, facts, verifies)| verifies && at(now) <= facts.usable_until);
            prop_assert_eq!(state.serves(), valid, "a valid SVID is served and no other");
        }
    }
}
