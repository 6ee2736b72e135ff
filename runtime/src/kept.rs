//! Documents from elsewhere, kept fresh: fetched in the background, again when due, again after a failure, and
//! at once when somebody misses something in them, but not too often. The last good one stays.
//!
//! When to fetch is decided by [`schedule`], a pure machine; here are its waits and its IO.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backoff::random_share;
use crate::clock::{Clock, sleep_until};
use crate::fetch::{FetchError, Fetcher};
use crate::shutdown::Tasks;

pub mod schedule;

use schedule::{Action, Event, Plan, State, step};

/// Most documents that are asked for, one after another, until the one that is wanted.
const MAX_STEPS: usize = 2;
/// Those who miss something and wait, per document; more are told at once that nothing newer will come.
const MAX_WAITING: usize = 256;

/// Reads the bytes that came, in the step of this number, from 0.
pub type Reader<T> = Box<dyn Fn(usize, &[u8]) -> Read<T> + Send + Sync>;
/// What is kept, by name and patience.
type Live<T> = HashMap<(String, Duration), Weak<Kept<T>>>;

/// What is kept, and how it is read.
pub struct Document<T> {
    /// What it is called in logs. Of the same name and patience, one is kept.
    pub name: String,
    /// Where it is, or where it says where it is.
    pub address: String,
    /// How long a fetch may take, all steps together.
    pub patience: Duration,
    /// Reads what came.
    pub read: Reader<T>,
}

/// What came.
pub enum Read<T> {
    /// The document.
    Value(T),
    /// It is under this address.
    Elsewhere(String),
    /// Something that cannot be used, and why.
    Fault(String),
}

/// What became of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A document that says something new.
    Changed,
    /// The same as before.
    Unchanged,
    /// It could not be fetched, by the word of [`FetchError::as_str`].
    Failed(&'static str),
    /// It came and cannot be used.
    Unusable,
    /// Somebody misses something, too soon after the last fetch.
    TooSoon,
}

impl Outcome {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Failed(why) => why,
            Self::Unusable => "unusable",
            Self::TooSoon => "too_soon",
        }
    }
}

/// Why the last fetch failed; nothing if it did not.
type Fault = Option<Arc<str>>;

/// A document that is kept as long as this lives.
#[derive(Debug)]
pub struct Kept<T> {
    value: watch::Receiver<(Option<Arc<T>>, Fault)>,
    asks: mpsc::Sender<oneshot::Sender<()>>,
    _stop: DropGuard,
}

impl<T> Kept<T> {
    /// The last good one; nothing before the first.
    #[must_use]
    pub fn current(&self) -> Option<Arc<T>> {
        self.value.borrow().0.clone()
    }

    /// Why the last fetch failed, if it did.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.value.borrow().1.clone()
    }

    /// Waits until the first fetch has succeeded or failed.
    pub async fn settled(&self) {
        let mut value = self.value.clone();
        // The other side is gone only when nobody keeps the document any more.
        let _ended = value
            .wait_for(|(value, fault)| value.is_some() || fault.is_some())
            .await;
    }

    /// Asks for a newer one than `missed`, and waits for the answer. Whether there is one now.
    pub async fn newer(&self, missed: &Arc<T>, patience: Duration) -> bool {
        let is_newer = || self.current().is_some_and(|now| !Arc::ptr_eq(&now, missed));
        let (told, answered) = oneshot::channel();
        if !is_newer() && self.asks.try_send(told).is_ok() {
            // Both ends of the wait, an answer and none in time, are looked at in what is there now.
            let _ended = tokio::time::timeout(patience, answered).await;
        }
        is_newer()
    }
}

/// What came of every fetch, for metrics.
pub type Observer = Arc<dyn Fn(Outcome) + Send + Sync>;

/// Keeps documents, each once however many want it.
pub struct Keeper<T> {
    fetcher: Arc<Fetcher>,
    plan: Plan,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    observer: Observer,
    live: Mutex<Live<T>>,
}

