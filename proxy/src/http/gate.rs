//! Between the parser and the socket: every byte is looked at before it is acted upon, and how long what takes.

mod gated;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::flow::Verdict;
use super::frames::FrameFault;
use super::framing::{FramingFault, Upgrade};
use super::limits::HttpLimits;
use super::pace::PIECE;
use crate::waiting::Waiting;
pub use gated::Gated;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Between requests.
    Idle = 0,
    /// A head has begun to arrive.
    Head = 1,
    /// A request is served.
    Busy = 2,
}

/// Why a connection is ended by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// No request for too long.
    Idle,
    /// A head that did not arrive in time.
    Head,
    /// The client does not take what is sent to it.
    Write,
    /// The request under way may take no longer.
    Total,
    /// Nobody says anything though an answer has begun.
    Silence,
}

impl Overdue {
    /// What that is to the request under way; `blocked` where its client is waited for.
    fn verdict(self, blocked: bool) -> Option<Verdict> {
        match self {
            Self::Idle | Self::Head => None,
            Self::Write => Some(Verdict::Stalled),
            Self::Total if blocked => Some(Verdict::LateClient),
            Self::Total => Some(Verdict::LateUpstream),
            Self::Silence => Some(Verdict::Silent),
        }
    }
}

/// What the bytes of a connection, its requests and its driver know of one another. All on one task; the atomics
/// only make it shareable.
#[derive(Debug)]
pub struct Gate {
    started: Instant,
    phase: AtomicU8,
    /// Milliseconds after `started`.
    since: AtomicU64,
    mid_head: AtomicBool,
    /// Requests under way.
    active: AtomicU32,
    /// Bodies of requests whose end was not read.
    unread: AtomicU32,
    served: AtomicBool,
    upgrade: AtomicU8,
    fault: AtomicU8,
    /// When writing began to be refused, plus one; 0 where it is not.
    blocked: AtomicU64,
    /// For how long it was refused since the client last took a piece, and how much it took meanwhile.
    waited: AtomicU64,
    taken: AtomicUsize,
    /// When the answer that has begun must be over, in milliseconds after `started`; 0 for none.
    until: AtomicU64,
    /// Whether an answer of HTTP/1 has begun.
    answered: AtomicBool,
    /// How often bytes moved, and how often that was when it was last looked at, and when.
    moves: AtomicU32,
    moves_seen: AtomicU32,
    quiet_since: AtomicU64,
    /// Why what is under way was given up.
    verdict: AtomicU8,
    waiting: Waiting,
    most_waiting: usize,
    /// Whether its head had to make room.
    crowded: AtomicBool,
}

