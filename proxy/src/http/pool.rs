//! Connections to one upstream: kept for the next request while they are clean, bounded in number.
//!
//! An HTTP/1 connection is driven by the request that has it ([`Lease`]): no task of its own, no channel between
//! two. HTTP/2 connections are shared and have a task each.

mod http1;
mod http2;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use signet_certs::certificate::Certificate;
use signet_certs::{SpiffeId, UnixTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::body::{RequestBody, ResponseBody};
use super::metrics::HttpMetrics;
use crate::access_log::{Reason, Upstream as Fault};
use crate::keys::Own;
use crate::outbound::{DialFailure, Upstream, dial};
use crate::shared::Shared;
use crate::stream::Stream;
pub use http1::{Lease, Upgraded};
pub use http2::Place;

/// Most upstreams whose connections are kept. Captured traffic goes wherever the workload wants.
const MAX_POOLS: usize = 4096;
/// Most HTTP/1 connections that wait for a request of one upstream.
const MAX_IDLE: usize = 256;
/// How long a request waits for another one to end, where there are as many as allowed.
const QUEUE_WAIT: Duration = Duration::from_secs(1);

/// All pools of the process.
#[derive(Debug)]
pub struct Pools {
    pools: Mutex<HashMap<Upstream, Arc<Pool>>>,
    tasks: TaskTracker,
    metrics: HttpMetrics,
}

impl Pools {
    /// Without a connection.
    #[must_use]
    pub fn new(metrics: HttpMetrics) -> Self {
        Self {
            pools: Mutex::default(),
            tasks: TaskTracker::new(),
            metrics,
        }
    }

    /// The tasks that outlive a request: HTTP/2 connections to upstreams, and tunnels.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// The metrics of HTTP.
    #[must_use]
    pub fn metrics(&self) -> &HttpMetrics {
        &self.metrics
    }

    /// The pool of an upstream.
    #[must_use]
    pub fn of(&self, upstream: &Upstream, requests: usize) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(upstream) {
            return Arc::clone(pool);
        }
        if pools.len() >= MAX_POOLS {
            // Those that nobody uses now lose their waiting connections.
            pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        }
        let pool = Arc::new(Pool {
            upstream: upstream.clone(),
            places: Arc::new(Semaphore::new(requests)),
            idle: Mutex::default(),
            shared: http2::Connections::default(),
            tasks: self.tasks.clone(),
            retries: self.metrics.retries.clone(),
        });
        if pools.len() < MAX_POOLS {
            pools.insert(upstream.clone(), Arc::clone(&pool));
        }
        pool
    }

    /// Closes connections that wait in vain, now and then, without end.
    pub async fn sweep_for_ever(&self, idle: Duration) {
        loop {
            tokio::time::sleep(idle / 2).await;
            self.sweep(idle);
        }
    }

    /// Closes connections that wait in vain.
    pub fn sweep(&self, idle: Duration) {
        let pools: Vec<Arc<Pool>> = {
            let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            pools.values().cloned().collect()
        };
        for pool in pools {
            pool.sweep(idle);
        }
    }
}

/// A connection takes no more requests so long before the first of the two SVIDs ends that secured it: at that
/// end the other side closes it, and a request must not cross that on its way.
const RETIRED_EARLY: Duration = Duration::from_secs(2);

/// When a connection takes no more requests, if its ends have identities.
fn retires(stream: &Stream, shared: &Shared) -> Option<UnixTime> {
    let Stream::Client(tls) = stream else {
        return None;
    };
    let ours = shared.keys.current();
    let ours = ours.and_then(|snapshot| snapshot.own().map(Own::not_after));
    let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.and_then(|leaf| Certificate::from_der(leaf.clone().into_owned()).ok());
    let theirs = leaf.map(|leaf| leaf.not_after());
    let end = ours.into_iter().chain(theirs).min()?;
    let early = end.as_secs().saturating_sub(RETIRED_EARLY.as_secs());
    Some(UnixTime::since_unix_epoch(Duration::from_secs(early)))
}

/// The connections to one upstream.
#[derive(Debug)]
pub struct Pool {
    upstream: Upstream,
    /// One for each request that may be under way.
    places: Arc<Semaphore>,
    idle: Mutex<Vec<http1::Idle>>,
    shared: http2::Connections,
    tasks: TaskTracker,
    retries: prometheus_client::metrics::counter::Counter,
}

