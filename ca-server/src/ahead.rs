//! Reads ahead: one system call takes whatever a peer has sent so far, up to a bound; a TLS record reader
//! that asks for a few kilobytes at a time is given the rest from memory.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes read in one call: what eight callers on one connection ask at once, twice.
const MOST: usize = 32 * 1024;

thread_local! {
    /// Where reads land first. One for each thread, so that an idle connection keeps nothing.
    static LANDING: RefCell<Vec<u8>> = RefCell::new(vec![0; MOST]);
}

/// A stream that is read ahead.
#[derive(Debug)]
pub struct Ahead<S> {
    stream: S,
    /// Read, and not asked for yet.
    rest: Vec<u8>,
    given: usize,
}

impl<S> Ahead<S> {
    /// Around `stream`.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            given: 0,
        }
    }

    /// The stream below.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Gives as much of the rest as is asked for.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = self.rest.get(self.given..).unwrap_or_default();
        let now = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..now).unwrap_or_default());
        self.given += now;
        if self.given >= self.rest.len() {
            self.rest = Vec::new();
            self.given = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            self.give(buf);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= MOST {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        LANDING.with_borrow_mut(|landing| {
            let mut landed = ReadBuf::new(landing);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut landed))?;
            let (now, later) = landed
                .filled()
                .split_at(landed.filled().len().min(buf.remaining()));
            buf.put_slice(now);
            self.rest.extend_from_slice(later);
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn small_reads_get_everything_in_order_and_leave_no_buffer_behind() {
        let (near, mut far) = tokio::io::duplex(200_000);
        let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_be_bytes()[3]).collect();
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut ahead = Ahead::new(near);
        let mut got = Vec::new();
        let mut room = [0; 4_000];
        loop {
            let read = ahead.read(&mut room).await.unwrap();
            assert!(ahead.rest.len() <= MOST);
            if read == 0 {
                break;
            }
            got.extend_from_slice(&room[..read]);
        }
        assert_eq!(got, sent);
        assert_eq!(ahead.rest.capacity(), 0);
    }

    #[tokio::test]
    async fn a_read_with_room_for_all_of_it_takes_it_from_below() {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(b"hello").await.unwrap();
        let mut ahead = Ahead::new(near);
        let mut room = vec![0; MOST];
        assert_eq!(ahead.read(&mut room).await.unwrap(), 5);
        assert!(ahead.rest.is_empty());
    }
}
