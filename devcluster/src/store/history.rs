//! The recent past: a ring of changes, bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use crate::kinds::Kind;

/// Most bytes of objects the ring keeps alive, counted as JSON.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Most changes handed to one watch at a time, so that no watch holds the store's lock for long.
const BATCH: usize = 256;

/// One write: the object before it and after it. A removal has no `after`, and its `before` carries the
/// resource version of the removal.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: String,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// The answer to "what changed since".
pub(crate) enum Past {
    /// The changes, oldest first; empty when there are none.
    Changes(Vec<Change>),
    /// That far back nothing is known any more; the number is the oldest version that can be asked for.
    Forgotten(u64),
}

/// The ring.
pub(crate) struct History {
    changes: VecDeque<(Change, usize)>,
    capacity: usize,
    bytes: usize,
    /// The newest version that is no longer in the ring.
    forgotten: u64,
}

impl History {
    pub(crate) fn new(capacity: usize) -> Self {
        History {
            changes: VecDeque::new(),
            capacity: capacity.max(1),
            bytes: 0,
            forgotten: 1,
        }
    }

    /// Appends a change of `size` bytes and lets go of the oldest where a bound is passed.
    pub(crate) fn push(&mut self, change: Change, size: usize) {
        self.changes.push_back((change, size));
        self.bytes = self.bytes.saturating_add(size);
        while self.changes.len() > self.capacity || (self.bytes > MAX_BYTES && self.changes.len() > 1) {
            let Some((change, size)) = self.changes.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(size);
            self.forgotten = change.revision;
        }
    }

    /// At most a batch of the changes after `revision`.
    pub(crate) fn since(&self, revision: u64) -> Past {
        if revision < self.forgotten {
            return Past::Forgotten(self.forgotten);
        }
        let start = self
            .changes
            .partition_point(|(change, _)| change.revision <= revision);
        let changes = self
            .changes
            .range(start..)
            .take(BATCH)
            .map(|(change, _)| change.clone());
        Past::Changes(changes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    fn change(revision: u64) -> Change {
        let kind = kinds::by_plural("", "pods").unwrap();
        Change {
            revision,
            kind,
            namespace: String::new(),
            before: None,
            after: None,
        }
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_says_so() {
        let mut history = History::new(2);
        (2..=5).for_each(|revision| history.push(change(revision), 1));
        let Past::Changes(changes) = history.since(3) else {
            panic!("3 is still known")
        };
        assert_eq!(changes.iter().map(|c| c.revision).collect::<Vec<_>>(), [4, 5]);
        assert!(matches!(history.since(2), Past::Forgotten(3)));
        assert!(matches!(history.since(9), Past::Changes(none) if none.is_empty()));
    }

    #[test]
    fn the_ring_is_bounded_in_bytes() {
        let mut history = History::new(1000);
        (2..=5).for_each(|revision| history.push(change(revision), MAX_BYTES / 2));
        assert!(history.changes.len() <= 2);
    }
}
