//! Bytes both ways between two streams, each way to its end. An idle pair of streams holds no buffer: what is read
//! stands in one buffer per thread, and is kept only where the other end is slow to take it.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Bytes read at a time: four TLS records.
const CHUNK: usize = 64 * 1024;
/// Reads of one way before the other, and other connections, get their turn.
const TURNS: usize = 16;

thread_local! {
    static CHUNK_BYTES: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Which end a copy failed at.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The downstream.
    Downstream(io::Error),
    /// The upstream.
    Upstream(io::Error),
}

/// One way.
#[derive(Debug, Default)]
struct Way {
    /// What was read and not written yet.
    pending: Vec<u8>,
    at: usize,
    bytes: u64,
    unflushed: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Reading,
    /// Nothing more comes; what is pending goes out, then the end does.
    Ending,
    Done,
}

/// Which side of a way failed.
enum Side {
    From(io::Error),
    To(io::Error),
}

/// A copy under way.
#[derive(Debug)]
pub(crate) struct Copying<D, U> {
    downstream: D,
    upstream: U,
    inward: Way,
    outward: Way,
    last: Instant,
}

impl<D, U> Copying<D, U>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Between these two.
    pub(crate) fn new(downstream: D, upstream: U) -> Self {
        Self {
            downstream,
            upstream,
            inward: Way::default(),
            outward: Way::default(),
            last: Instant::now(),
        }
    }

    /// Bytes that came from the downstream and from the upstream.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.inward.bytes, self.outward.bytes)
    }

    /// When a byte last moved, either way.
    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    /// The two ends.
    pub(crate) fn ends(&self) -> (&D, &U) {
        (&self.downstream, &self.upstream)
    }
}

impl<D, U> Future for Copying<D, U>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Result<(), Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let before = this.bytes();
        let inward = this.inward.poll(cx, &mut this.downstream, &mut this.upstream);
        let outward = this.outward.poll(cx, &mut this.upstream, &mut this.downstream);
        if this.bytes() != before {
            this.last = Instant::now();
        }
        match (inward, outward) {
            (Poll::Ready(Err(Side::From(error))), _) | (_, Poll::Ready(Err(Side::To(error)))) => {
                Poll::Ready(Err(Broken::Downstream(error)))
            }
            (Poll::Ready(Err(Side::To(error))), _) | (_, Poll::Ready(Err(Side::From(error)))) => {
                Poll::Ready(Err(Broken::Upstream(error)))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

impl Way {
    fn poll<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<Result<(), Side>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        for _ in 0..TURNS {
            if !self.pending.is_empty() {
                ready!(self.poll_pending(cx, to)).map_err(Side::To)?;
            }
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Side::To)?;
                    self.state = State::Done;
                    return Poll::Ready(Ok(()));
                }
                State::Reading => {}
            }
            let moved = CHUNK_BYTES.with(|chunk| match chunk.try_borrow_mut() {
                Ok(mut chunk) => self.poll_move(cx, from, to, &mut chunk),
                // Never so: nothing polls a copy within a copy.
                Err(_) => self.poll_move(cx, from, to, &mut [0; 4096]),
            });
            if moved?.is_pending() {
                if self.unflushed && Pin::new(&mut *to).poll_flush(cx).map_err(Side::To)?.is_ready() {
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once and writes as much of it as the other end takes.
    fn poll_move<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        chunk: &mut [u8],
    ) -> Result<Poll<()>, Side>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(chunk);
        match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(())) => {}
            // Many close without the word that TLS has for it; how a message ends is for the application to know.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Poll::Ready(Err(error)) => return Err(Side::From(error)),
        }
        let mut came: &[u8] = buffer.filled();
        if came.is_empty() {
            self.state = State::Ending;
            return Ok(Poll::Ready(()));
        }
        self.bytes += u64::try_from(came.len()).unwrap_or(u64::MAX);
        self.unflushed = true;
        while !came.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, came) {
                Poll::Ready(Ok(0)) => return Err(Side::To(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => came = came.get(written..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(Side::To(error)),
                Poll::Pending => {
                    self.pending = came.to_vec();
                    self.at = 0;
                    break;
                }
            }
        }
        Ok(Poll::Ready(()))
    }

    fn poll_pending<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut T,
    ) -> Poll<io::Result<()>> {
        while let Some(left) = self.pending.get(self.at..).filter(|left| !left.is_empty()) {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += written;
        }
        self.pending = Vec::new();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
