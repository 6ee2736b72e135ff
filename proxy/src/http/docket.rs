//! The requests of one connection that are under way, each with what is needed to judge it again; and the connection's
//! own sentence, should it have to end.
//!
//! Whoever withdraws a permit tells the case, and wakes who waits for it. A request that does not end by that (its
//! client takes nothing, say) ends with its connection, within two ticks of [`crate::vigil`].

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use signet_certs::UnixTime;

use super::flow::Flow;
use super::judge::Identity;
use super::remembered::Remembered;
use crate::access_log::Reason;
use crate::enforced::Enforced;

/// Cases that are kept for the next requests of a connection.
const SPARE: usize = 4;
/// After so many ticks a request that was told to end, and did not, ends with its connection.
const PATIENCE: u8 = 2;

/// Why something that was permitted goes on no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    /// For records and metrics.
    pub(super) reason: Reason,
    /// A sentence for people.
    pub(super) detail: String,
    /// The policy that decided, if one did.
    pub(super) policy: Option<String>,
}

/// The requests of a connection that are under way.
#[derive(Debug, Default)]
pub(super) struct Docket {
    cases: Mutex<Cases>,
    sentence: OnceLock<Sentence>,
    over: AtomicBool,
    age: AtomicU8,
    driver: AtomicWaker,
}

#[derive(Debug, Default)]
struct Cases {
    open: Vec<Arc<Case>>,
    spare: Vec<Arc<Case>>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It should take no more requests.
    Ending,
    /// It ends now.
    Over,
}

impl Docket {
    /// A request has come.
    pub(super) fn open(&self, flow: &Arc<Flow>) -> Arc<Case> {
        let mut cases = self.lock();
        let case = cases.spare.pop().unwrap_or_default();
        case.matter().flow = Some(Arc::clone(flow));
        cases.open.push(Arc::clone(&case));
        drop(cases);
        if let Some(sentence) = self.sentence.get() {
            case.end(sentence.clone());
        }
        case
    }

    /// It is done.
    pub(super) fn close(&self, mut case: Arc<Case>) {
        let mut cases = self.lock();
        if let Some(at) = cases.open.iter().position(|one| Arc::ptr_eq(one, &case)) {
            cases.open.swap_remove(at);
        }
        // One that somebody still looks at is not used again.
        if cases.spare.len() < SPARE
            && let Some(unused) = Arc::get_mut(&mut case)
        {
            unused.clear();
            cases.spare.push(case);
        }
    }

    /// Gives back memory that the next request would use: there will be none for a while.
    pub(super) fn rest(&self) {
        self.lock().spare = Vec::new();
    }

    /// The requests under way.
    pub(super) fn under_way(&self) -> Vec<Arc<Case>> {
        self.lock().open.clone()
    }

    /// Something that is under way has to end: the connection's driver is woken.
    pub(super) fn wake(&self) {
        self.driver.wake();
    }

    /// The connection ends, and all that is under way on it. False if that was said before.
    pub(super) fn end(&self, sentence: &Sentence) -> bool {
        if self.sentence.set(sentence.clone()).is_err() {
            return false;
        }
        for case in self.under_way() {
            case.end(sentence.clone());
        }
        self.driver.wake();
        true
    }

    /// The connection ends at once: there is nothing to say on it any more.
    pub(super) fn abandon(&self) {
        self.over.store(true, Ordering::Release);
        self.driver.wake();
    }

    /// Some time has passed: what was told to end and did not, ends with its connection.
    pub(super) fn tick(&self) {
        let waits = self.sentence.get().is_some() || self.lock().open.iter().any(|case| case.is_ended());
        if !waits {
            self.age.store(0, Ordering::Relaxed);
        } else if self.age.fetch_add(1, Ordering::Relaxed) + 1 >= PATIENCE {
            self.abandon();
        }
    }

    /// The connection's driver is woken when there is something to do. To be said before it looks.
    pub(super) fn is_driven(&self, cx: &Context<'_>) {
        self.driver.register(cx.waker());
    }

    /// Waits until the connection must not go on. For who waits for nothing else but its first bytes.
    pub(super) async fn ended(&self) {
        std::future::poll_fn(|cx| {
            self.is_driven(cx);
            self.fate().map_or(Poll::Pending, |_| Poll::Ready(()))
        })
        .await;
    }

    /// What becomes of the connection, if it must not go on.
    pub(super) fn fate(&self) -> Option<Fate> {
        if self.over.load(Ordering::Acquire) {
            return Some(Fate::Over);
        }
        self.sentence.get().map(|_| Fate::Ending)
    }

