//! Counting what is taken, with a bound for all and one for each.

use std::collections::BTreeMap;

/// How much is taken, in all and by each.
#[derive(Debug)]
pub(crate) struct Counts<K> {
    all: usize,
    each: BTreeMap<K, usize>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self {
            all: 0,
            each: BTreeMap::new(),
        }
    }
}

impl<K: Ord> Counts<K> {
    /// Takes so much, unless that is more than there may be in all or of one.
    pub(crate) fn add(&mut self, key: K, amount: usize, bounds: [usize; 2]) -> bool {
        let room = self.met(&key, amount, bounds).is_none();
        if room {
            self.all += amount;
            *self.each.entry(key).or_default() += amount;
        }
        room
    }

    /// The bound that so much more would break; of both, that of one.
    pub(crate) fn met(&self, key: &K, amount: usize, [most, most_of_one]: [usize; 2]) -> Option<usize> {
        let of_one = self.each.get(key).copied().unwrap_or_default();
        if of_one.saturating_add(amount) > most_of_one {
            return Some(most_of_one);
        }
        (self.all.saturating_add(amount) > most).then_some(most)
    }

    pub(crate) fn remove(&mut self, key: &K, amount: usize) {
        self.all = self.all.saturating_sub(amount);
        if let Some(count) = self.each.get_mut(key) {
            *count = count.saturating_sub(amount);
            if *count == 0 {
                self.each.remove(key);
            }
        }
    }

    /// How much is taken in all.
    pub(crate) fn all(&self) -> usize {
        self.all
    }
}
