//! One request on its way: what its body, the body of its answer, and those who watch over them know of one another.
//!
//! Neither body is asked for more while somebody else has to take what there is, so neither can tell that this takes
//! too long. They only note whose turn it is; those who are always woken look at the clock ([`super::guard`] for a
//! stream of HTTP/2, the connection's `watch` for a connection of HTTP/1).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::access_log::{Client, Reason, RequestFault, Upstream};

/// Who is to go on with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Turn {
    /// There is no answer yet.
    Ours = 0,
    /// The upstream is to say more.
    Upstream = 1,
    /// The client is to take what was said.
    Client = 2,
}

/// Why a request is given up after its answer has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// The client took nothing, or next to nothing, for too long.
    Stalled = 1,
    /// It took longer than it may in all, and the client was waited for.
    LateClient = 2,
    /// It took longer than it may in all, and the upstream was waited for.
    LateUpstream = 3,
    /// Nobody said anything for too long.
    Silent = 4,
    /// It is over, whatever its client still has to say.
    Over = 5,
    /// What permitted it does so no longer.
    Withdrawn = 6,
}

impl Verdict {
    const ALL: [Self; 6] = [
        Self::Stalled,
        Self::LateClient,
        Self::LateUpstream,
        Self::Silent,
        Self::Over,
        Self::Withdrawn,
    ];

    /// The verdict of this number, as it is kept in an atomic.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| *verdict as u8 == number)
    }

    /// For the record, with a sentence; nothing for a request that is simply over, or whose sentence is told elsewhere.
    #[must_use]
    pub fn reason(self) -> Option<(Reason, &'static str)> {
        let (client, upstream) = (Reason::Client(Client::Idle), Reason::Upstream(Upstream::Slow));
        match self {
            Self::Stalled => Some((
                client,
                "the client took nothing, or next to nothing, for too long",
            )),
            Self::LateClient => Some((client, "the request took longer than it may, for its client")),
            Self::LateUpstream => Some((upstream, "the request took longer than it may, for its upstream")),
            Self::Silent => Some((upstream, "nothing was said either way for too long")),
            Self::Over | Self::Withdrawn => None,
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub struct Flow {
    started: Instant,
    /// Whether it is a stream of HTTP/2, which has a guard of its own.
    stream: bool,
    /// Of the request's body.
    bytes: AtomicU64,
    fault: AtomicU8,
    awaits_client: AtomicBool,
    /// When the request last went on, in milliseconds after `started`.
    moved: AtomicU64,
    turn: AtomicU8,
    /// Of the answer's body.
    handed: AtomicU64,
    until: OnceLock<Instant>,
    verdict: AtomicU8,
    /// Who sends the request's body on.
    sender: AtomicWaker,
    /// Who watches over the stream.
    guard: AtomicWaker,
}

impl Flow {
    /// Of a request that begins now; `stream` where it is one of HTTP/2.
    #[must_use]
    pub fn new(stream: bool) -> Self {
        Self {
            started: Instant::now(),
            stream,
            bytes: AtomicU64::new(0),
            fault: AtomicU8::new(0),
            awaits_client: AtomicBool::new(false),
            moved: AtomicU64::new(0),
            turn: AtomicU8::new(Turn::Ours as u8),
            handed: AtomicU64::new(0),
            until: OnceLock::new(),
            verdict: AtomicU8::new(0),
            sender: AtomicWaker::new(),
            guard: AtomicWaker::new(),
        }
    }

    /// When it began.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Whether it is a stream of HTTP/2.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Bytes of the request's body so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// So many more came; answers how many that are in all.
    pub(super) fn received(&self, bytes: u64) -> u64 {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes)
    }

    /// What is wrong with the client's body, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<RequestFault> {
        match self.fault.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(RequestFault::BodyTooLarge),
            2 => Some(RequestFault::Slow),
            _ => Some(RequestFault::Bad),
        }
    }

    pub(super) fn faulty(&self, fault: RequestFault) {
        let number = match fault {
            RequestFault::BodyTooLarge => 1,
            RequestFault::Slow => 2,
            _ => 3,
        };
        self.fault.store(number, Ordering::Relaxed);
    }

    /// The request went on: its head, or some of its body.
    pub(super) fn went_on(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
        self.awaits_client.store(false, Ordering::Relaxed);
    }

    /// The client is waited for, to go on with its body. Whoever waits is woken when the request is given up.
    pub(super) fn awaits_client(&self, cx: &Context<'_>) {
        self.awaits_client.store(true, Ordering::Relaxed);
        self.sender.register(cx.waker());
    }

    /// Whether it was given up. Whoever sends its body on is woken when it is.
    pub(super) fn is_given_up(&self, cx: &Context<'_>) -> bool {
        self.sender.register(cx.waker());
        self.verdict().is_some()
    }

    /// Whether the client is waited for, to go on with its body.
    #[must_use]
    pub fn is_awaiting_client(&self) -> bool {
        self.awaits_client.load(Ordering::Relaxed)
    }

    /// Whether the answer has begun.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.turn() != Turn::Ours
    }

    /// When the upstream must have answered, which has `patience` to go on with what it has of the request.
    #[must_use]
    pub fn answer_due(&self, patience: Duration) -> Instant {
        if self.is_awaiting_client() {
            return Instant::now() + patience;
        }
        self.started + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + patience
    }

    /// The answer begins, and must be over by `until`, if it must.
    pub(super) fn answered(&self, until: Option<Instant>) {
        if let Some(until) = until {
            let _ = self.until.set(until);
        }
        self.turn.store(Turn::Client as u8, Ordering::Relaxed);
    }

    /// The upstream is asked for more of its answer.
    pub(super) fn asked(&self) {
        self.turn.store(Turn::Upstream as u8, Ordering::Relaxed);
    }

    /// Bytes of the answer's body were handed over for the client to take.
    pub(super) fn handed(&self, bytes: u64) {
        self.handed.fetch_add(bytes, Ordering::Relaxed);
        self.turn.store(Turn::Client as u8, Ordering::Relaxed);
    }

    /// Bytes of the answer's body that were handed over so far.
    #[must_use]
    pub fn handed_over(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }

    /// Who is to go on.
    #[must_use]
    pub fn turn(&self) -> Turn {
        match self.turn.load(Ordering::Relaxed) {
            0 => Turn::Ours,
            1 => Turn::Upstream,
            _ => Turn::Client,
        }
    }

    /// When it must be over, if it must.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until.get().copied()
    }

    /// It is given up. The first verdict stays.
    pub fn give_up(&self, verdict: Verdict) {
        let number = verdict as u8;
        let _ = self
            .verdict
            .compare_exchange(0, number, Ordering::Release, Ordering::Relaxed);
        self.sender.wake();
        self.guard.wake();
    }

    /// The one that watches over the stream is woken when it is given up, or judged otherwise than before.
    pub(super) fn is_watched(&self, cx: &Context<'_>) {
        self.guard.register(cx.waker());
    }

    /// What permitted it does so no longer. Before it is answered it can still be refused; after that it breaks off.
    pub(super) fn withdraw(&self) {
        if self.is_answered() {
            self.give_up(Verdict::Withdrawn);
        } else {
            self.guard.wake();
        }
    }

    /// Why it was given up, if it was.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        Verdict::from_number(self.verdict.load(Ordering::Acquire))
    }
}
