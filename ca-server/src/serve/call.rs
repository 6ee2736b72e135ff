//! One call: to `CreateCertificate`, to a service that tonic generates, or to nothing that is served.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use signet_proto::wire::signet::ca::v1::authority_server::SERVICE_NAME as AUTHORITY;
use tonic::Status;
use tower::Service as _;

use super::body::{self, Incoming};
use super::{CALL_DEADLINE, MessageError, Server, message};
use crate::jwt_service::Minting;
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::service::Issuing;

const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const MINT_JWT_SVID: &str = "/signet.ca.v1.Authority/MintJwtSvid";

/// What a call came to.
enum Reply {
    /// The one message of a unary call.
    Message(Bytes),
    Refused(Box<Status>),
    /// A generated service's answer, which may go on for as long as the connection.
    Streamed(Box<Response<tonic::body::Body>>),
    /// Everything is sent already.
    Sent,
}

/// An answer that has not left yet.
pub(super) struct Answer {
    reply: Reply,
    respond: SendResponse<Bytes>,
}

impl Answer {
    /// Hands the answer to the connection. What cannot go at once is a call of its own. A peer that has
    /// left is no fault, so nothing here fails.
    pub(super) fn send(mut self) -> Option<Call> {
        match self.reply {
            Reply::Message(message) => {
                let mut head = Response::new(());
                head.headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                if let Ok(mut stream) = self.respond.send_response(head, false)
                    && stream.send_data(message, false).is_ok()
                {
                    let mut trailers = HeaderMap::with_capacity(1);
                    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                    let _ = stream.send_trailers(trailers);
                }
                None
            }
            Reply::Refused(status) => {
                let _ = self.respond.send_response(status.into_http(), true);
                None
            }
            Reply::Streamed(response) => {
                let (head, body) = response.into_parts();
                let end = hyper::body::Body::is_end_stream(&body);
                let stream = self
                    .respond
                    .send_response(Response::from_parts(head, ()), end)
                    .ok()?;
                let work = async move {
                    body::send(body, stream).await;
                    Reply::Sent
                };
                (!end).then(|| Call {
                    work: Box::pin(work),
                    respond: None,
                })
            }
            Reply::Sent => None,
        }
    }
}

/// A call under way. It ends early when the peer takes it back.
pub(super) struct Call {
    work: BoxFuture<'static, Reply>,
    respond: Option<SendResponse<Bytes>>,
}

impl Call {
    /// Nothing is done until it is polled.
    pub(super) fn new(
        server: &Arc<Server>,
        peer: &Arc<Peer>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Self {
        let (server, peer) = (Arc::clone(server), Arc::clone(peer));
        let path = request.uri().path();
        let work: BoxFuture<'static, Reply> = if path == CREATE_CERTIFICATE {
            Box::pin(async move { unary(&server.issuing, &server, &peer, request).await })
        } else if path == MINT_JWT_SVID {
            Box::pin(async move { unary(&server.minting, &server, &peer, request).await })
        } else if path
            .strip_prefix('/')
            .and_then(|path| path.strip_prefix(AUTHORITY))
            .is_some_and(|rest| rest.starts_with('/'))
        {
            Box::pin(generated(server, peer, request))
        } else {
            let unknown = Status::unimplemented("no such method here");
            Box::pin(std::future::ready(Reply::Refused(Box::new(unknown))))
        };
        Self {
            work,
            respond: Some(respond),
        }
    }
}

impl Future for Call {
    /// Nothing when the peer took the call back, or has its answer already.
    type Output = Option<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        if let Poll::Ready(reply) = self.work.as_mut().poll(cx) {
            let respond = self.respond.take();
            return Poll::Ready(respond.map(|respond| Answer { reply, respond }));
        }
        match &mut self.respond {
            Some(respond) => {
                let _taken_back = ready!(respond.poll_reset(cx));
                Poll::Ready(None)
            }
            None => Poll::Pending,
        }
    }
}

