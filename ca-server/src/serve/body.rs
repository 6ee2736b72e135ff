//! Bodies for the services that tonic generates: a stream of h2's as they read it, and what they answer
//! as h2 sends it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use hyper::body::{Body, Frame};
use tonic::Status;

use super::waiting::Wait;
use crate::serve::MessageError;

/// A request's body, and the place of its call while more of it is waited for.
pub(super) struct Incoming {
    pub(super) stream: RecvStream,
    pub(super) wait: Wait,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = this.stream.poll_data(cx);
        if polled.is_pending() && this.wait.begin(cx).is_err() {
            return Poll::Ready(Some(Err(MessageError::Busy.status())));
        }
        match ready!(polled) {
            Some(Ok(data)) => {
                // Taken over: the peer may send as much again.
                let _ = this.stream.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(e)) => Poll::Ready(Some(Err(Status::from_error(Box::new(e))))),
            None => {
                let trailers = ready!(this.stream.poll_trailers(cx));
                let trailers = trailers.map_err(|e| Status::from_error(Box::new(e)))?;
                this.wait.end();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// Sends `body` as fast as the peer takes it, until its end or until the peer has had enough.
pub(super) async fn send(mut body: tonic::body::Body, mut stream: SendStream<Bytes>) {
    loop {
        let next = poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut body).poll_frame(cx).map(Some)
        });
        let sent = match next.await {
            None => return,
            Some(None) => return drop(stream.send_data(Bytes::new(), true)),
            Some(Some(Err(_))) => return stream.send_reset(Reason::INTERNAL_ERROR),
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => send_data(&mut stream, data).await,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return drop(stream.send_trailers(trailers));
                }
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The peer is gone.
struct Gone;

async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), Gone> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(room)) => {
                let now = data.split_to(room.min(data.len()));
                stream.send_data(now, false).map_err(|_| Gone)?;
            }
            _ => return Err(Gone),
        }
    }
    Ok(())
}
