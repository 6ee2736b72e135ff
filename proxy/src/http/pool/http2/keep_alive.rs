//! Whether the other end of an HTTP/2 connection still lives.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A connection that says nothing for this long while a request is under way is asked whether it lives…
const PING_EVERY: Duration = Duration::from_secs(30);
/// …and has so long to answer.
const PING_WAIT: Duration = Duration::from_secs(20);

/// Asks a connection that has gone silent.
pub(super) struct KeepAlive {
    ping: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    /// Whether it was asked and has not answered yet.
    asked: bool,
    heard: Heard,
}

/// Whether anything came from the other end since this was last asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// `stream`, whose reads are noticed.
    pub(super) fn on<S>(&self, stream: S) -> Hearing<S> {
        Hearing {
            stream,
            heard: self.clone(),
        }
    }
}

/// A stream whose reads are noticed.
pub(super) struct Hearing<S> {
    stream: S,
    heard: Heard,
}

impl KeepAlive {
    pub(super) fn new(ping: Option<PingPong>, heard: Heard) -> Self {
        Self {
            ping,
            timer: Box::pin(tokio::time::sleep(PING_EVERY)),
            asked: false,
            heard,
        }
    }

    /// Ready when it was asked and did not answer. A question goes out when the connection is polled next.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, busy: bool) -> Poll<()> {
        loop {
            if self.asked
                && let Some(ping) = &mut self.ping
                && ping.poll_pong(cx).is_ready()
            {
                // What is wrong with the connection, if anything, it says itself.
                self.asked = false;
                self.wait(PING_EVERY);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.asked {
                return Poll::Ready(());
            }
            let silent = !self.heard.0.swap(false, Ordering::Relaxed);
            self.asked = silent && busy && self.ask();
            self.wait(if self.asked { PING_WAIT } else { PING_EVERY });
        }
    }

    fn ask(&mut self) -> bool {
        let ping = self.ping.as_mut();
        ping.is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok())
    }

    fn wait(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hearing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.heard.0.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hearing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
