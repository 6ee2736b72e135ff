//! When a foreign bundle is asked for, and what becomes of the answer (SPIFFE Federation §4, §6.2).
//! Pure: the driver fetches, stores and waits.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::bundle::Succession;
use signet_certs::lifetime::{Jitter, plus};
use signet_certs::{TrustBundle, UnixTime};

/// The interval of a bundle that gives no hint, as the standard asks.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);
/// Hints are clamped to this: a publisher can neither make us busy nor make us blind.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// Polls are moved forward by up to this share of the interval, so that replicas do not ask together.
const SPREAD: f64 = 0.1;

/// One relationship.
#[derive(Clone, Debug, Default)]
pub struct Poll {
    /// The bundle in force.
    pub held: Option<Arc<TrustBundle>>,
    /// When to ask next; nothing means now.
    pub due: Option<UnixTime>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed.
    Woke,
    /// The endpoint or file gave this bundle.
    Fetched(Arc<TrustBundle>),
    /// It gave none.
    Failed,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Ask.
    Fetch,
    /// Nothing before then.
    WakeAt(UnixTime),
    /// Put the bundle held in force and store it; ask again then.
    Adopt(UnixTime),
    /// Keep what is in force, for this reason; ask again then.
    Keep(Kept, UnixTime),
}

/// Why an answer changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It says the same.
    Unchanged,
    /// It has a lower sequence.
    Older,
    /// It has the same sequence and other contents.
    Conflicting,
    /// There was none.
    Failed,
}

impl Kept {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Older => "older",
            Self::Conflicting => "conflicting",
            Self::Failed => "failed",
        }
    }
}

/// One step. A failed poll is repeated at the next interval and not before (§6.2). `fixed` is the interval
/// of a source that has one of its own.
#[must_use]
pub fn step(
    poll: Poll,
    event: Event,
    fixed: Option<Duration>,
    jitter: Jitter,
    now: UnixTime,
) -> (Poll, Action) {
    let Poll { held, due } = poll;
    let (held, kept) = match event {
        Event::Woke => {
            // A clock that was set back does not leave us blind for longer than any interval.
            let far = plus(now, INTERVALS.1);
            return match due {
                Some(due) if due > now && due <= far => (Poll { held, due: Some(due) }, Action::WakeAt(due)),
                _ => (Poll { held, due: None }, Action::Fetch),
            };
        }
        Event::Failed => (held, Some(Kept::Failed)),
        Event::Fetched(fetched) => match held.as_ref().map(|held| fetched.succeeds(held)) {
            None | Some(Succession::Newer) => (Some(fetched), None),
            // The hint is no content, and the newest one counts.
            Some(Succession::Same) => (Some(fetched), Some(Kept::Unchanged)),
            Some(Succession::Older) => (held, Some(Kept::Older)),
            Some(Succession::Conflicting) => (held, Some(Kept::Conflicting)),
        },
    };
    let next = plus(now, interval(held.as_deref(), fixed, jitter));
    let poll = Poll {
        held,
        due: Some(next),
    };
    match kept {
        None => (poll, Action::Adopt(next)),
        Some(kept) => (poll, Action::Keep(kept, next)),
    }
}

