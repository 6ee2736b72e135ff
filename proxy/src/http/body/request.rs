//! A request's body on its way to the upstream: counted, bounded, and not waited for without end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{BodyFault, Lingering};
use crate::access_log::RequestFault;
use crate::enforced::Enforced;
use crate::http::flow::Flow;
use crate::http::headers::sane_trailers;
use crate::http::pace::Pace;
use crate::jwt::Edits;

/// Bounds of a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Most bytes.
    pub bytes: u64,
    /// How long the client is waited for, before it is answered.
    pub pause: Pause,
}

/// How long a client may pause in its body.
#[derive(Clone, Copy, Debug)]
pub enum Pause {
    /// So long for each piece.
    PerPiece(Duration),
    /// So long for a word: it is a conversation.
    PerWord(Duration),
}

/// A request's body.
#[derive(Debug)]
pub struct RequestBody {
    /// Nothing for a request without one.
    inner: Option<(Lingering, Arc<Flow>)>,
    bounds: BodyBounds,
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when the client is waited for.
    since: Option<Instant>,
    pace: Pace,
    /// Whose rules say what only we may say of tokens, in trailers as well.
    rules: Option<Arc<Enforced>>,
}

impl RequestBody {
    /// Of a request without a body.
    #[must_use]
    pub fn none() -> Self {
        Self::new(
            None,
            BodyBounds {
                bytes: 0,
                pause: Pause::PerPiece(Duration::MAX),
            },
        )
    }

    /// The client's.
    pub(in crate::http) fn of(body: Lingering, flow: Arc<Flow>, bounds: BodyBounds) -> Self {
        Self::new(Some((body, flow)), bounds)
    }

    fn new(inner: Option<(Lingering, Arc<Flow>)>, bounds: BodyBounds) -> Self {
        Self {
            inner,
            bounds,
            timer: None,
            since: None,
            pace: Pace::default(),
            rules: None,
        }
    }

    /// Under these rules, where there are any about tokens.
    #[must_use]
    pub fn under(mut self, rules: Option<Arc<Enforced>>) -> Self {
        self.rules = rules.filter(|rules| !rules.in_force.tokens.is_empty());
        self
    }

    /// Whether its request was given up. Whoever sends it on is woken when that is.
    pub(in crate::http) fn is_given_up(&self, cx: &Context<'_>) -> bool {
        self.inner.as_ref().is_some_and(|(_, flow)| flow.is_given_up(cx))
    }

    fn faulty(
        &mut self,
        reason: RequestFault,
        fault: BodyFault,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some((body, flow)) = self.inner.take() {
            body.let_go();
            flow.faulty(reason);
        }
        Poll::Ready(Some(Err(fault)))
    }

    /// Whether the client has paused for too long. The timer costs nothing until it pauses at all.
    fn paused(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let Some((_, flow)) = &self.inner else {
            return false;
        };
        flow.awaits_client(cx);
        if flow.is_answered() {
            // It is a conversation now, over which somebody else watches.
            return false;
        }
        let due = match self.bounds.pause {
            Pause::PerPiece(pause) => since + self.pace.left(pause),
            Pause::PerWord(pause) => since + pause,
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// The client went on.
    fn resumed(&mut self) {
        if let Some(since) = self.since.take() {
            self.pace.waited(since.elapsed());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let Some((body, flow)) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if flow.verdict().is_some() {
            this.inner = None;
            return Poll::Ready(Some(Err(BodyFault::Over(h2::Reason::CANCEL.into()))));
        }
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if this.paused(cx) => {
                return this.faulty(RequestFault::Slow, BodyFault::Slow);
            }
            Poll::Pending => return Poll::Pending,
        };
        flow.went_on();
        match frame {
            Some(Ok(mut frame)) => {
                let mut more = 0;
                if let Some(data) = frame.data_ref() {
                    more = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    if flow.received(more) > this.bounds.bytes {
                        return this.faulty(RequestFault::BodyTooLarge, BodyFault::TooLarge);
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    sane_trailers(trailers);
                    if let Some(rules) = &this.rules {
                        Edits::without_outputs(&rules.in_force.tokens).apply(trailers);
                    }
                }
                this.resumed();
                this.pace.moved(more);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => this.faulty(RequestFault::Bad, BodyFault::Client(error)),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some((body, _)) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
