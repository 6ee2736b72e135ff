//! A stream whose bytes are looked at on their way to the parser, and timed on their way to the client.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Gate, Phase};
use crate::http::frames::Frames;
use crate::http::framing::{Framing, Upgrade};
use crate::waiting::{Crowded, Held};

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
    /// What is waiting of a head that is not whole.
    held: Held,
    /// Bytes of the head of HTTP/1 so far, while it is not whole.
    head: usize,
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
            held: gate.waiting.begin(gate.most_waiting),
            head: 0,
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
                // With the end of what stood before it, which does not come a second time.
                self.head = if mid_head { self.head + bytes.len() } else { 0 };
                match seen {
                    Ok(()) => return self.wait(self.head),
                    Err((_, fault)) => (fault as u8, Box::new(fault)),
                }
            }
            Machine::Http2(frames) => match frames.feed(bytes, || gate.started.elapsed()) {
                Ok(()) => {
                    let unread = frames.unread();
                    return self.wait(unread);
                }
                Err(fault) => (fault as u8, Box::new(fault)),
            },
        };
        gate.fault.store(number, Ordering::Relaxed);
        Err(io::Error::new(io::ErrorKind::InvalidData, fault))
    }
}

impl<S> Gated<S> {
    /// So much of a head is waiting for the rest.
    fn wait(&mut self, bytes: usize) -> io::Result<()> {
        self.held.hold(bytes).map_err(|crowded| self.crowded(crowded))
    }

    fn crowded(&self, crowded: Crowded) -> io::Error {
        self.gate.crowded.store(true, Ordering::Relaxed);
        io::Error::new(io::ErrorKind::OutOfMemory, crowded)
    }

    /// Of these pieces so many bytes were taken: an HTTP/2 client answers some of them.
    fn wrote<'a>(&mut self, done: &Poll<io::Result<usize>>, pieces: impl Iterator<Item = &'a [u8]>) {
        let (Machine::Http2(frames), Poll::Ready(Ok(taken))) = (&mut self.machine, done) else {
            return;
        };
        let mut left = *taken;
        for piece in pieces {
            let some = piece.get(..left).unwrap_or(piece);
            frames.sent(some);
            left -= some.len();
            if left == 0 {
                return;
            }
        }
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
            let read = Pin::new(&mut this.stream).poll_read(cx, buf)?;
            if read.is_pending() {
                let crowded = this.held.poll_crowded(cx);
                return crowded.map(|crowded| Err(this.crowded(crowded)));
            }
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
        if !new.is_empty() {
            this.gate.moved();
        }
        Poll::Ready(this.look(new))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.gate.wrote(&done);
        self.wrote(&done, std::iter::once(buf));
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.gate.wrote(&done);
        self.wrote(&done, bufs.iter().map(|buf| &**buf));
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        let nothing = if done.is_ready() {
            Poll::Ready(Ok(0))
        } else {
            Poll::Pending
        };
        self.gate.wrote(&nothing);
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
