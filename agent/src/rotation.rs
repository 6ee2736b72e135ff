//! When to ask for an SVID, when to try again, when to put one in use or out of it. Pure: time and
//! chance come in as arguments, and what is to be done goes out as an [`Action`].
//!
//! The caller feeds an event, carries the action out, and feeds [`Event::Woke`] until it is told to
//! wait. It may wake earlier than told, and should every few seconds: that is how a clock that was
//! set back is noticed.

use std::time::Duration;

use signet_certs::UnixTime;
use signet_certs::lifetime::{Jitter, minus, plus, renew_at, renewal_floor, until};
use signet_runtime::backoff::Backoff;

/// First wait after a failure.
const RETRY_BASE: Duration = Duration::from_secs(1);
/// Longest wait between attempts while there is no SVID: a workload stands still for as long.
const RETRY_CAP_WITHOUT: Duration = Duration::from_secs(15);
/// Longest wait between attempts while there is one.
const RETRY_CAP_WITH: Duration = Duration::from_secs(60);
/// An operator who asks for a renewal is kept waiting for the floor this long, or told when to come
/// back.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait ever told, so that there is always a next wake-up.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What the machine knows of an SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When it came, by our clock.
    pub received: UnixTime,
    /// The last second in which it can be used: its chain's end, or its last root's.
    pub usable_until: UnixTime,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed, or an action was carried out.
    Woke,
    /// The CA answered with an SVID that verifies under the newest bundle.
    Issued(Facts),
    /// The request came to nothing.
    Failed {
        /// How long the CA asks us to wait, if it does.
        retry_after: Option<Duration>,
    },
    /// There is a newer bundle; under it the SVID held can be used until then, or not at all.
    BundleChanged {
        /// As [`Facts::usable_until`], or nothing when it does not verify.
        usable_until: Option<UnixTime>,
    },
    /// An operator asks for a renewal.
    Asked,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the CA; feed [`Event::Woke`] now and the outcome when it is there.
    Request,
    /// Put the newest bundle on the shelf, and with it the newest SVID if [`State::serves`].
    Publish,
    /// Wait until then.
    WakeAt(UnixTime),
    /// Tell the operator that no SVID is asked for before then.
    TooSoon(UnixTime),
}

/// Chance, drawn by the caller for each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chance {
    /// Moves the renewal to either side of the middle.
    pub jitter: Jitter,
    /// Share of the wait after a failure, 0 to 1.
    pub backoff: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Held {
    facts: Facts,
    renew_at: UnixTime,
    verifies: bool,
}

/// Everything the machine remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    held: Option<Held>,
    /// The earliest next request: the last success and its floor.
    floor_at: Option<UnixTime>,
    retry_at: Option<UnixTime>,
    failures: u32,
    serving: bool,
    in_flight: bool,
    asked: bool,
    last_seen: Option<UnixTime>,
}

impl State {
    /// Nothing held, nothing asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the SVID held is to be served.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.serving
    }

    /// Whether this SVID is the one held.
    #[must_use]
    pub fn holds(&self, facts: Facts) -> bool {
        self.held.is_some_and(|held| held.facts == facts)
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next request is due; it may be past.
    #[must_use]
    pub fn due(&self, now: UnixTime) -> UnixTime {
        let wanted = match self.held {
            Some(held) if held.verifies && !self.asked => held.renew_at,
            _ => now,
        };
        // An operator's word overrides the wait after a failure, never the floor after a success.
        let retry = if self.asked { None } else { self.retry_at };
        wanted
            .max(retry.unwrap_or(wanted))
            .max(self.floor_at.unwrap_or(wanted))
    }

    /// The last second of the SVID held, if it can be used at `now`.
    #[must_use]
    pub fn usable_until(&self, now: UnixTime) -> Option<UnixTime> {
        self.held
            .filter(|held| held.verifies && now <= held.facts.usable_until)
            .map(|held| held.facts.usable_until)
    }

    fn usable(&self, now: UnixTime) -> bool {
        self.usable_until(now).is_some()
    }

    /// The clock went back: what was noted by it moves along, so that waits keep their length. Ends of
    /// certificates are not ours to move.
    fn set_back(&mut self, by: Duration) {
        if let Some(held) = &mut self.held {
            held.facts.received = minus(held.facts.received, by);
            held.renew_at = minus(held.renew_at, by);
        }
        self.floor_at = self.floor_at.map(|at| minus(at, by));
        self.retry_at = self.retry_at.map(|at| minus(at, by));
    }
}

