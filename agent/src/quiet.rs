//! A bound on how often the same thing is logged. What is not logged is still counted.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The same thing is logged this often at most.
const EVERY: Duration = Duration::from_secs(60);
/// Most things remembered; beyond, all are forgotten at once.
const MAX_REMEMBERED: usize = 256;

/// Remembers what was logged lately.
#[derive(Debug)]
pub struct Quiet<K>(BTreeMap<K, Instant>);

impl<K> Default for Quiet<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Quiet<K> {
    /// Whether `thing` may be logged at `now`; if so it is remembered.
    pub fn may_log(&mut self, thing: K, now: Instant) -> bool {
        if self
            .0
            .get(&thing)
            .is_some_and(|last| now.duration_since(*last) < EVERY)
        {
            return false;
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        self.0.insert(thing, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_is_logged_once_a_minute_and_others_at_once() {
        let mut quiet = Quiet::default();
        let start = Instant::now();
        assert!(quiet.may_log("a", start));
        assert!(!quiet.may_log("a", start));
        assert!(quiet.may_log("b", start));
        assert!(quiet.may_log("a", start + EVERY));
    }
}
