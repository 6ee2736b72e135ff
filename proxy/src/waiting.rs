//! Bytes that came and cannot be acted upon yet, because the rest of a hello, a handshake or a head is missing: one
//! budget for all connections of the process, from which others have to make room.
//!
//! What comes whole, or nearly so, never meets it: a little is free for every connection, and bounded with their
//! number. Beyond that an honest client has something waiting for as long as its packets are apart: so whoever has
//! kept the others waiting for long goes first, and only among those who just came the one that has most.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

/// So much is free: hellos and most handshakes are no longer.
const FREE: usize = 2 * 1024;
/// What is beyond that counts in steps, so that a byte now and then costs nothing.
const STEP: usize = 1024;
/// Packets of one message are not further apart than this, as a rule.
const LONG: Duration = Duration::from_secs(1);

/// The budget. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    next: u64,
    bytes: usize,
    /// By size; the oldest of one size last, as the next to go.
    held: BTreeMap<Key, (Arc<Word>, Age)>,
    /// The same by when they first had more than is free.
    ages: BTreeMap<Age, Key>,
}

type Key = (usize, Reverse<u64>);
/// When it began, and a number, since several may begin at once.
type Age = (Instant, u64);

/// By which a connection learns that it has to go.
#[derive(Debug, Default)]
struct Word {
    given: AtomicBool,
    waker: AtomicWaker,
}

/// It has to make room: more is waiting than may, and nobody has more waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it had most of what waits to be read, of which there was more than limits.waiting_bytes")]
pub struct Crowded;

/// What one connection has waiting, given back when dropped.
#[derive(Debug)]
pub struct Held {
    waiting: Waiting,
    most: usize,
    key: Key,
    /// Both while it has more than is free.
    word: Option<Arc<Word>>,
    age: Option<Age>,
}

