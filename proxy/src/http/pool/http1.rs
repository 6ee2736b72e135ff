//! HTTP/1 connections to an upstream, each driven by the request that has it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use signet_certs::{SpiffeId, UnixTime};
use tokio::time::Instant;

use super::{Answer, Permit, Pool, SendFailure, Sent};
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::limits::HttpLimits;
use crate::keys::Trust;
use crate::outbound::Dialed;
use crate::shared::Shared;

type Driver = dyn Future<Output = hyper::Result<()>> + Send;

/// Bytes that are read ahead of what is forwarded, per connection.
const READ_AHEAD: usize = 64 * 1024;

/// A connection.
struct Wire {
    sender: SendRequest<RequestBody>,
    /// Nothing once it has ended.
    driver: Option<Pin<Box<Driver>>>,
    address: SocketAddr,
    peer: Option<SpiffeId>,
    /// What that rests on.
    trust: Option<Arc<Trust>>,
    /// When it takes no more requests.
    retires: Option<UnixTime>,
}

impl Wire {
    /// Moves bytes. False once the connection has ended: by itself, or because its other end is no longer trusted.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(trust) = &self.trust
            && trust.poll_withdrawn(cx).is_ready()
        {
            self.driver = None;
        }
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
        self.driver.is_some()
    }
}

/// A connection that waits for a request.
pub(super) struct Idle {
    wire: Box<Wire>,
    since: Instant,
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Idle({})", self.wire.address)
    }
}

impl Idle {
    pub(super) fn is_old(&self, wait: Duration) -> bool {
        self.since.elapsed() > wait
    }

    /// Whether the bundles no longer vouch for its other end.
    pub(super) fn is_untrusted(&self) -> bool {
        self.wire.trust.as_ref().is_some_and(|trust| trust.is_withdrawn())
    }

    /// Whether it may carry one more request.
    pub(super) fn is_fresh(&self, now: UnixTime, wait: Duration) -> bool {
        let expired = self.wire.retires.is_some_and(|end| end < now);
        !expired && !self.is_old(wait) && !self.is_untrusted() && !self.wire.sender.is_closed()
    }

    /// For a request that has a place.
    pub(super) fn lease(self, pool: &Arc<Pool>, place: Permit) -> Lease {
        Lease {
            wire: self.wire,
            pool: Arc::clone(pool),
            _place: place,
        }
    }
}

/// A connection in the hands of one request.
pub struct Lease {
    wire: Box<Wire>,
    pool: Arc<Pool>,
    _place: Permit,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.wire.address)
    }
}

/// The upstream's side of an upgrade.
pub struct Upgraded {
    lease: Lease,
    on: hyper::upgrade::OnUpgrade,
}

impl std::fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upgraded({:?})", self.lease)
    }
}

impl Upgraded {
    /// The bytes after the answer, and the place that they keep taken.
    ///
    /// # Errors
    /// What hyper said.
    pub async fn open(mut self) -> Result<(hyper::upgrade::Upgraded, Lease), hyper::Error> {
        let io = poll_fn(|cx| {
            self.lease.wire.drive(cx);
            Pin::new(&mut self.on).poll(cx)
        })
        .await?;
        Ok((io, self.lease))
    }
}

impl Lease {
    /// Begins HTTP/1 on a new connection.
    pub(super) async fn begin(
        pool: &Arc<Pool>,
        dialed: Dialed,
        place: Permit,
        limits: &HttpLimits,
        shared: &Shared,
    ) -> Result<Self, SendFailure> {
        let Dialed {
            stream,
            address,
            peer,
            trust,
        } = dialed;
        let retires = super::retires(trust.as_deref(), shared);
        let begun: Result<(_, Connection<_, _>), _> = Builder::new()
            .max_headers(limits.header_count)
            .max_header_size(limits.header_bytes)
            .max_buf_size(READ_AHEAD.max(limits.header_bytes))
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, driver) = begun.map_err(|source| SendFailure::Broken {
            address: pool.named(),
            source,
        })?;
        let wire = Wire {
            sender,
            driver: Some(Box::pin(driver.with_upgrades())),
            address,
            peer,
            trust,
            retires,
        };
        Ok(Self {
            wire: Box::new(wire),
            pool: Arc::clone(pool),
            _place: place,
        })
    }

    /// Moves bytes. False once the connection has ended.
    pub fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.wire.drive(cx)
    }

    /// What the trust in its other end rests on.
    #[must_use]
    pub fn trust(&self) -> Option<&Arc<Trust>> {
        self.wire.trust.as_ref()
    }

    /// Its message is whole: it waits for the next one, if both ends have said all they had to.
    pub fn give_back(mut self, cx: &mut Context<'_>) {
        if self.wire.drive(cx) && self.wire.sender.is_ready() {
            let idle = Idle {
                wire: self.wire,
                since: Instant::now(),
            };
            self.pool.keep(idle);
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(mut self, request: Request<RequestBody>, used: bool) -> Sent {
        // A connection that was closed while it waited says so now, before anything is written to it.
        if used && !poll_fn(|cx| Poll::Ready(self.wire.drive(cx))).await {
            return Sent::Untouched(Box::new(request));
        }
        let mut answer = std::pin::pin!(self.wire.sender.try_send_request(request));
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(done) = answer.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            self.wire.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await;
        let response = match outcome {
            Ok(response) => response,
            Err(mut error) => {
                let untouched = error.take_message();
                let source = error.into_error();
                return match untouched {
                    Some(request) if used => Sent::Untouched(Box::new(request)),
                    _ => {
                        let trust = self.wire.trust.as_deref();
                        Sent::Failed(SendFailure::broken(self.pool.named(), trust, source))
                    }
                };
            }
        };
        self.answered(response).await
    }

    async fn answered(self, mut response: http::Response<hyper::body::Incoming>) -> Sent {
        let (peer, address) = (self.wire.peer.clone(), Some(self.wire.address));
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let on = hyper::upgrade::on(&mut response);
            let upgraded = Some(Upgraded { lease: self, on });
            let response = response.map(|_| ResponseBody::text(bytes::Bytes::new()));
            return Sent::Answered(Box::new(Answer {
                response,
                peer,
                address,
                upgraded,
            }));
        }
        let mut lease = Some(self);
        if hyper::body::Body::is_end_stream(response.body()) {
            poll_fn(|cx| {
                if let Some(lease) = lease.take() {
                    lease.give_back(cx);
                }
                Poll::Ready(())
            })
            .await;
        }
        let response = response.map(|body| ResponseBody::http1(body, lease));
        Sent::Answered(Box::new(Answer {
            response,
            peer,
            address,
            upgraded: None,
        }))
    }
}
