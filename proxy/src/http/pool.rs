//! Connections to one upstream: kept for the next request while they are clean, bounded in number.
//!
//! An HTTP/1 connection is driven by the request that has it ([`Lease`]): no task of its own, no channel between
//! two. HTTP/2 connections are shared and have a task each.

mod failure;
mod http1;
mod http2;
mod share;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use signet_certs::{SpiffeId, UnixTime};
use tokio::io::AsyncWriteExt as _;
use tokio_util::task::TaskTracker;

use super::body::{RequestBody, ResponseBody};
use super::metrics::HttpMetrics;
use super::ticket::Account;
use crate::keys::{Own, Trust};
use crate::listed::{List, Listed};
use crate::outbound::{DialFailure, Dialed, Upstream, dial};
use crate::shared::Shared;
pub use failure::SendFailure;
pub use http1::{Lease, Upgraded};
pub use http2::{Download, Place};
use share::Places;
pub use share::{Permit, Share};

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
    /// Those of all upstreams that have no pool of their own, since there are too many.
    beyond: OnceLock<Arc<Places>>,
    /// Those of one client each, which live as long as its connection.
    private: List<Pool>,
    tasks: TaskTracker,
    metrics: HttpMetrics,
    accounts: List<Account>,
}

impl Pools {
    /// Without a connection.
    #[must_use]
    pub fn new(metrics: HttpMetrics) -> Self {
        Self {
            pools: Mutex::default(),
            beyond: OnceLock::new(),
            private: List::default(),
            tasks: TaskTracker::new(),
            metrics,
            accounts: List::default(),
        }
    }

    /// The tasks that outlive a request: HTTP/2 connections to upstreams, and tunnels.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// The clients' connections, and what they became.
    #[must_use]
    pub fn accounts(&self) -> &List<Account> {
        &self.accounts
    }

    /// The metrics of HTTP.
    #[must_use]
    pub fn metrics(&self) -> &HttpMetrics {
        &self.metrics
    }

    /// The pool of an upstream. Where there are too many that are in use, it is of one client's connection only, and has
    /// its places in common with the others of that kind.
    #[must_use]
    pub fn of(&self, upstream: &Upstream, requests: usize, per_source: usize) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(upstream) {
            return Arc::clone(pool);
        }
        if pools.len() >= MAX_POOLS {
            // Those that nobody uses now lose their waiting connections.
            pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        }
        let kept = pools.len() < MAX_POOLS;
        let places = if kept {
            Arc::new(Places::new(requests, per_source))
        } else {
            self.places_beyond(upstream, requests, per_source)
        };
        let pool = Arc::new(Pool {
            upstream: upstream.clone(),
            begins: None,
            places,
            idle: Mutex::default(),
            shared: http2::Connections::default(),
            tasks: self.tasks.clone(),
            retries: self.metrics.retries.clone(),
        });
        if kept {
            pools.insert(upstream.clone(), Arc::clone(&pool));
        }
        pool
    }

    fn places_beyond(&self, upstream: &Upstream, requests: usize, per_source: usize) -> Arc<Places> {
        self.metrics.beyond_pools.inc();
        let places = self.beyond.get_or_init(|| {
            tracing::warn!(upstream = %upstream.address, "too many upstreams in use: further ones share their places");
            Arc::new(Places::new(requests, per_source))
        });
        Arc::clone(places)
    }

    /// A pool like `common`, of the same places and upstream, for one client: each of its connections begins with
    /// `preface`, which tells the upstream whose it is, so nobody else's request may ever come on it.
    #[must_use]
    pub fn private(&self, common: &Pool, preface: Vec<u8>) -> Arc<Pool> {
        self.private.enter(|place| Pool {
            upstream: common.upstream.clone(),
            begins: Some((preface, place)),
            places: Arc::clone(&common.places),
            idle: Mutex::default(),
            shared: http2::Connections::default(),
            tasks: self.tasks.clone(),
            retries: self.metrics.retries.clone(),
        })
    }

    /// Closes connections that wait in vain, now and then, without end.
    pub async fn sweep_for_ever(&self, idle: Duration) {
        loop {
            tokio::time::sleep(idle / 2).await;
            self.sweep(idle);
        }
    }

    /// Closes the connections that wait for a request and whose other end is no longer trusted. Those that carry
    /// requests are closed by these.
    pub fn forget_untrusted(&self) {
        self.sweep(Duration::MAX);
    }

    /// Closes connections that wait in vain, and those whose other end is no longer trusted.
    pub fn sweep(&self, idle: Duration) {
        let pools: Vec<Arc<Pool>> = {
            let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            pools.values().cloned().collect()
        };
        for pool in pools.into_iter().chain(self.private.all()) {
            pool.sweep(idle);
        }
    }
}