fn interval(held: Option<&TrustBundle>, fixed: Option<Duration>, jitter: Jitter) -> Duration {
    let hint = held
        .and_then(TrustBundle::refresh_hint)
        .unwrap_or(DEFAULT_INTERVAL);
    let interval = fixed.unwrap_or_else(|| hint.clamp(INTERVALS.0, INTERVALS.1));
    interval.mul_f64(1.0 - SPREAD * jitter.share())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use signet_certs::{JwtKey, SigningKey};
    use std::sync::LazyLock;

    static KEYS: LazyLock<Vec<JwtKey>> = LazyLock::new(|| {
        let key = |_| SigningKey::generate().unwrap().public_key().clone();
        (0..3)
            .map(key)
            .map(|key| JwtKey::by_thumbprint(key).unwrap())
            .collect()
    });

    fn bundle(sequence: u64, content: usize, hint: Option<u64>) -> Arc<TrustBundle> {
        let bundle = TrustBundle::new("a.test".parse().unwrap(), Vec::new(), sequence).unwrap();
        let bundle = bundle.with_jwt_keys(vec![KEYS[content].clone()]).unwrap();
        Arc::new(match hint {
            Some(hint) => bundle.with_refresh_hint(Duration::from_secs(hint)),
            None => bundle,
        })
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000 + seconds))
    }

    fn still() -> Jitter {
        Jitter::new(0.0)
    }

    #[test]
    fn polls_follow_the_hint_within_bounds_and_five_minutes_without_one() {
        for (hint, seconds) in [(Some(60), 60), (None, 300), (Some(0), 5), (Some(u64::MAX), 3600)] {
            let event = Event::Fetched(bundle(1, 0, hint));
            let (poll, action) = step(Poll::default(), event, None, still(), at(0));
            assert!(
                matches!(action, Action::Adopt(next) if next == at(seconds)),
                "{hint:?}"
            );
            assert_eq!(poll.due, Some(at(seconds)));
        }
        let fixed = Some(Duration::from_secs(10));
        let (_, action) = step(Poll::default(), Event::Failed, fixed, still(), at(0));
        assert!(matches!(action, Action::Keep(Kept::Failed, next) if next == at(10)));
        let (poll, _) = step(Poll::default(), Event::Failed, None, Jitter::new(1.0), at(0));
        assert_eq!(poll.due, Some(at(270)), "moved forward by a tenth at most");
    }

    #[test]
    fn a_failed_poll_keeps_the_bundle_and_is_not_repeated_before_its_interval() {
        let (poll, _) = step(
            Poll::default(),
            Event::Fetched(bundle(3, 0, Some(60))),
            None,
            still(),
            at(0),
        );
        let (poll, action) = step(poll, Event::Woke, None, still(), at(59));
        assert!(matches!(action, Action::WakeAt(due) if due == at(60)));
        let (poll, action) = step(poll, Event::Woke, None, still(), at(60));
        assert!(matches!(action, Action::Fetch));
        let (poll, action) = step(poll, Event::Failed, None, still(), at(61));
        assert!(matches!(action, Action::Keep(Kept::Failed, next) if next == at(121)));
        assert_eq!(poll.held.unwrap().sequence(), 3);
    }

    #[test]
    fn the_sequence_decides_and_an_empty_bundle_is_a_bundle() {
        let held = |sequence| Poll {
            held: Some(bundle(sequence, 0, None)),
            due: None,
        };
        let after = |poll, fetched| {
            let (poll, action) = step(poll, Event::Fetched(fetched), None, still(), at(0));
            let word = match action {
                Action::Adopt(_) => "updated",
                Action::Keep(kept, _) => kept.as_str(),
                other => panic!("{other:?}"),
            };
            (word, poll.held.unwrap().jwt_keys().to_vec())
        };
        let keys = |n: usize| vec![KEYS[n].clone()];
        assert_eq!(after(held(5), bundle(6, 1, None)), ("updated", keys(1)));
        assert_eq!(after(held(5), bundle(5, 0, None)), ("unchanged", keys(0)));
        assert_eq!(after(held(5), bundle(4, 1, None)), ("older", keys(0)));
        assert_eq!(after(held(5), bundle(5, 1, None)), ("conflicting", keys(0)));
        assert_eq!(after(held(0), bundle(0, 1, None)), ("updated", keys(1)));
        let empty = Arc::new(TrustBundle::new("a.test".parse().unwrap(), Vec::new(), 6).unwrap());
        assert_eq!(after(held(5), empty), ("updated", Vec::new()));
    }

    #[test]
    fn a_clock_set_back_does_not_leave_us_blind() {
        let poll = Poll {
            held: None,
            due: Some(at(900_000)),
        };
        let (_, action) = step(poll, Event::Woke, None, still(), at(0));
        assert!(matches!(action, Action::Fetch));
    }

    proptest! {
        #[test]
        fn what_is_held_never_goes_back(
            fetched in prop::collection::vec((1u64..6, 0usize..3, any::<bool>()), 1..30),
        ) {
            let mut poll = Poll::default();
            let mut newest = 0;
            for (time, (sequence, content, fails)) in fetched.into_iter().enumerate() {
                let event = if fails { Event::Failed } else { Event::Fetched(bundle(sequence, content, None)) };
                let before = poll.held.clone();
                let (next, _) = step(poll, event, None, still(), at(time as u64));
                poll = next;
                if let Some(held) = &poll.held {
                    prop_assert!(held.sequence() >= newest);
                    if let Some(before) = before.filter(|b| b.sequence() == held.sequence()) {
                        prop_assert!(held.same_content(&before));
                    }
                    newest = held.sequence();
                }
            }
        }
    }
}
