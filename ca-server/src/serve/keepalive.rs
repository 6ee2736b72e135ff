//! Pings: a peer that no longer answers is found out, busy or idle.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// Sends a ping each interval and waits for its answer.
pub(super) struct KeepAlive {
    pings: PingPong,
    interval: Duration,
    patience: Duration,
    /// Until the next ping, or until the end of the patience with the last one.
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

impl KeepAlive {
    /// The first ping goes out after one interval.
    pub(super) fn new(pings: PingPong, interval: Duration, patience: Duration) -> Self {
        Self {
            pings,
            interval,
            patience,
            timer: Box::pin(sleep(interval)),
            asked: false,
        }
    }

    /// Ready once the peer has let a ping go unanswered. A ping sent here goes out when the connection is
    /// polled next.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.asked && self.pings.poll_pong(cx).is_ready() {
                // A connection that ended answers with its error; who polls that finds out.
                self.asked = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.asked {
                return Poll::Ready(());
            }
            self.asked = self.pings.send_ping(Ping::opaque()).is_ok();
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;

    use super::*;

    /// When the peer is given up, in seconds, if it is within ten minutes. `answering` peers are driven.
    async fn given_up(answering: bool) -> Option<u64> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (server, client) = tokio::join!(h2::server::handshake(near), h2::client::handshake(far));
        let mut server: h2::server::Connection<_, Bytes> = server.unwrap();
        let (_requests, mut client) = client.unwrap();
        let pings = server.ping_pong().unwrap();
        let mut keepalive = KeepAlive::new(pings, Duration::from_secs(30), Duration::from_secs(10));
        let began = Instant::now();
        let lost = poll_fn(|cx| {
            if keepalive.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            assert!(server.poll_accept(cx).is_pending());
            if answering {
                assert!(Pin::new(&mut client).poll(cx).is_pending());
            }
            Poll::Pending
        });
        let lost = tokio::time::timeout(Duration::from_secs(600), lost).await;
        lost.ok().map(|()| began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_pings_is_kept_and_one_that_does_not_is_given_up() {
        assert_eq!(given_up(true).await, None);
        assert_eq!(given_up(false).await, Some(40));
    }
}
