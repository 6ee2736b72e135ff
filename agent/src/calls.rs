//! Calls under way on the workload socket, of whatever service: so many in all, so many of one process or
//! pod.
//!
//! A connection carries many, and each may wait, or be held open, before anything is known of who makes
//! it. What the services count of their own comes on top. What their messages hold has a bound as well
//! (`messages`).

mod messages;

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

pub(crate) use messages::MAX_MESSAGE_BYTES;
use messages::metered;

/// Most calls at once: all streams that are served, and room for calls that are answered once.
const MAX_CALLS: usize = MAX_STREAMS + 2_048;
/// Most of one process, or of one pod with all its processes, likewise.
const MAX_CALLS_OF_ONE: usize = MAX_STREAMS_PER_WORKLOAD + 256;
/// Most bytes that messages hold: an eighth for a pod, so that one or two cannot shut out the rest of a node.
const MAX_HELD: usize = 128 << 20;
/// Most of one process or pod: those of an Envoy with some 130 streams, one for each secret, that says who it is in
/// each answer; of one with 270 that says it once (`set_node_on_first_message_only`).
const MAX_HELD_OF_ONE: usize = 16 << 20;

/// The bound. Clones share it.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    table: Mutex<Table>,
    metrics: Metrics,
}

/// How much there may be in all, and of one.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    calls: [usize; 2],
    held: [usize; 2],
}

const BOUNDS: Bounds = Bounds {
    calls: [MAX_CALLS, MAX_CALLS_OF_ONE],
    held: [MAX_HELD, MAX_HELD_OF_ONE],
};

#[derive(Debug, Default)]
struct Table {
    calls: Counts<Share>,
    held: Counts<Share>,
    quiet: Quiet<(Share, &'static str)>,
}

impl Calls {
    /// Nobody calls yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self::bounded(BOUNDS, metrics)
    }

    fn bounded(bounds: Bounds, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            bounds,
            table: Mutex::default(),
            metrics,
        }))
    }

    /// A place for a call of `peer`; none, counted and logged, where a bound is reached.
    fn take(&self, (share, pid): (Share, Option<i32>)) -> Option<Place> {
        let mut table = self.0.lock();
        if table.calls.add(share, 1, self.0.bounds.calls) {
            let calls = Arc::clone(&self.0);
            return Some(Place { calls, share });
        }
        let most = table.calls.met(&share, 1, self.0.bounds.calls);
        let may_log = table.quiet.may_log((share, "calls"), Instant::now());
        drop(table);
        self.0.metrics.calls_turned_away.inc();
        if may_log {
            tracing::warn!(pid, most, "call turned away: too many are under way");
        }
        None
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for so many bytes of messages.
    ///
    /// # Errors
    /// When there is none; counted and logged here.
    fn hold(&self, (share, pid): (Share, Option<i32>), bytes: usize) -> Result<(), Status> {
        let mut table = self.lock();
        if table.held.add(share, bytes, self.bounds.held) {
            self.metrics.message_bytes.set(gauge(table.held.all()));
            return Ok(());
        }
        let most = table.held.met(&share, bytes, self.bounds.held);
        let may_log = table.quiet.may_log((share, "messages"), Instant::now());
        drop(table);
        self.metrics.messages_turned_away.inc();
        if may_log {
            tracing::warn!(pid, most, "call ended: messages hold as much as they may");
        }
        Err(Status::resource_exhausted(
            "the messages of this workload, or of this node, hold as much as they may; try again shortly",
        ))
    }

    fn release(&self, share: Share, bytes: usize) {
        let mut table = self.lock();
        table.held.remove(&share, bytes);
        self.metrics.message_bytes.set(gauge(table.held.all()));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// One call's place, given back on drop.
#[derive(Debug)]
struct Place {
    calls: Arc<Inner>,
    share: Share,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.calls.lock().calls.remove(&self.share, 1);
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
        let peer = request.extensions().get::<Peer>();
        let caller = (
            peer.map_or(Share::Process(0), Peer::share),
            peer.and_then(Peer::pid),
        );
        let Some(place) = self.calls.take(caller) else {
            let text = "too many calls of this workload, or of this node, are under way; try again shortly";
            return futures::future::ready(Ok(Status::unavailable(text).into_http())).boxed();
        };
        let calls = Arc::clone(&self.calls.0);
        let answer = self.inner.call(request.map(|body| metered(body, calls, caller)));
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

    fn of_calls(calls: [usize; 2]) -> Bounds {
        Bounds { calls, ..BOUNDS }
    }

    #[tokio::test]
    async fn calls_are_bounded_in_all_and_of_one_pod_and_places_come_back() {
        let metrics = Metrics::default();
        let calls = Calls::bounded(of_calls([3, 2]), metrics.clone());
        let pod = peer(Some("2fc932ce-fdcc-454b-97bd-aadfdeb4c340"));
        let take = |peer: &Peer| calls.take((peer.share(), peer.pid()));
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
        let service = Calls::bounded(of_calls([1, 1]), Metrics::default()).layer(answering);
        let call = || service.clone().oneshot(Request::new(Body::empty()));
        let first = call().await.unwrap();
        let refused = call().await.unwrap();
        let refused = Status::from_header_map(refused.headers()).unwrap();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        drop(first);
        assert!(call().await.unwrap().headers().is_empty());
    }
}
