//! How often the API was asked what.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A snapshot of the counters. Requests are counted when they arrive, before faults and before authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    requests: BTreeMap<(&'static str, &'static str), u64>,
}

impl Counts {
    /// Requests with this verb (`get`, `list`, `watch`, `create`, …) on this resource (`pods`,
    /// `serviceaccounts/token`, `jwks`, …). What the server does not serve counts as resource `other`.
    pub fn get(&self, verb: &str, resource: &str) -> u64 {
        let same = |&(v, r): &(&str, &str)| v == verb && r == resource;
        self.requests
            .iter()
            .filter(|(key, _)| same(key))
            .map(|(_, count)| count)
            .sum()
    }

    /// TokenReviews asked for.
    pub fn token_reviews(&self) -> u64 {
        self.get("create", "tokenreviews")
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Every counter that is not zero, as (verb, resource, requests).
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.requests
            .iter()
            .map(|(&(verb, resource), &count)| (verb, resource, count))
    }
}

/// The counters. Their labels come from tables, so their number is bounded.
#[derive(Default)]
pub(crate) struct Counters(Mutex<Counts>);

impl Counters {
    pub(crate) fn count(&self, verb: &'static str, resource: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = counts.requests.entry((verb, resource)).or_default();
        *counter = counter.saturating_add(1);
    }

    pub(crate) fn snapshot(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
