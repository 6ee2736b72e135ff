//! What drives an HTTP/2 connection to an upstream until it has ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::Connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::keep_alive::{Heard, Hearing, KeepAlive};
use crate::http::joined::Joined;
use crate::keys::Trust;

/// A connection and what it waits for besides its bytes.
pub(super) struct Driver<S> {
    connection: Connection<Hearing<Joined<S>>, Bytes>,
    keep_alive: KeepAlive,
    /// Requests under way.
    streams: Arc<AtomicUsize>,
    /// Ready when no request will come any more. `h2` does not notice by itself.
    unwanted: Option<oneshot::Receiver<Infallible>>,
    /// What the trust in the other end rests on, where it has an identity.
    trust: Option<Arc<Trust>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(
        mut connection: Connection<Hearing<Joined<S>>, Bytes>,
        heard: Heard,
        streams: Arc<AtomicUsize>,
        unwanted: oneshot::Receiver<Infallible>,
    ) -> Self {
        Self {
            keep_alive: KeepAlive::new(connection.ping_pong(), heard),
            connection,
            streams,
            unwanted: Some(unwanted),
            trust: None,
        }
    }

    /// Only as long as the other end is trusted. All streams fail at that end.
    pub(super) fn under(mut self, trust: Option<Arc<Trust>>) -> Self {
        self.trust = trust;
        self
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let this = &mut *self;
        if this
            .trust
            .as_ref()
            .is_some_and(|trust| trust.poll_withdrawn(cx).is_ready())
        {
            return Poll::Ready(Ok(()));
        }
        let busy = this.streams.load(Ordering::Relaxed) > 0;
        if this.keep_alive.poll(cx, busy).is_ready() {
            // It is dead: what waits for it learns so when the connection goes.
            return Poll::Ready(Ok(()));
        }
        if let Some(unwanted) = &mut this.unwanted
            && Pin::new(unwanted).poll(cx).is_ready()
        {
            this.unwanted = None;
        }
        Pin::new(&mut this.connection).poll(cx)
    }
}

#[cfg(test)]
mod tests;