impl<T: PartialEq + Send + Sync + 'static> Keeper<T> {
    /// A keeper whose fetches are tasks of `tasks`.
    #[must_use]
    pub fn new(
        fetcher: Fetcher,
        plan: Plan,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
        observer: Observer,
    ) -> Self {
        Self {
            fetcher: Arc::new(fetcher),
            plan,
            clock,
            tasks,
            observer,
            live: Mutex::default(),
        }
    }

    /// Keeps a document, until the last one who wants it lets go. Its first fetch begins now.
    pub fn keep(&self, document: Document<T>) -> Arc<Kept<T>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, kept| kept.strong_count() > 0);
        let key = (document.name.clone(), document.patience);
        if let Some(kept) = live.get(&key).and_then(Weak::upgrade) {
            return kept;
        }
        let (shelf, value) = watch::channel((None, None));
        let (asks, asked) = mpsc::channel(MAX_WAITING);
        let stop = CancellationToken::new();
        let kept = Arc::new(Kept {
            value,
            asks,
            _stop: stop.clone().drop_guard(),
        });
        live.insert(key, Arc::downgrade(&kept));
        let driver = Driver {
            fetcher: Arc::clone(&self.fetcher),
            plan: self.plan,
            clock: Arc::clone(&self.clock),
            observer: Arc::clone(&self.observer),
            document,
            shelf,
            asked,
        };
        let until_stopped = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = driver.run() => {}
            }
        };
        self.tasks.spawn_until_shutdown(until_stopped);
        kept
    }
}

struct Driver<T> {
    fetcher: Arc<Fetcher>,
    plan: Plan,
    clock: Arc<dyn Clock>,
    observer: Observer,
    document: Document<T>,
    shelf: watch::Sender<(Option<Arc<T>>, Fault)>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
}

impl<T: PartialEq> Driver<T> {
    async fn run(mut self) {
        let mut state = State::new(self.clock.now());
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        let mut event = Event::Woke;
        loop {
            let (next, action) = step(&self.plan, state, event, self.clock.now());
            state = next;
            event = match action {
                Action::Fetch => {
                    let fetched = self.fetch().await;
                    // Whoever asked meanwhile has the answer, too.
                    while let Ok(one) = self.asked.try_recv() {
                        waiting.push(one);
                    }
                    waiting.clear();
                    let share = random_share();
                    if fetched {
                        Event::Fetched(share)
                    } else {
                        Event::Failed(share)
                    }
                }
                Action::Refuse => {
                    (self.observer)(Outcome::TooSoon);
                    waiting.clear();
                    Event::Woke
                }
                Action::WaitUntil(when) => tokio::select! {
                    () = sleep_until(self.clock.as_ref(), when) => Event::Woke,
                    Some(one) = self.asked.recv() => {
                        waiting.push(one);
                        Event::Asked
                    }
                },
            };
        }
    }

    /// Fetches once and puts what came on the shelf. Whether it was good.
    async fn fetch(&self) -> bool {
        let patience = self.document.patience;
        let got = tokio::time::timeout(patience, self.follow()).await;
        let got = got.unwrap_or_else(|_| Err(FetchError::Deadline(patience).into()));
        let before = self.shelf.borrow().clone();
        match got {
            Ok(value) => {
                let same = before.0.filter(|old| **old == value);
                let outcome = if same.is_some() {
                    Outcome::Unchanged
                } else {
                    Outcome::Changed
                };
                if before.1.is_some() || outcome == Outcome::Changed {
                    tracing::info!(document = %self.document.name, outcome = outcome.as_str(), "document fetched");
                }
                self.shelf
                    .send_replace((Some(same.unwrap_or_else(|| Arc::new(value))), None));
                // Who is told by it finds the new one on the shelf.
                (self.observer)(outcome);
                true
            }
            Err((outcome, fault)) => {
                if before.1.as_deref() != Some(fault.as_str()) {
                    tracing::warn!(
                        document = %self.document.name,
                        reason = outcome.as_str(),
                        error = %fault,
                        last_good = before.0.is_some(),
                        "document cannot be fetched"
                    );
                }
                (self.observer)(outcome);
                self.shelf.send_replace((before.0, Some(fault.into())));
                false
            }
        }
    }

    async fn follow(&self) -> Result<T, (Outcome, String)> {
        let mut address = self.document.address.clone();
        for number in 0..MAX_STEPS {
            let got = self.fetcher.get(&address, self.document.patience).await;
            let body = got.map_err(<(Outcome, String)>::from)?;
            match (self.document.read)(number, &body) {
                Read::Value(value) => return Ok(value),
                Read::Elsewhere(next) => address = next,
                Read::Fault(fault) => return Err((Outcome::Unusable, fault)),
            }
        }
        Err((Outcome::Unusable, "it leads on and on".to_owned()))
    }
}

impl From<FetchError> for (Outcome, String) {
    fn from(error: FetchError) -> Self {
        (Outcome::Failed(error.as_str()), error.to_string())
    }
}

#[cfg(test)]
mod tests;