impl Gate {
    /// Of a connection that begins now, where all may have so many bytes of heads waiting.
    #[must_use]
    pub fn new(waiting: Waiting, most_waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            // The first request must come as fast as its head.
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU64::new(0),
            mid_head: AtomicBool::new(false),
            active: AtomicU32::new(0),
            unread: AtomicU32::new(0),
            served: AtomicBool::new(false),
            upgrade: AtomicU8::new(Upgrade::Refused as u8),
            fault: AtomicU8::new(0),
            blocked: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            taken: AtomicUsize::new(0),
            until: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            moves: AtomicU32::new(0),
            moves_seen: AtomicU32::new(0),
            quiet_since: AtomicU64::new(0),
            verdict: AtomicU8::new(0),
            waiting,
            most_waiting,
            crowded: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, phase: Phase) {
        self.since.store(self.now(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// A request is served from now on.
    pub fn request_begins(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        self.phase.store(Phase::Busy as u8, Ordering::Relaxed);
    }

    /// A request has a body.
    pub(super) fn body_begins(&self) {
        self.unread.fetch_add(1, Ordering::Relaxed);
    }

    /// It was read to its end.
    pub(super) fn body_ends(&self) {
        self.unread.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request is done, its answer sent.
    pub fn request_ends(&self) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.answered.store(false, Ordering::Relaxed);
            let mid_head = self.mid_head.load(Ordering::Relaxed);
            self.enter(if mid_head { Phase::Head } else { Phase::Idle });
        }
    }

    /// Whether any request came so far.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// Whether the head of a request has begun to arrive and is not whole.
    #[must_use]
    pub fn is_mid_head(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Head as u8
    }

    /// Bytes after a request to upgrade are read as this says.
    pub fn settle_upgrade(&self, upgrade: Upgrade) {
        self.upgrade.store(upgrade as u8, Ordering::Relaxed);
    }

    fn upgrade(&self) -> Upgrade {
        match self.upgrade.load(Ordering::Relaxed) {
            0 => Upgrade::Undecided,
            2 => Upgrade::Accepted,
            _ => Upgrade::Refused,
        }
    }

    /// The fault in the framing of the connection's bytes, if there was one.
    #[must_use]
    pub fn framing_fault(&self) -> Option<FramingFault> {
        FramingFault::from_number(self.fault.load(Ordering::Relaxed))
    }

    /// The abuse of HTTP/2 for which the connection ends.
    #[must_use]
    pub fn frame_fault(&self) -> Option<FrameFault> {
        FrameFault::from_number(self.fault.load(Ordering::Relaxed))
    }

    /// Whether the connection ends because its head had to make room for what others have waiting.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// The answer of an HTTP/1 request begins, and must be over by `until`, if it must.
    pub fn answered(&self, until: Option<Instant>) {
        let millis = |end: Instant| {
            let after = end.saturating_duration_since(self.started);
            u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1)
        };
        self.until.store(until.map_or(0, millis), Ordering::Relaxed);
        self.heard();
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Something was said since it was last looked at.
    fn heard(&self) {
        self.moves_seen
            .store(self.moves.load(Ordering::Relaxed), Ordering::Relaxed);
        self.quiet_since.store(self.now(), Ordering::Relaxed);
    }

    /// Bytes came or went.
    fn moved(&self) {
        self.moves.store(
            self.moves.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    }

    /// Why what is under way was given up, if it was.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        Verdict::from_number(self.verdict.load(Ordering::Relaxed))
    }

    fn at(&self, millis: u64, wait: Duration) -> Instant {
        self.started + Duration::from_millis(millis) + wait
    }

    /// What is due next, and when.
    fn next_due(&self, limits: &HttpLimits) -> (Instant, Option<Overdue>) {
        let blocked = self.blocked.load(Ordering::Relaxed);
        let phase = self.phase.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        let stalled = (blocked > 0).then(|| {
            let waited = Duration::from_millis(self.waited.load(Ordering::Relaxed));
            let left = limits.write_stall.saturating_sub(waited);
            (self.at(blocked - 1, left), Overdue::Write)
        });
        let rest = match phase {
            _ if phase == Phase::Busy as u8 => self.answer_due(limits, stalled.is_some()),
            _ if stalled.is_some() => None,
            _ if phase == Phase::Idle as u8 => Some((self.at(since, limits.idle), Overdue::Idle)),
            _ => Some((self.at(since, limits.request_head), Overdue::Head)),
        };
        let first = stalled.into_iter().chain(rest).min_by_key(|(due, _)| *due);
        match first {
            Some((due, overdue)) => (due, Some(overdue)),
            None => (Instant::now() + limits.idle, None),
        }
    }

    /// When the answer that has begun is due, or a word of it.
    fn answer_due(&self, limits: &HttpLimits, blocked: bool) -> Option<(Instant, Overdue)> {
        if !self.answered.load(Ordering::Relaxed) {
            return None;
        }
        let until = self.until.load(Ordering::Relaxed);
        let total = (until > 0).then(|| (self.at(until, Duration::ZERO), Overdue::Total));
        let since = self.quiet_since.load(Ordering::Relaxed);
        let silence = (!blocked).then(|| (self.at(since, limits.stream_idle), Overdue::Silence));
        total.into_iter().chain(silence).min_by_key(|(due, _)| *due)
    }

    /// When to look at [`Self::overdue`] next.
    #[must_use]
    pub fn due(&self, limits: &HttpLimits) -> Instant {
        self.next_due(limits).0
    }

    /// When it will have been idle for `wait`; nothing while anything is under way, or comes of a body that nobody
    /// reads: what follows it could be taken for a request otherwise.
    #[must_use]
    pub fn quiet(&self, wait: Duration) -> Option<Instant> {
        let idle = self.phase.load(Ordering::Relaxed) == Phase::Idle as u8;
        let blocked = self.blocked.load(Ordering::Relaxed) > 0;
        let unread = self.unread.load(Ordering::Relaxed) > 0;
        let since = Duration::from_millis(self.since.load(Ordering::Relaxed));
        (idle && !blocked && !unread).then(|| self.started + since + wait)
    }

    /// What took too long, if anything did. The request under way is given up for it.
    #[must_use]
    pub fn overdue(&self, limits: &HttpLimits) -> Option<Overdue> {
        let (due, overdue) = self.next_due(limits);
        let overdue = overdue.filter(|_| due <= Instant::now())?;
        let seen = self.moves_seen.load(Ordering::Relaxed);
        if overdue == Overdue::Silence && seen != self.moves.load(Ordering::Relaxed) {
            self.heard();
            return None;
        }
        let blocked = self.blocked.load(Ordering::Relaxed) > 0;
        if let Some(verdict) = overdue.verdict(blocked) {
            self.verdict.store(verdict as u8, Ordering::Relaxed);
        }
        Some(overdue)
    }

    /// Writing was tried: it waits, or so many bytes were taken.
    fn wrote(&self, done: &Poll<io::Result<usize>>) {
        let blocked = self.blocked.load(Ordering::Relaxed);
        match done {
            Poll::Pending if blocked == 0 => self.blocked.store(self.now() + 1, Ordering::Relaxed),
            Poll::Pending => {}
            Poll::Ready(taken) => {
                if matches!(taken, Ok(1..)) {
                    self.moved();
                }
                let waited = self.waited.load(Ordering::Relaxed);
                if blocked == 0 && waited == 0 {
                    return;
                }
                let taken = self.taken.load(Ordering::Relaxed) + taken.as_ref().map_or(0, |taken| *taken);
                let (waited, taken) = if taken >= PIECE {
                    (0, 0)
                } else if blocked > 0 {
                    (waited + self.now().saturating_sub(blocked - 1), taken)
                } else {
                    (waited, taken)
                };
                self.waited.store(waited, Ordering::Relaxed);
                self.taken.store(taken, Ordering::Relaxed);
                self.blocked.store(0, Ordering::Relaxed);
            }
        }
    }
}
