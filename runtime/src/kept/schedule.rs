//! When a document is fetched: a pure machine.

use std::time::Duration;

use rustls_pki_types::UnixTime;

/// The times of all documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// From a good fetch to the next.
    pub refresh: Duration,
    /// From the first failure to the next try; doubles with each further failure.
    pub first_retry: Duration,
    /// Longest time from a failure to the next try.
    pub longest_retry: Duration,
    /// From the beginning of a fetch because somebody misses something to the next such fetch.
    pub ask_gap: Duration,
}

impl Default for Plan {
    /// Istio's times for key sets; it does not fetch on demand.
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(20 * 60),
            first_retry: Duration::from_secs(60),
            longest_retry: Duration::from_secs(60 * 60),
            ask_gap: Duration::from_secs(30),
        }
    }
}

/// What is known of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    due: UnixTime,
    /// When the last fetch began.
    began: Option<UnixTime>,
    /// When the last fetch because somebody missed something began.
    asked: Option<UnixTime>,
    failures: u32,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A wait ended.
    Woke,
    /// A fetch was good. The share, from 0 to 1, spreads the next over time.
    Fetched(f64),
    /// A fetch failed.
    Failed(f64),
    /// Somebody misses something in the document.
    Asked,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fetch now.
    Fetch,
    /// Wait until then, or until somebody asks.
    WaitUntil(UnixTime),
    /// Tell who asked that it is too soon.
    Refuse,
}

impl State {
    /// Nothing is known; a fetch is due.
    #[must_use]
    pub fn new(now: UnixTime) -> Self {
        Self {
            due: now,
            began: None,
            asked: None,
            failures: 0,
        }
    }
}

/// What to do after `event`.
#[must_use]
pub fn step(plan: &Plan, mut state: State, event: Event, now: UnixTime) -> (State, Action) {
    match event {
        Event::Woke => {}
        Event::Fetched(share) => {
            state.failures = 0;
            state.due = after(now, spread(plan.refresh, share));
        }
        Event::Failed(share) => {
            let factor = 1u32.checked_shl(state.failures).unwrap_or(u32::MAX);
            let wait = plan.first_retry.saturating_mul(factor).min(plan.longest_retry);
            state.failures = state.failures.saturating_add(1);
            state.due = after(now, spread(wait, share));
        }
        Event::Asked => {
            // Strangers can make us ask; a server that fails is not asked more often for it.
            let (last, gap) = if state.failures == 0 {
                (state.asked, plan.ask_gap)
            } else {
                (state.began, plan.first_retry.max(plan.ask_gap))
            };
            if last.is_some_and(|last| before(last, now) < gap) {
                return (state, Action::Refuse);
            }
            (state.due, state.asked) = (now, Some(now));
        }
    }
    // A clock that was set back does not put a fetch off for longer than the longest wait.
    let longest = plan.refresh.max(plan.longest_retry);
    state.due = state.due.min(after(now, longest));
    if now < state.due {
        return (state, Action::WaitUntil(state.due));
    }
    state.began = Some(now);
    (state, Action::Fetch)
}

/// Nine tenths of `wait`, and a share of the last.
fn spread(wait: Duration, share: f64) -> Duration {
    let share = if share.is_nan() {
        1.0
    } else {
        share.clamp(0.0, 1.0)
    };
    wait.mul_f64(0.1f64.mul_add(share, 0.9))
}

fn after(now: UnixTime, wait: Duration) -> UnixTime {
    let seconds = now.as_secs().saturating_add(wait.as_secs());
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// From `then` to `now`; long, if the clock was set back in between.
fn before(then: UnixTime, now: UnixTime) -> Duration {
    now.as_secs()
        .checked_sub(then.as_secs())
        .map_or(Duration::MAX, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_document_is_fetched_at_once_then_as_often_as_the_plan_says() {
        let plan = Plan::default();
        let (state, action) = step(&plan, State::new(at(100)), Event::Woke, at(100));
        assert_eq!(action, Action::Fetch);
        let (state, action) = step(&plan, state, Event::Fetched(1.0), at(101));
        assert_eq!(action, Action::WaitUntil(at(101 + 1200)));
        let (_, early) = step(&plan, state, Event::Woke, at(1300));
        assert_eq!(early, Action::WaitUntil(at(1301)));
        let (_, due) = step(&plan, state, Event::Woke, at(1301));
        assert_eq!(due, Action::Fetch);
    }

    #[test]
    fn failures_wait_twice_as_long_each_time_up_to_an_hour_and_are_forgotten_by_a_success() {
        let plan = Plan::default();
        let mut state = State::new(at(0));
        for expected in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let (next, action) = step(&plan, state, Event::Failed(1.0), at(0));
            assert_eq!(action, Action::WaitUntil(at(expected)));
            state = next;
        }
        let (least, _) = step(&plan, State::new(at(0)), Event::Failed(0.0), at(0));
        assert_eq!(least.due, at(54));
        let (state, _) = step(&plan, state, Event::Fetched(1.0), at(5000));
        let (_, action) = step(&plan, state, Event::Failed(1.0), at(5000));
        assert_eq!(action, Action::WaitUntil(at(5060)));
    }

    #[test]
    fn who_misses_something_is_answered_at_most_once_per_gap() {
        let plan = Plan::default();
        let (state, _) = step(&plan, State::new(at(100)), Event::Woke, at(100));
        let (state, _) = step(&plan, state, Event::Fetched(1.0), at(100));
        // A fetch that was due anyway is none of theirs: keys may have changed the moment after.
        let (state, first) = step(&plan, state, Event::Asked, at(101));
        assert_eq!(first, Action::Fetch);
        let (state, _) = step(&plan, state, Event::Fetched(1.0), at(101));
        let (state, soon) = step(&plan, state, Event::Asked, at(130));
        assert_eq!(soon, Action::Refuse);
        let (state, again) = step(&plan, state, Event::Asked, at(131));
        assert_eq!(again, Action::Fetch);
        let (state, _) = step(&plan, state, Event::Failed(1.0), at(132));
        let (state, soon) = step(&plan, state, Event::Asked, at(190));
        assert_eq!(soon, Action::Refuse, "a server that fails is spared");
        assert_eq!(step(&plan, state, Event::Asked, at(191)).1, Action::Fetch);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_the_fetches() {
        let plan = Plan::default();
        let (state, _) = step(
            &plan,
            State::new(at(1_000_000)),
            Event::Fetched(1.0),
            at(1_000_000),
        );
        let (state, action) = step(&plan, state, Event::Woke, at(1000));
        assert_eq!(action, Action::WaitUntil(at(1000 + 3600)));
        assert_eq!(step(&plan, state, Event::Asked, at(1000)).1, Action::Fetch);
    }
}
