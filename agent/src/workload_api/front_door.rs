//! What every call of the Workload API passes, and no other service of the socket: the security
//! metadata is demanded (SPIFFE_Workload_Endpoint §3), and requests too large to be read are counted.
//!
//! Envoy's SDS calls and reflection tools do not send the metadata, so it is a matter of the service
//! and not of the socket.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use signet_proto::workload::{SECURITY_KEY, SECURITY_VALUE};
use tonic::Code;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::refusal::{no_header, status};
use crate::metrics::Metrics;

/// A service behind its door.
#[derive(Clone, Debug)]
pub struct FrontDoor<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> FrontDoor<S> {
    /// Puts `inner` behind a door.
    #[must_use]
    pub fn new(inner: S, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }
}

impl<S: NamedService> NamedService for FrontDoor<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for FrontDoor<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !is_secure(request.headers()) {
            let closing = no_header();
            Metrics::blame(&self.metrics.workload_refusals, closing.reason);
            return futures::future::ready(Ok(status(&closing).into_http())).boxed();
        }
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        async move {
            let response = answer.await?;
            if code(response.headers()) == Some(Code::OutOfRange) {
                // Only the reader of requests says so: no handler uses this code.
                Metrics::blame(&metrics.workload_refusals, "too_large");
            }
            Ok(response)
        }
        .boxed()
    }
}

/// Whether the metadata is there exactly once, with exactly its value.
fn is_secure(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(SECURITY_KEY).iter();
    let first = values.next().map(http::HeaderValue::as_bytes);
    first == Some(SECURITY_VALUE.as_bytes()) && values.next().is_none()
}

/// The status of a call that failed before its answer began.
fn code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SECURITY_KEY, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_the_exact_metadata_given_once_opens_the_door() {
        assert!(is_secure(&with(&["true"])));
        for refused in [
            &[][..],
            &[""],
            &["True"],
            &["TRUE"],
            &["1"],
            &["true "],
            &["true, true"],
            &["true", "true"],
            &["true", "false"],
        ] {
            assert!(!is_secure(&with(refused)), "{refused:?}");
        }
    }
}
