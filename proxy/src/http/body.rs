//! Bodies on their way through: frame by frame, never kept, counted, bounded and not waited for without end.

mod lingering;
mod request;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::flow::Verdict;
use super::headers::sane_trailers;
use super::pace::PIECE;
use super::pool::{Download, Lease, Place};
use super::ticket::Ticket;
use crate::access_log::{Identity, Reason, Upstream};
use crate::keys::Trust;
pub(in crate::http) use lingering::Lingering;
pub use request::{BodyBounds, Pause, RequestBody};

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
    /// The upstream's stream of HTTP/2 broke off or is malformed.
    #[error("the upstream's body: {0}")]
    Stream(#[source] h2::Error),
    /// The request was given up, or answered without the rest of its body.
    #[error("the request is over")]
    Over(#[source] h2::Error),
    /// The upstream's connection failed.
    #[error("the upstream's connection ended within its body")]
    UpstreamGone,
}

/// A response's body, with everything that ends when it does.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    /// Written when the answer is sent or given up.
    ticket: Option<Box<Ticket>>,
    /// What came from the upstream and is to be handed over next.
    rest: Bytes,
}

#[derive(Debug)]
enum Source {
    Text(Bytes),
    /// An HTTP/1 upstream, whose connection is driven here.
    Http1(Incoming, Option<Lease>),
    /// A stream of an HTTP/2 upstream.
    Http2 {
        download: Download,
        /// Let go with the body.
        place: Place,
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
            rest: Bytes::new(),
        }
    }

    /// From an HTTP/1 upstream.
    #[must_use]
    pub fn http1(incoming: Incoming, lease: Option<Lease>) -> Self {
        Self::new(Source::Http1(incoming, lease))
    }

    /// From an HTTP/2 upstream.
    #[must_use]
    pub fn http2(download: Download, place: Place) -> Self {
        Self::new(Source::Http2 { download, place })
    }

    /// With the ticket of its request.
    #[must_use]
    pub fn with(mut self, ticket: Box<Ticket>) -> Self {
        ticket.answered();
        self.ticket = Some(ticket);
        self
    }

    fn is_end(&self) -> bool {
        self.rest.is_empty() && self.source.is_end()
    }

    /// As much of `data` as may be handed over at once. A stream of HTTP/2 takes pieces, so that how fast its client is
    /// can be told.
    fn piece(&mut self, mut data: Bytes) -> Bytes {
        if data.len() > PIECE
            && self
                .ticket
                .as_ref()
                .is_some_and(|ticket| ticket.flow().is_stream())
        {
            self.rest = data.split_off(PIECE);
        }
        data
    }

    fn failed(
        &mut self,
        reason: Upstream,
        fault: BodyFault,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let (reason, detail) = match self.source.trust().and_then(|trust| trust.fault()) {
            Some(fault) => (Reason::Identity(Identity::TrustWithdrawn), fault.to_string()),
            None => (Reason::Upstream(reason), fault.to_string()),
        };
        if let Some(ticket) = &mut self.ticket {
            ticket.ended(reason, Some(detail));
        }
        if let Source::Http1(_, lease) = &mut self.source {
            *lease = None;
        }
        Poll::Ready(Some(Err(fault)))
    }
}

impl Source {
    /// What the trust in the upstream rests on.
    fn trust(&self) -> Option<&Arc<Trust>> {
        match self {
            Self::Text(_) => None,
            Self::Http1(_, lease) => lease.as_ref()?.trust(),
            Self::Http2 { place, .. } => place.trust(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self {
            Self::Text(text) if text.is_empty() => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Http2 { download, .. } => Pin::new(download)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyFault::Stream))),
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
        if let Some(ticket) = &this.ticket {
            if ticket
                .flow()
                .verdict()
                .is_some_and(|verdict| verdict != Verdict::Over)
            {
                // Its ticket knows why.
                return Poll::Ready(Some(Err(BodyFault::Over(h2::Reason::CANCEL.into()))));
            }
            ticket.flow().asked();
        }
        let rest = std::mem::take(&mut this.rest);
        let frame = if rest.is_empty() {
            ready!(this.source.poll(cx))
        } else {
            Some(Ok(Frame::data(rest)))
        };
        if this.ticket.is_none() {
            return Poll::Ready(frame);
        }
        let frame = frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(data) => Frame::data(this.piece(data)),
                Err(frame) => frame,
            })
        });
        let ended = this.is_end();
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
                if ended {
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
        self.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.source {
            Source::Text(text) => SizeHint::with_exact(u64::try_from(text.len()).unwrap_or(u64::MAX)),
            Source::Http1(incoming, _) => incoming.size_hint(),
            Source::Http2 { download, .. } => download.size_hint(),
        };
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

impl Source {
    fn is_end(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Http1(incoming, _) => incoming.is_end_stream(),
            Self::Http2 { download, .. } => download.is_end_stream(),
        }
    }
}
