//! Counting places, each with a bound.

use std::collections::BTreeMap;

/// How many there are of each.
#[derive(Debug)]
pub(crate) struct Counts<K>(BTreeMap<K, usize>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Counts<K> {
    /// Adds one, unless there are as many as there may be.
    pub(crate) fn add(&mut self, key: K, most: usize) -> bool {
        let count = self.0.entry(key).or_default();
        let room = *count < most;
        *count += usize::from(room);
        room
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }
}
