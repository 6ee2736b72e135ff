//! Calls under way on the workload socket, of whatever service: so many in all, so many of one process or
//! pod.
//!
//! A connection carries many, and each may wait, or be held open, before anything is known of who makes
//! it. What the services count of their own comes on top.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::attest::{Peer, Share};
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::sds::streams::counts::Counts;
use crate::sds::streams::{MAX_STREAMS, MAX_STREAMS_PER_WORKLOAD};

/// Most calls at once: all streams that are served, and room for calls that are answered once.
const MAX_CALLS: usize = MAX_STREAMS + 4_096;
/// Most of one process, or of one pod with all its processes, likewise.
const MAX_CALLS_OF_ONE: usize = MAX_STREAMS_PER_WORKLOAD + 512;

/// The bound. Clones share it.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    most_of_one: usize,
    table: Mutex<Table>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Table {
    all: usize,
    of_one: Counts<Share>,
    quiet: Quiet<Share>,
}

impl Calls {
    /// Nobody calls yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self::bounded(MAX_CALLS, MAX_CALLS_OF_ONE, metrics)
    }

    fn bounded(most: usize, most_of_one: usize, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            most,
            most_of_one,
            table: Mutex::default(),
            metrics,
        }))
    }

    /// A place for a call of `peer`; none, counted and logged, where a bound is reached.
    fn take(&self, peer: Option<&Peer>) -> Option<Place> {
        let share = peer.map_or(Share::Process(0), Peer::share);
        let mut table = self.0.lock();
        if table.all < self.0.most && table.of_one.add(share, self.0.most_of_one) {
            table.all += 1;
            let calls = Arc::clone(&self.0);
            return Some(Place { calls, share });
        }
        let may_log = table.quiet.may_log(share, Instant::now());
        drop(table);
        self.0.metrics.calls_turned_away.inc();
        if may_log {
            let pid = peer.and_then(Peer::pid);
            tracing::warn!(
                pid,
                most = self.0.most_of_one,
                "call turned away: too many are under way"
            );
        }
        None
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call's place, given back on drop.
#[derive(Debug)]
struct Place {
    calls: Arc<Inner>,
    share: Share,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.calls.lock();
        table.all = table.all.saturating_sub(1);
        table.of_one.remove(&self.share);
    }
}

impl<S> Layer<S> for Calls {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        let calls = self.clone();
        Bounded { inner, calls }
    }
}

/// Services within the bound.
#[derive(Clone, Debug)]
pub struct Bounded<S> {
    inner: S,
    calls: Calls,
}

impl<S> Service<Request<Body>> for Bounded<S>
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
        let Some(place) = self.calls.take(request.extensions().get::<Peer>()) else {
            let text = "too many calls of this workload, or of this node, are under way; try again shortly";
            return futures::future::ready(Ok(Status::unavailable(text).into_http())).boxed();
        };
        let answer = self.inner.call(request);
        async move {
            let response = answer.await?;
            // Until the body is gone, which for a stream is its end.
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _held = &place;
                    frame
                }))
            }))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::attest::cgroup::PodUid;

    fn peer(pod: Option<&str>) -> Peer {
        let (accepted, _) = tokio::net::UnixStream::pair().unwrap();
        let peer = Peer::by_credentials(&accepted).unwrap();
        peer.seen_in(pod.map(|uid| PodUid::parse(uid).unwrap()))
    }

    #[tokio::test]
    async fn calls_are_bounded_in_all_and_of_one_pod_and_places_come_back() {
        let metrics = Metrics::default();
        let calls = Calls::bounded(3, 2, metrics.clone());
        let pod = peer(Some("2fc932ce-fdcc-454b-97bd-aadfdeb4c340"));
        let take = |peer: &Peer| calls.take(Some(peer));
        let mut held = vec![take(&pod).unwrap(), take(&pod).unwrap()];
        assert!(take(&pod).is_none(), "two of one");
        held.push(take(&peer(None)).unwrap());
        assert!(take(&peer(None)).is_none(), "three in all");
        assert_eq!(metrics.calls_turned_away.get(), 2);
        held.clear();
        assert!(take(&pod).is_some());
    }

    #[tokio::test]
    async fn a_call_keeps_its_place_until_its_answer_is_gone() {
        let answering = service_fn(async |_: Request<Body>| {
            let body = http_body_util::Full::new(bytes::Bytes::from_static(b"x"));
            Ok(Response::new(Body::new(body)))
        });
        let service = Calls::bounded(1, 1, Metrics::default()).layer(answering);
        let call = || service.clone().oneshot(Request::new(Body::empty()));
        let first = call().await.unwrap();
        let refused = call().await.unwrap();
        let refused = Status::from_header_map(refused.headers()).unwrap();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        drop(first);
        assert!(call().await.unwrap().headers().is_empty());
    }
}
