//! Ends the requests of a service at shutdown, for services that know nothing of it. A service that has
//! read the last of its requests ends its answer by itself, and then the connection can be drained.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyStream, StreamBody};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// A service whose requests end.
#[derive(Clone, Debug)]
pub struct Ending<S> {
    inner: S,
    shutdown: CancellationToken,
}

impl<S> Ending<S> {
    /// Ends what `inner` reads when `shutdown` is given.
    #[must_use]
    pub fn new(inner: S, shutdown: CancellationToken) -> Self {
        Self { inner, shutdown }
    }
}

impl<S: NamedService> NamedService for Ending<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Ending<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ended = self.shutdown.clone().cancelled_owned();
        let until = |body| Body::new(StreamBody::new(BodyStream::new(body).take_until(ended)));
        self.inner.call(request.map(until))
    }
}
