//! Bodies on their way through: frame by frame, never kept, counted, bounded and not waited for without end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::headers::sane_trailers;
use super::pool::{Lease, Place};
use super::ticket::Ticket;
use crate::access_log::{Reason, RequestFault, Upstream};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    /// The client's message broke off or is malformed.
    #[error("the client's body: {0}")]
    Client(#[source] hyper::Error),
    /// The client's body is larger than allowed.
    #[error("the client's body is larger than allowed")]
    TooLarge,
    /// The client paused for too long.
    #[error("the client paused in its body for too long")]
    Slow,
    /// The upstream's message broke off or is malformed.
    #[error("the upstream's body: {0}")]
    Upstream(#[source] hyper::Error),
    /// The whole request took too long.
    #[error("the request took longer than it may in all")]
    Late,
    /// The upstream's connection failed.
    #[error("the upstream's connection ended within its body")]
    UpstreamGone,
}

/// What is known of a request's body while it is sent: shared with whoever answers for the request.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    fault: AtomicU8,
}

impl Progress {
    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What is wrong with the client's body, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<RequestFault> {
        match self.fault.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(RequestFault::BodyTooLarge),
            2 => Some(RequestFault::Slow),
            _ => Some(RequestFault::Bad),
        }
    }
}

/// Bounds of a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Most bytes.
    pub bytes: u64,
    /// Longest pause.
    pub pause: Duration,
}

/// A request's body.
#[derive(Debug)]
pub struct RequestBody {
    /// Nothing for a request without one.
    inner: Option<(Incoming, Arc<Progress>)>,
    bounds: BodyBounds,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl RequestBody {
    /// Of a request without a body.
    #[must_use]
    pub fn none() -> Self {
        Self::new(
            None,
            BodyBounds {
                bytes: 0,
                pause: Duration::MAX,
            },
        )
    }

    /// The client's.
    #[must_use]
    pub fn of(incoming: Incoming, progress: Arc<Progress>, bounds: BodyBounds) -> Self {
        Self::new(Some((incoming, progress)), bounds)
    }

    fn new(inner: Option<(Incoming, Arc<Progress>)>, bounds: BodyBounds) -> Self {
        Self {
            inner,
            bounds,
            timer: None,
            waiting: false,
        }
    }

    fn faulty(&mut self, number: u8, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some((_, progress)) = self.inner.take() {
            progress.fault.store(number, Ordering::Relaxed);
        }
        Poll::Ready(Some(Err(fault)))
    }

    /// Whether the client has paused for too long. The timer costs nothing until it pauses at all.
    fn paused(&mut self, cx: &mut Context<'_>) -> bool {
        let until = Instant::now() + self.bounds.pause;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).is_ready()
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
        let Some((incoming, progress)) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let frame = match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if this.paused(cx) => return this.faulty(2, BodyFault::Slow),
            Poll::Pending => return Poll::Pending,
        };
        this.waiting = false;
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    let more = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    let bytes = progress
                        .bytes
                        .fetch_add(more, Ordering::Relaxed)
                        .saturating_add(more);
                    if bytes > this.bounds.bytes {
                        return this.faulty(1, BodyFault::TooLarge);
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    sane_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => this.faulty(3, BodyFault::Client(error)),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner
            .as_ref()
            .is_none_or(|(incoming, _)| incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some((incoming, _)) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// A response's body, with everything that ends when it does.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    /// Written when the answer is sent or given up.
    ticket: Option<Box<Ticket>>,
    /// When the whole request must be over.
    deadline: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Source {
    Text(Bytes),
    /// An HTTP/1 upstream, whose connection is driven here.
    Http1(Incoming, Option<Lease>),
    /// A stream of an HTTP/2 upstream.
    Http2 {
        incoming: Incoming,
        /// Let go with the body.
        _place: Place,
    },
}

impl ResponseBody {
    /// Our own words.
    #[must_use]
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::new(Source::Text(text.into()))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            ticket: None,
            deadline: None,
        }
    }

    /// From an HTTP/1 upstream.
    #[must_use]
    pub fn http1(incoming: Incoming, lease: Option<Lease>) -> Self {
        Self::new(Source::Http1(incoming, lease))
    }

    /// From an HTTP/2 upstream.
    #[must_use]
    pub fn http2(incoming: Incoming, place: Place) -> Self {
        Self::new(Source::Http2 {
            incoming,
            _place: place,
        })
    }

    /// With the ticket of its request, and until when it may take.
    #[must_use]
    pub fn with(mut self, ticket: Box<Ticket>, deadline: Option<Instant>) -> Self {
        self.ticket = Some(ticket);
        self.deadline = deadline.map(|end| Box::pin(tokio::time::sleep_until(end)));
        self
    }

    fn failed(
        &mut self,
        reason: Upstream,
        fault: BodyFault,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(ticket) = &mut self.ticket {
            ticket.ended(Reason::Upstream(reason), Some(fault.to_string()));
        }
        if let Source::Http1(_, lease) = &mut self.source {
            *lease = None;
        }
        Poll::Ready(Some(Err(fault)))
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self {
            Self::Text(text) if text.is_empty() => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Http2 { incoming, .. } => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyFault::Upstream))),
            Self::Http1(incoming, lease) => {
                let frame = match Pin::new(&mut *incoming).poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => {
                        let open = lease.as_mut().is_some_and(|lease| lease.drive(cx));
                        match Pin::new(&mut *incoming).poll_frame(cx) {
                            Poll::Ready(frame) => frame,
                            Poll::Pending if open => return Poll::Pending,
                            Poll::Pending => return Poll::Ready(Some(Err(BodyFault::UpstreamGone))),
                        }
                    }
                };
                if incoming.is_end_stream() || frame.is_none() {
                    // Nothing more is wanted of the connection: the next request may have it.
                    if let Some(lease) = lease.take() {
                        lease.give_back(cx);
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyFault::Upstream)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = this.source.poll(cx) else {
            let late = this
                .deadline
                .as_mut()
                .is_some_and(|end| end.as_mut().poll(cx).is_ready());
            return if late {
                this.failed(Upstream::Slow, BodyFault::Late)
            } else {
                Poll::Pending
            };
        };
        let Some(ticket) = &mut this.ticket else {
            return Poll::Ready(frame);
        };
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    ticket.sent(data.len());
                } else if let Some(trailers) = frame.trailers_mut() {
                    sane_trailers(trailers);
                    ticket.grpc_status(trailers);
                }
                if this.source.is_end() {
                    ticket.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(fault)) => this.failed(Upstream::Reset, fault),
            None => {
                ticket.complete();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(u64::try_from(text.len()).unwrap_or(u64::MAX)),
            Source::Http1(incoming, _) | Source::Http2 { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Source {
    fn is_end(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Http1(incoming, _) | Self::Http2 { incoming, .. } => incoming.is_end_stream(),
        }
    }
}
