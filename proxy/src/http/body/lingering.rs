//! What a client still sends of a body that nobody wants any more.
//!
//! A client that is answered before it has sent all may lose the answer over what follows it: TCP drops what the
//! client has not read yet when this end closes on unread bytes, and there are clients of HTTP/2 to which a
//! `RST_STREAM` with `NO_ERROR` (RFC 9113 §8.1) is a failure, curl 7.88 among them. So the rest is read for a while,
//! and dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Version, request};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

use crate::http::ticket::Account;

/// For so long, unless the client is done earlier.
const LINGER: Duration = Duration::from_secs(5);

/// A client's body. What is left of it when it is dropped is still read for a while.
#[derive(Debug)]
pub(in crate::http) struct Lingering {
    /// Nothing once it is whole or let go.
    rest: Option<Rest>,
    /// Whether the client sends unasked, or was asked: until then there is nothing to read.
    comes: bool,
}

impl Lingering {
    /// Of the request with this head.
    pub(in crate::http) fn of(incoming: Incoming, head: &request::Parts, account: &Arc<Account>) -> Self {
        let rest = (!incoming.is_end_stream()).then(|| {
            account.gate.body_begins();
            Rest {
                incoming,
                account: Arc::clone(account),
                multiplexed: head.version == Version::HTTP_2,
            }
        });
        Self {
            rest,
            comes: !head.headers.contains_key(EXPECT),
        }
    }

    /// Ends it at once: the client is at fault, and its stream or connection is closed for it.
    pub(super) fn let_go(mut self) {
        self.rest = None;
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.comes = true;
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(&mut rest.incoming).poll_frame(cx);
        let whole = matches!(frame, Poll::Ready(None)) || rest.incoming.is_end_stream();
        if whole && let Some(rest) = self.rest.take() {
            rest.account.gate.body_ends();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |rest| rest.incoming.size_hint())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let rest = self.rest.take().filter(|_| self.comes);
        if let (Some(rest), Ok(runtime)) = (rest, Handle::try_current()) {
            runtime.spawn(rest.read());
        }
    }
}

/// What was not read yet.
#[derive(Debug)]
struct Rest {
    incoming: Incoming,
    account: Arc<Account>,
    /// Whether the connection can go on without it.
    multiplexed: bool,
}

impl Rest {
    async fn read(mut self) {
        let all = async {
            loop {
                match self.incoming.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return false,
                    None => return true,
                }
            }
        };
        let account = self.account;
        match tokio::time::timeout(LINGER, all).await {
            Ok(true) => account.gate.body_ends(),
            _ if self.multiplexed => account.gate.body_ends(),
            // hyper does not notice by itself that nobody waits for more of it.
            _ => account.docket.abandon(),
        }
        account.docket.wake();
    }
}