/// A connection takes no more requests so long before the first of the two SVIDs ends that secured it: at that
/// end the other side closes it, and a request must not cross that on its way.
const RETIRED_EARLY: Duration = Duration::from_secs(2);

/// When a connection takes no more requests, if its ends have identities.
fn retires(trust: Option<&Trust>, shared: &Shared) -> Option<UnixTime> {
    let theirs = trust?.not_after();
    let ours = shared.keys.current();
    let ours = ours.and_then(|snapshot| snapshot.own().map(Own::not_after));
    let end = ours.into_iter().chain([theirs]).min()?;
    let early = end.as_secs().saturating_sub(RETIRED_EARLY.as_secs());
    Some(UnixTime::since_unix_epoch(Duration::from_secs(early)))
}

/// The connections to one upstream.
#[derive(Debug)]
pub struct Pool {
    upstream: Upstream,
    /// Of a private one: what each connection begins with, before anything else; and its place among them.
    begins: Option<(Vec<u8>, Listed<Pool>)>,
    /// One for each request that may be under way.
    places: Arc<Places>,
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

    /// The share of the clients at an address.
    #[must_use]
    pub fn share(&self, source: std::net::IpAddr) -> Arc<Share> {
        Arc::new(self.places.share(source))
    }

    async fn place(&self, share: &Share) -> Result<Permit, SendFailure> {
        if let Some(place) = self.places.try_take(share) {
            return Ok(place);
        }
        match tokio::time::timeout(QUEUE_WAIT, self.places.take(share)).await {
            Ok(Some(place)) => Ok(place),
            _ if share.is_used_up() && !self.places.are_used_up() => Err(SendFailure::Share(self.named())),
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
        share: &Share,
        mut request: Request<RequestBody>,
    ) -> Result<Answer, SendFailure> {
        let mut place = self.place(share).await?;
        while let Some(idle) = self.take_idle(shared) {
            match idle.lease(self, place).send(request, true).await {
                Sent::Answered(answer) => return Ok(*answer),
                Sent::Failed(failure) => return Err(failure),
                Sent::Untouched(again) => {
                    self.retries.inc();
                    request = *again;
                    place = self.place(share).await?;
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

    async fn dialed(self: &Arc<Self>, shared: &Shared, place: Permit) -> Result<Lease, SendFailure> {
        let dialed = self.dial(shared).await?;
        Lease::begin(self, dialed, place, &shared.config.limits.http, shared).await
    }

    /// Sends a request by HTTP/2 and waits for the head of its answer.
    ///
    /// # Errors
    /// [`SendFailure`].
    pub async fn send_http2(
        self: &Arc<Self>,
        shared: &Shared,
        share: &Share,
        request: Request<RequestBody>,
    ) -> Result<Answer, SendFailure> {
        let permit = self.place(share).await?;
        let stream = self.shared.stream(self, shared, permit).await?;
        match stream.send(self, request).await {
            Sent::Answered(answer) => Ok(*answer),
            Sent::Failed(failure) => Err(failure),
            Sent::Untouched(again) => {
                self.retries.inc();
                let permit = self.place(share).await?;
                let stream = self.shared.stream(self, shared, permit).await?;
                match stream.send(self, *again).await {
                    Sent::Answered(answer) => Ok(*answer),
                    Sent::Failed(failure) => Err(failure),
                    Sent::Untouched(_) => Err(SendFailure::Closed(self.named())),
                }
            }
        }
    }

    async fn dial(&self, shared: &Shared) -> Result<Dialed, DialFailure> {
        let mut dialed = dial(shared, &self.upstream).await?;
        if let Some((preface, _)) = &self.begins {
            let written = dialed.stream.write_all(preface).await;
            written.map_err(|source| DialFailure::Connect {
                address: self.named(),
                source,
            })?;
        }
        Ok(dialed)
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
            let (stale, kept) = idle
                .drain(..)
                .partition(|one| one.is_old(wait) || one.is_untrusted());
            *idle = kept;
            stale
        };
        drop(stale);
        self.shared.sweep(wait);
    }
}

#[cfg(test)]
mod tests;
