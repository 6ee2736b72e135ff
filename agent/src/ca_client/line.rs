//! Which connection calls to the CA go over, and when it is left for another.
//!
//! Behind the CA's address there may be several replicas, and a connection stays with the one that it reached.
//! One that answers, and fails again and again, is left: the next call dials anew and may reach another.
//! A connection that broke, or was never there, is dialled again by itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signet_runtime::backoff::{Backoff, random_share};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use super::dial::Dialer;
use super::failure::{Failure, FailureKind};
use crate::metrics::Metrics;

/// Failures of one kind of call in a row after which its connection is left.
const PATIENCE: u32 = 2;
/// Rest between two connections that are left: where all replicas fail, dialling them costs handshakes and helps nobody.
const REST: Backoff = Backoff {
    base: Duration::from_secs(10),
    cap: Duration::from_secs(300),
};

/// The kinds of calls. One may fail while another goes well: bundles need no API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Issue,
    Mint,
    Watch,
}

/// What a call says of the replica it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It works, whatever it answered.
    Well,
    /// It answered that it cannot, or not at all.
    Failing,
    /// Nothing: it was not reached.
    Nothing,
}

impl Word {
    /// What this failure says.
    pub(super) fn of(failure: &Failure) -> Self {
        match failure.kind {
            _ if !failure.reached => Self::Nothing,
            FailureKind::Unavailable
            | FailureKind::Overloaded
            | FailureKind::Deadline
            | FailureKind::Internal => Self::Failing,
            _ => Self::Well,
        }
    }
}

/// How a connection does. Pure: time and jitter come in as arguments.
#[derive(Debug, Default)]
struct Trial {
    /// Which connection it is.
    number: u64,
    /// Failures in a row of each kind of call.
    failures: [u32; 3],
    /// Connections left in a row.
    left: u32,
    rests_until: Option<Instant>,
}

impl Trial {
    /// Takes in what a call over the connection `number` says; answers whether that one is left now.
    fn hear(&mut self, (call, number): (Call, u64), word: Word, now: Instant, share: f64) -> bool {
        let [issue, mint, watch] = &mut self.failures;
        let failures = match call {
            Call::Issue => issue,
            Call::Mint => mint,
            Call::Watch => watch,
        };
        match word {
            _ if number != self.number => return false,
            Word::Nothing => return false,
            Word::Well => {
                *failures = 0;
                return false;
            }
            Word::Failing => *failures = failures.saturating_add(1),
        }
        if *failures < PATIENCE || self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        // What came long after the last rest is another fault.
        if self.rests_until.is_some_and(|until| now >= until + REST.cap) {
            self.left = 0;
        }
        *self = Self {
            number: self.number.wrapping_add(1),
            failures: [0; 3],
            left: self.left.saturating_add(1),
            rests_until: Some(now + REST.delay(self.left, share)),
        };
        true
    }
}

/// The connection in use, and its successors.
pub(super) struct Line {
    endpoint: Endpoint,
    dialer: Dialer,
    metrics: Metrics,
    current: Mutex<(Trial, Channel)>,
    moves: watch::Sender<u64>,
}

impl Line {
    /// A connection that is dialled at its first call.
    pub(super) fn new(endpoint: Endpoint, dialer: Dialer, metrics: Metrics) -> Self {
        let channel = endpoint.connect_with_connector_lazy(dialer.clone());
        Self {
            endpoint,
            dialer,
            metrics,
            current: Mutex::new((Trial::default(), channel)),
            moves: watch::Sender::new(0),
        }
    }

    /// The connection for a call, and its number.
    pub(super) fn current(&self) -> (Channel, u64) {
        let current = self.lock();
        (current.1.clone(), current.0.number)
    }

    /// Rings when a connection was left.
    pub(super) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// Takes in how a call over the connection `number` went.
    pub(super) fn hear<T>(&self, of: (Call, u64), went: &Result<T, Failure>) {
        let word = went.as_ref().map_or_else(Word::of, |_| Word::Well);
        let mut current = self.lock();
        if !current.0.hear(of, word, Instant::now(), random_share()) {
            return;
        }
        current.1 = self.endpoint.connect_with_connector_lazy(self.dialer.clone());
        let number = current.0.number;
        drop(current);
        self.moves.send_replace(number);
        if let Err(failure) = went {
            let reason = failure.kind.code();
            Metrics::blame(&self.metrics.ca_connections_left, reason);
            tracing::warn!(
                reason,
                error = %failure,
                "the CA fails again and again over this connection; the next call opens another"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Trial, Channel)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUE: (Call, u64) = (Call::Issue, 0);

    fn hear(trial: &mut Trial, of: (Call, u64), word: Word, now: Instant) -> bool {
        trial.hear(of, word, now, 1.0)
    }

    #[test]
    fn two_failures_in_a_row_of_one_kind_of_call_leave_the_connection() {
        let now = Instant::now();
        let mut trial = Trial::default();
        assert!(!hear(&mut trial, ISSUE, Word::Failing, now));
        assert!(!hear(&mut trial, (Call::Watch, 0), Word::Well, now));
        assert!(!hear(&mut trial, (Call::Mint, 0), Word::Failing, now));
        assert!(!hear(&mut trial, ISSUE, Word::Nothing, now));
        assert!(hear(&mut trial, ISSUE, Word::Failing, now));
        assert_eq!((trial.number, trial.failures), (1, [0; 3]));
    }

    #[test]
    fn an_answer_of_whatever_content_makes_good_for_a_failure() {
        let now = Instant::now();
        let mut trial = Trial::default();
        for _ in 0..5 {
            assert!(!hear(&mut trial, ISSUE, Word::Failing, now));
            assert!(!hear(&mut trial, ISSUE, Word::Well, now));
        }
    }

    #[test]
    fn calls_that_were_under_way_say_nothing_of_the_next_connection() {
        let now = Instant::now();
        let mut trial = Trial::default();
        let left: Vec<bool> = (0..8)
            .map(|_| hear(&mut trial, ISSUE, Word::Failing, now))
            .collect();
        assert_eq!(left.iter().filter(|left| **left).count(), 1);
        assert_eq!(trial.failures, [0; 3]);
    }

    #[test]
    fn where_every_replica_fails_connections_are_left_more_and_more_seldom_until_they_do_well_for_a_while() {
        let start = Instant::now();
        let mut trial = Trial::default();
        let mut left = Vec::new();
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            let number = trial.number;
            if hear(&mut trial, (Call::Issue, number), Word::Failing, now) {
                left.push(second);
            }
        }
        assert!(left.len() < 20, "{left:?}");
        let gap = |pair: &[u64]| pair[1] - pair[0];
        assert!(left.windows(2).map(gap).is_sorted(), "{left:?}");
        let calm = start + Duration::from_secs(10_000);
        let number = trial.number;
        hear(&mut trial, (Call::Issue, number), Word::Failing, calm);
        hear(&mut trial, (Call::Issue, number), Word::Failing, calm);
        assert_eq!(trial.left, 1);
    }

    #[test]
    fn what_a_failure_says_depends_on_whether_the_ca_was_reached_and_on_its_kind() {
        let failed = |kind| Failure::new(kind, "x");
        let far = Failure {
            reached: false,
            ..failed(FailureKind::Unavailable)
        };
        assert_eq!(Word::of(&far), Word::Nothing);
        assert_eq!(Word::of(&failed(FailureKind::Overloaded)), Word::Failing);
        assert_eq!(Word::of(&failed(FailureKind::Refused)), Word::Well);
    }
}
