//! An answer's body out of a stream of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body, Frame, SizeHint};

/// The body. Its connection is driven by a task of its own.
#[derive(Debug)]
pub struct Download {
    stream: RecvStream,
    /// What is still to come, where the answer told.
    left: Option<u64>,
    data_done: bool,
}

impl Download {
    /// Of the answer with these headers.
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let told = length(headers);
        // Without a body nothing is to come, whatever is not told.
        let left = told.or_else(|| stream.is_end_stream().then_some(0));
        Self {
            stream,
            left,
            data_done: false,
        }
    }
}

/// The length that the answer tells, if it tells one.
fn length(headers: &HeaderMap) -> Option<u64> {
    let mut all = headers.get_all(CONTENT_LENGTH).iter();
    let first = all.next()?;
    if all.any(|other| other != first) || !first.as_bytes().iter().all(u8::is_ascii_digit) {
        return None;
    }
    first.to_str().ok()?.parse().ok()
}

impl Body for Download {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        if !this.data_done {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It goes on at once; the client's pace is in how fast it is asked for.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    let more = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    this.left = this.left.map(|left| left.saturating_sub(more));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // The answer is whole; the upstream does not want the rest of the request (RFC 9113 §8.1).
                Some(Err(error)) if error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => {
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.data_done = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
