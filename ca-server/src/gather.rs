//! Writes gathered: what is written and flushed while one task runs goes out as one TLS record in one
//! system call, in place of two or three for each answer.
//!
//! A flush of gathered bytes only asks for the task to be run again, behind those that are ready; they
//! go out when it next reads, which an HTTP/2 connection does first whenever it runs.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes gathered: the most that one TLS record carries (RFC 8446 §5.1).
const MOST: usize = 16 * 1024;
/// Room kept while nothing is gathered; one answer needs about three quarters of it.
const ROOM: usize = 4 * 1024;
/// Flushes put off in a row. Answers in one record cause far fewer; a task that never reads again is not
/// run for ever.
const MOST_PUT_OFF: u32 = 64;

/// A stream whose small writes go out together.
#[derive(Debug)]
pub struct Gather<S> {
    stream: S,
    held: Vec<u8>,
    /// How much of `held` is written already.
    sent: usize,
    put_off: u32,
}

impl<S> Gather<S> {
    /// Around `stream`.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            held: Vec::new(),
            sent: 0,
            put_off: 0,
        }
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Hands everything gathered to the stream below.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.held.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.held.clear();
        self.held.shrink_to(ROOM);
        self.sent = 0;
        self.put_off = 0;
        Poll::Ready(Ok(()))
    }

    fn drain_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            match self.drain_and_flush(cx) {
                Poll::Ready(done) => done?,
                // The peer is slow: flushes wait for it from now on, and so does who flushes.
                Poll::Pending => self.put_off = MOST_PUT_OFF,
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.held.len() + buf.len() > MOST {
            ready!(self.drain(cx))?;
        }
        let taken = buf.len().min(MOST);
        self.held.extend_from_slice(buf.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && self.put_off < MOST_PUT_OFF {
            self.put_off += 1;
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        self.drain_and_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Notes every write as it comes.
    #[derive(Default)]
    struct Noted {
        writes: Vec<Vec<u8>>,
        shut: bool,
    }

    impl AsyncRead for Noted {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.push(buf.to_vec());
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.shut = true;
            Poll::Ready(Ok(()))
        }
    }

    /// One turn of a task that reads and finds nothing.
    async fn read_nothing(gather: &mut Gather<Noted>) {
        poll_fn(|cx| {
            let mut room = [0; 8];
            let read = Pin::new(&mut *gather).poll_read(cx, &mut ReadBuf::new(&mut room));
            assert!(read.is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn writes_flushed_in_one_turn_go_out_together_in_the_next() {
        let mut gather = Gather::new(Noted::default());
        for part in ["head", "body", "trailers"] {
            gather.write_all(part.as_bytes()).await.unwrap();
            gather.flush().await.unwrap();
        }
        assert!(gather.stream.writes.is_empty());
        read_nothing(&mut gather).await;
        assert_eq!(gather.stream.writes, [b"headbodytrailers"]);
        read_nothing(&mut gather).await;
        assert_eq!(gather.stream.writes.len(), 1);
    }

    #[tokio::test]
    async fn what_is_gathered_is_bounded_and_keeps_its_order() {
        let mut gather = Gather::new(Noted::default());
        let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_be_bytes()[3]).collect();
        for part in sent.chunks(3_000) {
            gather.write_all(part).await.unwrap();
            assert!(gather.held.len() <= MOST);
        }
        gather.write_all(&sent).await.unwrap();
        gather.shutdown().await.unwrap();
        assert!(gather.stream.shut);
        assert_eq!(gather.stream.writes.concat(), [&sent[..], &sent[..]].concat());
        assert!(gather.held.capacity() <= ROOM);
    }

    #[tokio::test]
    async fn a_task_that_flushes_and_never_reads_is_served_all_the_same() {
        let mut gather = Gather::new(Noted::default());
        gather.write_all(b"x").await.unwrap();
        for _ in 0..=MOST_PUT_OFF {
            gather.flush().await.unwrap();
        }
        assert_eq!(gather.stream.writes, [b"x"]);
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_gets_everything() {
        let (near, mut far) = tokio::io::duplex(100);
        let sent = vec![7; 50_000];
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut gather = Gather::new(near);
            gather.write_all(&sent).await.unwrap();
            gather.flush().await.unwrap();
            gather.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, expected);
        writer.await.unwrap();
    }
}
