//! Writes of HTTP/2, joined: what is written until a flush goes out as one.
//!
//! The parser hands over a frame's head and its payload one after the other, and where a stream takes several
//! buffers at once it flushes after every payload of 256 bytes. Over TLS each of these would be a record and a system
//! call of its own. Here many small answers are one of each. A stream at rest holds no buffer.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most that is held: two TLS records, for a frame of 16 KiB and what stands before it.
const ROOM: usize = 32 * 1024;

thread_local! {
    /// The buffer of whoever has something to hold; of several, the others get buffers of their own.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stream whose writes are joined.
#[derive(Debug)]
pub struct Joined<S> {
    stream: S,
    held: Vec<u8>,
    at: usize,
}

impl<S> Joined<S> {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            held: Vec::new(),
            at: 0,
        }
    }

    /// Takes as much of `bytes` as there is room for.
    fn hold(&mut self, bytes: &[u8]) -> usize {
        if self.held.capacity() == 0 {
            self.held = SPARE.take();
            self.held.reserve_exact(ROOM);
        }
        let some = bytes.get(..ROOM - self.held.len()).unwrap_or(bytes);
        self.held.extend_from_slice(some);
        some.len()
    }

    /// What was held is out: the buffer is free for the next one.
    fn release(&mut self) {
        self.at = 0;
        let mut held = std::mem::take(&mut self.held);
        held.clear();
        SPARE.set(held);
    }
}

impl<S: AsyncWrite + Unpin> Joined<S> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.held.get(self.at..).filter(|left| !left.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += written;
        }
        if self.held.capacity() > 0 {
            self.release();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Joined<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Joined<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.held.len() >= ROOM {
            ready!(self.poll_out(cx))?;
        }
        Poll::Ready(Ok(self.hold(buf)))
    }

    /// So that a small payload is copied behind its head.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
