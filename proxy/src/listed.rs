//! Things that are open and may have to be told something: listed while they live, found by whoever has to tell them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A list larger than this gives memory back when most of it is gone.
const SMALL: usize = 1_024;

/// All of them. Clones share them.
pub struct List<T>(Arc<Mutex<Entries<T>>>);

struct Entries<T> {
    next: u64,
    all: HashMap<u64, Weak<T>>,
}

/// A place in a list, given back when dropped: part of what is listed.
pub struct Listed<T> {
    list: List<T>,
    number: u64,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        let entries = Entries {
            next: 0,
            all: HashMap::new(),
        };
        Self(Arc::new(Mutex::new(entries)))
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for List<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "List({})", self.lock().all.len())
    }
}

impl<T> std::fmt::Debug for Listed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listed({})", self.number)
    }
}

impl<T> List<T> {
    /// One more, made with its place in the list.
    pub fn enter(&self, make: impl FnOnce(Listed<T>) -> T) -> Arc<T> {
        Arc::new_cyclic(|weak| {
            let mut entries = self.lock();
            let number = entries.next;
            entries.next += 1;
            entries.all.insert(number, Weak::clone(weak));
            drop(entries);
            make(Listed {
                list: self.clone(),
                number,
            })
        })
    }

    /// Those that live. What is entered while this is used may be missing.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        // Gathered first: what is dropped gives back its place, which must not happen under the lock.
        self.lock().all.values().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Listed<T> {
    fn drop(&mut self) {
        let mut entries = self.list.lock();
        entries.all.remove(&self.number);
        if entries.all.capacity() > SMALL && entries.all.len() < entries.all.capacity() / 8 {
            entries.all.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(u8, Listed<Thing>);

    #[test]
    fn those_that_live_are_listed_and_the_others_leave_nothing() {
        let list = List::default();
        let first = list.enter(|place| Thing(1, place));
        let second = list.enter(|place| Thing(2, place));
        let mut found: Vec<u8> = list.all().iter().map(|thing| thing.0).collect();
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
        assert_ne!(first.1.number, second.1.number);
        drop(first);
        assert_eq!(list.all().iter().map(|thing| thing.0).collect::<Vec<_>>(), [2]);
        drop(second);
        assert!(list.all().is_empty() && list.lock().all.is_empty());
    }
}