/// A method with one message each way. It counts and records every call, whatever becomes of it.
trait Unary {
    async fn answer(&self, headers: &HeaderMap, message: Bytes, peer: &Peer) -> Result<Bytes, Status>;
    fn unreadable(&self, error: MessageError, peer: &Peer) -> Status;
    fn late(&self, peer: &Peer) -> Status;
}

macro_rules! unary {
    ($service:ty, $method:ident) => {
        impl Unary for $service {
            async fn answer(
                &self,
                headers: &HeaderMap,
                message: Bytes,
                peer: &Peer,
            ) -> Result<Bytes, Status> {
                self.$method(headers, message, peer).await
            }

            fn unreadable(&self, error: MessageError, peer: &Peer) -> Status {
                Self::unreadable(self, error, peer)
            }

            fn late(&self, peer: &Peer) -> Status {
                Self::late(self, peer)
            }
        }
    };
}

unary!(Issuing, create);
unary!(Minting, mint);

async fn unary(method: &impl Unary, server: &Server, peer: &Peer, request: Request<RecvStream>) -> Reply {
    let (head, mut body) = request.into_parts();
    let mut wait = server.waiting.call(peer.address);
    let answer = async {
        match message::read(&mut body, &mut wait).await {
            Ok(message) => method.answer(&head.headers, message, peer).await,
            Err(error) => Err(method.unreadable(error, peer)),
        }
    };
    let answer = match tokio::time::timeout(patience(&head.headers), answer).await {
        Ok(answer) => answer,
        Err(_) => Err(method.late(peer)),
    };
    match answer {
        Ok(message) => Reply::Message(message),
        Err(status) => Reply::Refused(Box::new(status)),
    }
}

async fn generated(server: Arc<Server>, peer: Arc<Peer>, request: Request<RecvStream>) -> Reply {
    let wait = server.waiting.call(peer.address);
    let mut request = request.map(|stream| Incoming { stream, wait });
    request.extensions_mut().insert(Peer::clone(&peer));
    let mut service = server.authority.clone();
    match tokio::time::timeout(patience(request.headers()), service.call(request)).await {
        Ok(Ok(response)) => Reply::Streamed(Box::new(response)),
        Err(_) => {
            Metrics::count(&server.metrics.bundle_watch_refusals, "deadline");
            Reply::Refused(Box::new(Status::deadline_exceeded("not answered in time")))
        }
    }
}

/// How long the call may take: as long as the caller waits (`grpc-timeout`), and never longer than
/// [`CALL_DEADLINE`].
fn patience(headers: &HeaderMap) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| {
        let (unit, number) = value.as_bytes().split_last()?;
        let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
        match unit {
            b'H' => Some(Duration::from_secs(number.saturating_mul(3600))),
            b'M' => Some(Duration::from_secs(number.saturating_mul(60))),
            b'S' => Some(Duration::from_secs(number)),
            b'm' => Some(Duration::from_millis(number)),
            b'u' => Some(Duration::from_micros(number)),
            b'n' => Some(Duration::from_nanos(number)),
            _ => None,
        }
    });
    asked.map_or(CALL_DEADLINE, |asked| asked.min(CALL_DEADLINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_take_as_long_as_the_caller_waits_and_never_longer_than_ours() {
        for (value, patience_of) in [
            (None, CALL_DEADLINE),
            (Some("5S"), Duration::from_secs(5)),
            (Some("250m"), Duration::from_millis(250)),
            (Some("7u"), Duration::from_micros(7)),
            (Some("99999999H"), CALL_DEADLINE),
            (Some("18446744073709551615H"), CALL_DEADLINE),
            (Some("1x"), CALL_DEADLINE),
            (Some("S"), CALL_DEADLINE),
            (Some("\u{e9}S"), CALL_DEADLINE),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert("grpc-timeout", HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(patience(&headers), patience_of, "{value:?}");
        }
    }
}
