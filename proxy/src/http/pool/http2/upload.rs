//! A request's body on its way into a stream of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::Body as _;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::http::body::RequestBody;

/// The body, and where it goes. The stream is reset when this goes before the body's end.
#[derive(Debug)]
struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
}

/// An upload under way. Until the answer has come, it ends with whoever waits for that.
#[derive(Debug)]
pub(super) struct Uploading(Option<AbortHandle>);

impl Uploading {
    /// Sends what is there at once, and the rest by a task of its own.
    pub(super) async fn begin(body: RequestBody, stream: SendStream<Bytes>, tasks: &TaskTracker) -> Self {
        let mut upload = Upload { body, stream };
        let done = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut upload).poll(cx).is_ready())).await;
        Self((!done).then(|| tasks.spawn(upload).abort_handle()))
    }

    /// The answer has come; the rest of the body may still follow.
    pub(super) fn goes_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Future for Upload {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            // An upstream that has answered may never open its window again.
            if this.body.is_given_up(cx) {
                this.stream.send_reset(Reason::CANCEL);
                return Poll::Ready(());
            }
            // A frame is fetched when a byte of it can go out; how much that is, is for the connection to say.
            this.stream.reserve_capacity(1);
            if this.stream.capacity() == 0 {
                match ready!(this.stream.poll_capacity(cx)) {
                    Some(Ok(0)) => continue,
                    Some(Ok(_)) => {}
                    // The stream is over; its answer tells why.
                    Some(Err(_)) | None => return Poll::Ready(()),
                }
            } else if this.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
                let _ = this.stream.send_data(Bytes::new(), true);
                return Poll::Ready(());
            };
            let Ok(frame) = frame else {
                this.stream.send_reset(Reason::CANCEL);
                return Poll::Ready(());
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = this.body.is_end_stream();
                    if this.stream.send_data(data, last).is_err() || last {
                        return Poll::Ready(());
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        this.stream.reserve_capacity(0);
                        let _ = this.stream.send_trailers(trailers);
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}