/// One step.
#[must_use]
pub fn step(mut state: State, event: Event, now: UnixTime, chance: Chance) -> (State, Action) {
    if let Some(seen) = state.last_seen
        && now < seen
    {
        state.set_back(until(seen, now));
    }
    state.last_seen = Some(now);
    match event {
        Event::Woke => {}
        Event::Issued(facts) => return issued(state, facts, now, chance),
        Event::Failed { retry_after } => fail(&mut state, retry_after, now, chance),
        Event::BundleChanged { usable_until } => {
            if state.held.is_none() {
                // A first bundle shows that the CA is there again: nobody who has nothing waits on.
                state.retry_at = None;
            }
            if let Some(held) = &mut state.held {
                held.verifies = usable_until.is_some();
                held.facts.usable_until = usable_until.unwrap_or(held.facts.usable_until);
                held.renew_at = held.renew_at.min(half_way(held.facts, chance));
            }
            state.serving = state.usable(now);
            return (state, Action::Publish);
        }
        Event::Asked => match state.floor_at {
            Some(floor) if !state.in_flight && until(floor, now) > PATIENCE => {
                return (state, Action::TooSoon(floor));
            }
            _ => state.asked = !state.in_flight,
        },
    }
    if state.serving != state.usable(now) {
        state.serving = !state.serving;
        return (state, Action::Publish);
    }
    if !state.in_flight && state.due(now) <= now {
        state.in_flight = true;
        return (state, Action::Request);
    }
    (state, Action::WakeAt(next_wake(&state, now)))
}

fn issued(mut state: State, facts: Facts, now: UnixTime, chance: Chance) -> (State, Action) {
    state.in_flight = false;
    let older = state
        .held
        .is_some_and(|held| facts.received < held.facts.received);
    if facts.usable_until < now || older {
        // The caller verified it a moment ago; a clock that jumped since then can make it so.
        fail(&mut state, None, now, chance);
        return (state, Action::WakeAt(next_wake(&state, now)));
    }
    let life = until(facts.usable_until, facts.received);
    state.held = Some(Held {
        facts,
        renew_at: half_way(facts, chance),
        verifies: true,
    });
    state.floor_at = Some(plus(facts.received, whole_seconds(renewal_floor(life))));
    state.retry_at = None;
    state.failures = 0;
    state.asked = false;
    state.serving = true;
    (state, Action::Publish)
}

fn fail(state: &mut State, retry_after: Option<Duration>, now: UnixTime, chance: Chance) {
    let cap = match state.held {
        Some(held) if state.usable(now) => {
            (until(held.facts.usable_until, now) / 8).clamp(RETRY_BASE, RETRY_CAP_WITH)
        }
        _ => RETRY_CAP_WITHOUT,
    };
    let wait = Backoff {
        base: RETRY_BASE,
        cap,
    }
    .delay(state.failures, chance.backoff);
    // What the CA asks for is the least; the backoff on top keeps those it told the same apart.
    let wait = retry_after.map_or(wait, |hint| hint.saturating_add(wait));
    state.retry_at = Some(plus(now, whole_seconds(wait)));
    state.failures = state.failures.saturating_add(1);
    state.in_flight = false;
    state.asked = false;
}

fn half_way(facts: Facts, chance: Chance) -> UnixTime {
    let life = until(facts.usable_until, facts.received);
    renew_at(
        facts.received,
        facts.usable_until,
        chance.jitter,
        renewal_floor(life),
    )
}

fn next_wake(state: &State, now: UnixTime) -> UnixTime {
    let soonest = plus(now, Duration::from_secs(1));
    let mut wake = plus(now, LONGEST_WAIT);
    if !state.in_flight {
        wake = wake.min(state.due(now));
    }
    if let (true, Some(held)) = (state.serving, state.held) {
        wake = wake.min(plus(held.facts.usable_until, Duration::from_secs(1)));
    }
    wake.max(soonest)
}

/// Wall time has whole seconds here; rounding up keeps every wait at least as long as drawn.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests;
