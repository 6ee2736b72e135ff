//! Between the parser and the socket: every byte is looked at before it is acted upon, and how long what takes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::{FrameFault, Frames};
use super::framing::{Framing, FramingFault, Upgrade};
use super::limits::HttpLimits;

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
    served: AtomicBool,
    upgrade: AtomicU8,
    fault: AtomicU8,
    /// When writing began to be refused, plus one; 0 where it is not.
    blocked: AtomicU64,
}

impl Gate {
    /// Of a connection that begins now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            // The first request must come as fast as its head.
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU64::new(0),
            mid_head: AtomicBool::new(false),
            active: AtomicU32::new(0),
            served: AtomicBool::new(false),
            upgrade: AtomicU8::new(Upgrade::Refused as u8),
            fault: AtomicU8::new(0),
            blocked: AtomicU64::new(0),
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

    /// A request is done, its answer sent.
    pub fn request_ends(&self) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
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

    /// When to look at [`Self::overdue`] next.
    #[must_use]
    pub fn due(&self, limits: &HttpLimits) -> Instant {
        let blocked = self.blocked.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        let at = |millis: u64, wait: Duration| self.started + Duration::from_millis(millis) + wait;
        let phase = self.phase.load(Ordering::Relaxed);
        if blocked > 0 {
            at(blocked - 1, limits.write_stall)
        } else if phase == Phase::Idle as u8 {
            at(since, limits.idle)
        } else if phase == Phase::Head as u8 {
            at(since, limits.request_head)
        } else {
            Instant::now() + limits.idle
        }
    }

    /// When it will have been idle for `wait`; nothing while anything is under way.
    #[must_use]
    pub fn quiet(&self, wait: Duration) -> Option<Instant> {
        let idle = self.phase.load(Ordering::Relaxed) == Phase::Idle as u8;
        let blocked = self.blocked.load(Ordering::Relaxed) > 0;
        let since = Duration::from_millis(self.since.load(Ordering::Relaxed));
        (idle && !blocked).then(|| self.started + since + wait)
    }

    /// What took too long, if anything did.
    #[must_use]
    pub fn overdue(&self, limits: &HttpLimits) -> Option<Overdue> {
        if self.due(limits) > Instant::now() {
            return None;
        }
        let phase = self.phase.load(Ordering::Relaxed);
        if self.blocked.load(Ordering::Relaxed) > 0 {
            Some(Overdue::Write)
        } else if phase == Phase::Idle as u8 {
            Some(Overdue::Idle)
        } else {
            Some(Overdue::Head)
        }
    }

    fn write_waits(&self, waits: bool) {
        let blocked = self.blocked.load(Ordering::Relaxed) > 0;
        if waits != blocked {
            let value = if waits { self.now() + 1 } else { 0 };
            self.blocked.store(value, Ordering::Relaxed);
        }
    }
}

/// Which machine looks at the bytes.
#[derive(Debug)]
enum Machine {
    Http1(Framing),
    Http2(Box<Frames>),
}

/// A stream whose bytes are looked at.
#[derive(Debug)]
pub struct Gated<S> {
    stream: S,
    /// Bytes that were read before it was known what is spoken.
    prefix: Vec<u8>,
    at: usize,
    machine: Machine,
    gate: Arc<Gate>,
}

impl<S> Gated<S> {
    /// HTTP/1. `prefix` was read from `stream`.
    #[must_use]
    pub fn http1(stream: S, prefix: Vec<u8>, gate: Arc<Gate>) -> Self {
        Self::new(stream, prefix, gate, Machine::Http1(Framing::default()))
    }

    /// The stream itself, for what is said outside of HTTP's parser.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// HTTP/2. `prefix` was read from `stream`.
    #[must_use]
    pub fn http2(stream: S, prefix: Vec<u8>, gate: Arc<Gate>) -> Self {
        Self::new(stream, prefix, gate, Machine::Http2(Box::default()))
    }

    fn new(stream: S, prefix: Vec<u8>, gate: Arc<Gate>, machine: Machine) -> Self {
        Self {
            stream,
            prefix,
            at: 0,
            machine,
            gate,
        }
    }

    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let gate = &self.gate;
        let (number, fault): (u8, Box<dyn std::error::Error + Send + Sync>) = match &mut self.machine {
            Machine::Http1(framing) => {
                let seen = framing.feed(bytes, || gate.upgrade());
                if framing.asks_to_upgrade() {
                    gate.settle_upgrade(Upgrade::Undecided);
                }
                let mid_head = framing.mid_head();
                gate.mid_head.store(mid_head, Ordering::Relaxed);
                if mid_head && gate.phase.load(Ordering::Relaxed) == Phase::Idle as u8 {
                    gate.enter(Phase::Head);
                }
                match seen {
                    Ok(()) => return Ok(()),
                    Err((_, fault)) => (fault as u8, Box::new(fault)),
                }
            }
            Machine::Http2(frames) => match frames.feed(bytes, || gate.started.elapsed()) {
                Ok(()) => return Ok(()),
                Err(fault) => (fault as u8, Box::new(fault)),
            },
        };
        gate.fault.store(number, Ordering::Relaxed);
        Err(io::Error::new(io::ErrorKind::InvalidData, fault))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.prefix.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let left = this.prefix.get(this.at..).unwrap_or_default();
            let some = left.get(..buf.remaining()).unwrap_or(left);
            buf.put_slice(some);
            this.at += some.len();
            if this.at >= this.prefix.len() {
                this.prefix = Vec::new();
            }
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(this.look(new))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.gate.write_waits(done.is_pending());
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.gate.write_waits(done.is_pending());
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.gate.write_waits(done.is_pending());
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gate.framing_fault().is_some() {
            // The client is still to be told.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
