//! How often one workload, and all of a node together, may ask for something that costs work: a token, its
//! validation, a stream. Pure: time comes in as an argument.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// A rate, and how much of it may come at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests a second.
    pub per_second: f64,
    /// Requests at once.
    pub at_once: f64,
}

/// The rates of one workload and of all together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of one.
    pub one: Rate,
    /// Of all; two cores do it beside their other work.
    pub all: Rate,
}

/// Tokens asked for or checked: each costs a signature or a request to the CA.
pub const TOKENS: Rates = Rates {
    one: Rate {
        per_second: 100.0,
        at_once: 200.0,
    },
    all: Rate {
        per_second: 1_000.0,
        at_once: 2_000.0,
    },
};

/// Streams opened: each costs an attestation and a first message. As many as one or all may have come at once when
/// they start or the agent did.
pub const STREAMS: Rates = Rates {
    one: Rate {
        per_second: 100.0,
        at_once: 1_024.0,
    },
    all: Rate {
        per_second: 2_000.0,
        at_once: 8_192.0,
    },
};

/// Most workloads remembered; one that rested for the time of a burst need not be.
const MAX_REMEMBERED: usize = 8_192;

/// Who pays for a token: a pod, whatever its processes, or else a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// A pod, by its uid.
    Pod(String),
    /// A process.
    Process(i32),
}

/// Whose limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The workload's own.
    One,
    /// The node's.
    All,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            left: rate.at_once,
            at: now,
        }
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * rate.per_second).min(rate.at_once);
        self.at = now;
    }

    fn rested(&self, rate: Rate, now: Instant) -> bool {
        now.saturating_duration_since(self.at).as_secs_f64() * rate.per_second >= rate.at_once
    }
}

/// What everybody has left.
#[derive(Debug)]
pub struct Limits<K> {
    rates: Rates,
    all: Bucket,
    each: BTreeMap<K, Bucket>,
}

impl<K: Ord> Limits<K> {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(rates: Rates, now: Instant) -> Self {
        Self {
            rates,
            all: Bucket::full(rates.all, now),
            each: BTreeMap::new(),
        }
    }

    /// Takes one request of `payer`.
    ///
    /// # Errors
    /// The [`Limit`] that forbids it; nothing is taken then.
    pub fn take(&mut self, payer: K, now: Instant) -> Result<(), Limit> {
        let rate = self.rates.one;
        self.all.refill(self.rates.all, now);
        if self.each.len() >= MAX_REMEMBERED && !self.each.contains_key(&payer) {
            self.each.retain(|_, bucket| !bucket.rested(rate, now));
            if self.each.len() >= MAX_REMEMBERED {
                return Err(Limit::All);
            }
        }
        let one = self.each.entry(payer).or_insert_with(|| Bucket::full(rate, now));
        one.refill(rate, now);
        if one.left < 1.0 {
            return Err(Limit::One);
        }
        if self.all.left < 1.0 {
            return Err(Limit::All);
        }
        one.left -= 1.0;
        self.all.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn taken(limits: &mut Limits<Payer>, payer: i32, now: Instant) -> u32 {
        let mut count = 0;
        while limits.take(Payer::Process(payer), now).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn one_workload_gets_its_burst_then_its_rate_and_leaves_others_theirs() {
        let start = Instant::now();
        let mut limits = Limits::new(TOKENS, start);
        assert_eq!(taken(&mut limits, 1, start), 200);
        assert_eq!(limits.take(Payer::Process(1), start), Err(Limit::One));
        assert_eq!(taken(&mut limits, 2, start), 200);
        let later = start + Duration::from_secs(1);
        assert_eq!(taken(&mut limits, 1, later), 100);
        let rested = start + Duration::from_secs(3_600);
        assert_eq!(taken(&mut limits, 1, rested), 200);
    }

    #[test]
    fn all_together_get_no_more_than_the_nodes_rate() {
        let start = Instant::now();
        let mut limits = Limits::new(TOKENS, start);
        let sum: u32 = (0..20).map(|payer| taken(&mut limits, payer, start)).sum();
        assert_eq!(sum, 2_000);
        assert_eq!(limits.take(Payer::Process(99), start), Err(Limit::All));
    }

    #[test]
    fn names_are_remembered_no_longer_than_they_matter() {
        let start = Instant::now();
        let mut limits = Limits::new(TOKENS, start);
        let more = i32::try_from(MAX_REMEMBERED).unwrap() + 50;
        for payer in 0..more {
            let now = start + Duration::from_millis(10) * payer.unsigned_abs();
            assert_eq!(limits.take(Payer::Process(payer), now), Ok(()));
            assert!(limits.each.len() <= MAX_REMEMBERED);
        }
    }
}