impl Waiting {
    /// For a connection that has nothing waiting, where all may have `most` bytes together.
    #[must_use]
    pub fn begin(&self, most: usize) -> Held {
        Held {
            waiting: self.clone(),
            most,
            key: (0, Reverse(0)),
            word: None,
            age: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn enter(&mut self, bytes: usize, word: &Arc<Word>, age: Age) -> Key {
        let key = (bytes, Reverse(self.number()));
        self.held.insert(key, (Arc::clone(word), age));
        self.ages.insert(age, key);
        self.bytes += bytes;
        key
    }

    /// Who has to go is no longer in it.
    fn leave(&mut self, key: Key) -> Option<Arc<Word>> {
        let (word, age) = self.held.remove(&key)?;
        self.ages.remove(&age);
        self.bytes -= key.0;
        Some(word)
    }

    /// Those who have to go for the others to have no more than `most`.
    fn make_room(&mut self, most: usize, now: Instant) -> Vec<Arc<Word>> {
        let mut gone = Vec::new();
        while self.bytes > most {
            let oldest = self.ages.first_key_value();
            let late = oldest.filter(|((since, _), _)| now.duration_since(*since) >= LONG);
            let largest = || self.held.last_key_value().map(|(key, _)| *key);
            let Some(word) = late
                .map(|(_, key)| *key)
                .or_else(largest)
                .and_then(|key| self.leave(key))
            else {
                break;
            };
            word.given.store(true, Ordering::Release);
            gone.push(word);
        }
        gone
    }
}

impl Held {
    /// So much is waiting now, in place of what was.
    ///
    /// # Errors
    /// [`Crowded`], now and from then on.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Crowded> {
        self.still()?;
        let bytes = if bytes <= FREE {
            0
        } else {
            bytes.next_multiple_of(STEP)
        };
        if bytes == self.key.0 {
            return Ok(());
        }
        let mut book = self.waiting.lock();
        book.leave(self.key);
        self.key.0 = bytes;
        if bytes == 0 {
            (self.word, self.age) = (None, None);
            return Ok(());
        }
        let now = Instant::now();
        let word = self.word.get_or_insert_default();
        let age = *self.age.get_or_insert_with(|| (now, book.number()));
        self.key = book.enter(bytes, word, age);
        let gone = book.make_room(self.most, now);
        drop(book);
        for word in gone {
            word.waker.wake();
        }
        self.still()
    }

    /// Whether it has to make room; whoever asks is woken when it has to.
    pub fn poll_crowded(&self, cx: &Context<'_>) -> Poll<Crowded> {
        if let Some(word) = &self.word {
            word.waker.register(cx.waker());
        }
        match self.still() {
            Ok(()) => Poll::Pending,
            Err(crowded) => Poll::Ready(crowded),
        }
    }

    /// Waits until it has to make room.
    pub async fn crowded(&self) -> Crowded {
        std::future::poll_fn(|cx| self.poll_crowded(cx)).await
    }

    fn still(&self) -> Result<(), Crowded> {
        let given = |word: &Arc<Word>| word.given.load(Ordering::Acquire);
        if self.word.as_ref().is_some_and(given) {
            Err(Crowded)
        } else {
            Ok(())
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.key.0 > 0 {
            self.waiting.lock().leave(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn held(waiting: &Waiting) -> usize {
        waiting.lock().bytes
    }

    #[test]
    fn what_is_small_costs_nothing_and_counts_for_nothing() {
        let waiting = Waiting::default();
        let mut all: Vec<Held> = (0..1000).map(|_| waiting.begin(64 * KIB)).collect();
        for one in &mut all {
            one.hold(100).unwrap();
            one.hold(FREE).unwrap();
        }
        assert_eq!((held(&waiting), waiting.lock().next), (0, 0));
    }

    #[test]
    fn who_has_most_waiting_goes_first_and_of_equals_the_oldest() {
        let waiting = Waiting::default();
        let mut all: Vec<Held> = (0..4).map(|_| waiting.begin(64 * KIB)).collect();
        for (one, bytes) in all.iter_mut().zip([10, 16, 16, 16]) {
            one.hold(bytes * KIB).unwrap();
        }
        let mut honest = waiting.begin(64 * KIB);
        honest.hold(7 * KIB).unwrap();
        assert_eq!(all[1].hold(16 * KIB), Err(Crowded), "the oldest of the largest");
        assert_eq!(all[1].hold(2), Err(Crowded), "who has to go does not come back");
        honest.hold(16 * KIB).unwrap();
        assert_eq!(held(&waiting), (10 + 16 + 16 + 16) * KIB);
        assert!(all[0].still().is_ok() && all[2].still().is_ok() && all[3].still().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_long_goes_before_who_just_came_with_more() {
        let waiting = Waiting::default();
        let mut strangers: Vec<Held> = (0..16).map(|_| waiting.begin(48 * KIB)).collect();
        for (second, one) in strangers.iter_mut().enumerate() {
            one.hold(3 * KIB).unwrap();
            if second == 0 {
                tokio::time::advance(LONG).await;
            }
        }
        let mut honest = waiting.begin(48 * KIB);
        honest.hold(3 * KIB).unwrap();
        assert!(strangers[0].still().is_err(), "for as long as that");
        assert!(strangers[1..].iter().all(|one| one.still().is_ok()));
        tokio::time::advance(LONG).await;
        let mut later = waiting.begin(48 * KIB);
        later.hold(9 * KIB).unwrap();
        let left = strangers.iter().filter(|one| one.still().is_ok()).count();
        assert_eq!(left, 12, "nine make room, as they came");
        assert!(honest.still().is_ok() && later.still().is_ok());
        drop((strangers, honest, later));
        let book = waiting.lock();
        assert_eq!((book.bytes, book.held.len(), book.ages.len()), (0, 0, 0));
    }

    #[test]
    fn who_grows_beyond_all_others_goes_at_once() {
        let waiting = Waiting::default();
        let (mut small, mut large) = (waiting.begin(64 * KIB), waiting.begin(64 * KIB));
        small.hold(20 * KIB).unwrap();
        large.hold(40 * KIB).unwrap();
        assert_eq!(large.hold(50 * KIB), Err(Crowded));
        assert!(small.still().is_ok());
        drop(large);
        assert_eq!(held(&waiting), 20 * KIB);
    }

    #[test]
    fn what_is_acted_upon_or_gone_is_given_back() {
        let waiting = Waiting::default();
        let (mut one, mut other) = (waiting.begin(64 * KIB), waiting.begin(64 * KIB));
        for round in 1..100 {
            one.hold(round * 601).unwrap();
            other.hold(3 * KIB).unwrap();
            one.hold(0).unwrap();
        }
        assert_eq!(held(&waiting), 3 * KIB);
        drop((one, other));
        let book = waiting.lock();
        assert!(book.bytes == 0 && book.held.is_empty());
    }

    #[tokio::test]
    async fn who_has_to_go_is_woken() {
        let waiting = Waiting::default();
        let mut silent = waiting.begin(64 * KIB);
        silent.hold(60 * KIB).unwrap();
        let gone = tokio::spawn(async move { silent.crowded().await });
        tokio::task::yield_now().await;
        let mut other = waiting.begin(64 * KIB);
        other.hold(5 * KIB).unwrap();
        assert_eq!(gone.await.unwrap(), Crowded);
        assert_eq!(held(&waiting), 5 * KIB);
    }
}