    fn lock(&self) -> MutexGuard<'_, Cases> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request under way.
#[derive(Default)]
pub(super) struct Case {
    matter: Mutex<Matter>,
    ended: AtomicBool,
    waker: AtomicWaker,
}

/// What is needed to judge a request again.
#[derive(Default)]
pub(super) struct Matter {
    pub(super) head: Remembered,
    /// What it was permitted by; nothing while it is judged for the first time.
    pub(super) by: Option<Arc<Enforced>>,
    /// The external authorizers that let it pass.
    pub(super) granted: Vec<String>,
    /// Whose token it carries, if it carries one.
    pub(super) identity: Option<Identity>,
    /// The last second in which that token counts, if it has an end.
    pub(super) ends: Option<UnixTime>,
    sentence: Option<Sentence>,
    flow: Option<Arc<Flow>>,
}

impl Matter {
    /// Whether an external authorizer let it pass.
    pub(super) fn is_granted(&self, provider: &str) -> bool {
        self.granted.iter().any(|granted| granted == provider)
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Case(ended: {})", self.is_ended())
    }
}

impl Case {
    /// What is needed to judge it again.
    pub(super) fn matter(&self) -> MutexGuard<'_, Matter> {
        self.matter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It ends, for this reason. The first one counts.
    pub(super) fn end(&self, sentence: Sentence) {
        let mut matter = self.matter();
        matter.sentence.get_or_insert(sentence);
        self.ended.store(true, Ordering::Release);
        if let Some(flow) = &matter.flow {
            flow.withdraw();
        }
        drop(matter);
        self.waker.wake();
    }

    /// Whether it has to end.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Why it has to end, if it has.
    pub(super) fn sentence(&self) -> Option<Sentence> {
        if !self.is_ended() {
            return None;
        }
        self.matter().sentence.clone()
    }

    /// Ready when it has to end. For who carries the bytes after an upgrade; others are woken with their stream or
    /// their connection.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_ended() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn clear(&mut self) {
        let matter = self.matter.get_mut().unwrap_or_else(PoisonError::into_inner);
        matter.head.forget();
        matter.by = None;
        matter.granted = Vec::new();
        (matter.identity, matter.ends, matter.sentence) = (None, None, None);
        matter.flow = None;
        *self.ended.get_mut() = false;
        self.waker.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::Policy;

    fn sentence(detail: &str) -> Sentence {
        Sentence {
            reason: Reason::Policy(Policy::Withdrawn),
            detail: detail.into(),
            policy: None,
        }
    }

    fn open(docket: &Docket) -> Arc<Case> {
        docket.open(&Arc::new(Flow::new(false)))
    }

    #[test]
    fn cases_are_used_again_unless_somebody_still_holds_them() {
        let docket = Docket::default();
        let first = open(&docket);
        let place = Arc::as_ptr(&first);
        docket.close(first);
        let again = open(&docket);
        assert_eq!(Arc::as_ptr(&again), place);
        let held = Arc::clone(&again);
        held.end(sentence("held"));
        docket.close(again);
        let other = open(&docket);
        assert!(!Arc::ptr_eq(&other, &held) && !other.is_ended());
        let many: Vec<_> = (0..2 * SPARE).map(|_| open(&docket)).collect();
        assert_eq!(docket.under_way().len(), 2 * SPARE + 1);
        many.into_iter().for_each(|case| docket.close(case));
        assert_eq!(docket.lock().spare.len(), SPARE);
        docket.rest();
        assert_eq!(docket.lock().spare.capacity(), 0);
    }

    #[test]
    fn the_end_of_a_connection_is_the_end_of_its_requests_those_to_come_included() {
        let docket = Docket::default();
        let before = open(&docket);
        assert_eq!(docket.fate(), None);
        assert!(docket.end(&sentence("first")));
        assert!(!docket.end(&sentence("second")));
        assert_eq!(before.sentence(), Some(sentence("first")));
        assert_eq!(open(&docket).sentence(), Some(sentence("first")));
        assert_eq!(docket.fate(), Some(Fate::Ending));
        docket.tick();
        assert_eq!(docket.fate(), Some(Fate::Ending));
        docket.tick();
        assert_eq!(docket.fate(), Some(Fate::Over));
    }

    #[test]
    fn a_request_that_does_not_end_when_told_ends_with_its_connection() {
        let docket = Docket::default();
        let (ends, stays) = (open(&docket), open(&docket));
        ends.end(sentence("one"));
        docket.tick();
        docket.close(ends);
        docket.tick();
        docket.tick();
        assert_eq!(docket.fate(), None, "it ended in time");
        stays.end(sentence("the other"));
        docket.tick();
        assert_eq!(docket.fate(), None);
        docket.tick();
        assert_eq!(docket.fate(), Some(Fate::Over));
    }
}