/// An upstream's answer, and who gave it.
#[derive(Debug)]
pub struct Answer {
    /// The answer.
    pub response: Response<ResponseBody>,
    /// The identity that the upstream proved.
    pub peer: Option<SpiffeId>,
    /// Where it is.
    pub address: Option<std::net::SocketAddr>,
    /// The upstream's side of an upgrade that it accepted.
    pub upgraded: Option<Upgraded>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendFailure {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialFailure),
    /// As many requests as allowed are under way.
    #[error("{0} has as many requests under way as allowed")]
    Busy(String),
    /// The connection or its protocol failed.
    #[error("{address}: {source}")]
    Broken {
        /// Whom.
        address: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// The connection ended before an answer.
    #[error("{0} closed the connection before it answered")]
    Closed(String),
}

impl SendFailure {
    /// For records and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dial(failure) => failure.reason(),
            Self::Busy(_) => Reason::Upstream(Fault::Busy),
            Self::Broken { source, .. } if source.is_parse() => Reason::Upstream(Fault::BadAnswer),
            Self::Broken { .. } | Self::Closed(_) => Reason::Upstream(Fault::Reset),
        }
    }
}

/// What became of one attempt to send a request.
enum Sent {
    Answered(Box<Answer>),
    /// The connection surely took nothing of it.
    Untouched(Box<Request<RequestBody>>),
    Failed(SendFailure),
}

impl Pool {
    /// Whom it is of.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn named(&self) -> String {
        self.upstream.address.to_string()
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, SendFailure> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let waiting = tokio::time::timeout(QUEUE_WAIT, Arc::clone(&self.places).acquire_owned());
        match waiting.await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(SendFailure::Busy(self.named())),
        }
    }

    /// Sends a request by HTTP/1 and waits for the head of its answer.
    ///
    /// # Errors
    /// [`SendFailure`].
    pub async fn send_http1(
        self: &Arc<Self>,
        shared: &Shared,
        mut request: Request<RequestBody>,
    ) -> Result<Answer, SendFailure> {
        let mut place = self.place().await?;
        while let Some(idle) = self.take_idle(shared) {
            match idle.lease(self, place).send(request, true).await {
                Sent::Answered(answer) => return Ok(*answer),
                Sent::Failed(failure) => return Err(failure),
                Sent::Untouched(again) => {
                    self.retries.inc();
                    request = *again;
                    place = self.place().await?;
                }
            }
        }
        // Few requests dial; what that needs is not part of every connection's memory.
        let lease = Box::pin(self.dialed(shared, place)).await?;
        match lease.send(request, false).await {
            Sent::Answered(answer) => Ok(*answer),
            Sent::Failed(failure) => Err(failure),
            Sent::Untouched(_) => Err(SendFailure::Closed(self.named())),
        }
    }

    async fn dialed(
        self: &Arc<Self>,
        shared: &Shared,
        place: OwnedSemaphorePermit,
    ) -> Result<Lease, SendFailure> {
        let dialed = dial(shared, &self.upstream).await?;
        Lease::begin(self, dialed, place, &shared.config.limits.http, shared).await
    }

    /// Sends a request by HTTP/2 and waits for the head of its answer.
    ///
    /// # Errors
    /// [`SendFailure`].
    pub async fn send_http2(
        self: &Arc<Self>,
        shared: &Shared,
        request: Request<RequestBody>,
    ) -> Result<Answer, SendFailure> {
        let permit = self.place().await?;
        let mut stream = self.shared.stream(self, shared, permit).await?;
        match stream.send(request).await {
            Sent::Answered(answer) => Ok(*answer),
            Sent::Failed(failure) => Err(failure),
            Sent::Untouched(again) => {
                self.retries.inc();
                let permit = self.place().await?;
                let mut stream = self.shared.stream(self, shared, permit).await?;
                match stream.send(*again).await {
                    Sent::Answered(answer) => Ok(*answer),
                    Sent::Failed(failure) => Err(failure),
                    Sent::Untouched(_) => Err(SendFailure::Closed(self.named())),
                }
            }
        }
    }

    /// The connection that was used last, since it is the least likely to be stale.
    fn take_idle(&self, shared: &Shared) -> Option<http1::Idle> {
        let now = shared.clock.now();
        let wait = shared.config.limits.http.upstream_idle;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(one) = idle.pop() {
            if one.is_fresh(now, wait) {
                return Some(one);
            }
        }
        None
    }

    fn keep(&self, one: http1::Idle) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(one);
        }
    }

    fn sweep(&self, wait: Duration) {
        let stale: Vec<http1::Idle> = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let (stale, kept) = idle.drain(..).partition(|one| one.is_old(wait));
            *idle = kept;
            stale
        };
        drop(stale);
        self.shared.sweep(wait);
    }
}
