//! A connection that must begin: whoever connects and does not send the preface of HTTP/2 (RFC 9113
//! §3.4) in time gives its place back.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::metrics::Metrics;

/// A client on the same machine begins in milliseconds, unless the machine is drowning.
const DEADLINE: Duration = Duration::from_secs(10);
/// Length of the preface.
const PREFACE_BYTES: usize = 24;

/// Tells of a peer that said nothing.
#[derive(Debug)]
pub struct Silent {
    metrics: Metrics,
    uid: u32,
    pid: Option<i32>,
}

impl Silent {
    /// Of this peer.
    #[must_use]
    pub fn new(metrics: Metrics, uid: u32, pid: Option<i32>) -> Self {
        Self { metrics, uid, pid }
    }

    fn tell(&self) {
        Metrics::count(&self.metrics.connections, "silent");
        tracing::debug!(
            uid = self.uid,
            pid = self.pid,
            "connection closed: it did not begin in time"
        );
    }
}

#[derive(Debug)]
struct Wait {
    ends: Pin<Box<Sleep>>,
    missing: usize,
    silent: Silent,
}

/// A connection that is closed unless it begins in time.
#[derive(Debug)]
pub struct Preface<S> {
    stream: S,
    wait: Option<Wait>,
}

impl<S> Preface<S> {
    /// The time runs from now; `silent` is told when it is over.
    #[must_use]
    pub fn new(stream: S, silent: Silent) -> Self {
        let wait = Wait {
            ends: Box::pin(tokio::time::sleep(DEADLINE)),
            missing: PREFACE_BYTES,
            silent,
        };
        Self {
            stream,
            wait: Some(wait),
        }
    }

    /// The connection.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Preface<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(wait) = &mut this.wait else {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        };
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => {
                std::task::ready!(wait.ends.as_mut().poll(cx));
                wait.silent.tell();
                this.wait = None;
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(outcome) => {
                let read = buf.filled().len().saturating_sub(before);
                wait.missing = wait.missing.saturating_sub(read);
                if wait.missing == 0 || read == 0 {
                    this.wait = None;
                }
                Poll::Ready(outcome)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Preface<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    fn connection() -> (DuplexStream, Preface<DuplexStream>, Metrics) {
        let (client, server) = tokio::io::duplex(64);
        let metrics = Metrics::default();
        let silent = Silent::new(metrics.clone(), 0, None);
        (client, Preface::new(server, silent), metrics)
    }

    fn silent(metrics: &Metrics) -> u64 {
        let outcome = crate::metrics::Outcome { outcome: "silent" };
        metrics.connections.get_or_create(&outcome).get()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_too_little_is_closed_and_counted() {
        let (mut client, mut server, metrics) = connection();
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        let mut read = [0; 64];
        assert_eq!(server.read(&mut read).await.unwrap(), 14);
        let end = server.read(&mut read).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::TimedOut);
        assert_eq!(silent(&metrics), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_began_may_be_silent_as_long_as_it_likes() {
        let (mut client, mut server, metrics) = connection();
        client
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut read = [0; 64];
        assert_eq!(server.read(&mut read).await.unwrap(), PREFACE_BYTES);
        let silence = tokio::time::timeout(DEADLINE * 10, server.read(&mut read)).await;
        assert!(silence.is_err());
        assert_eq!(silent(&metrics), 0);
    }
}
