//! HTTP through the proxy: each request judged by the policies of its moment, and forwarded as it was judged.
//!
//! | module | owns |
//! |---|---|
//! | [`serve`] | one connection of a client: protocol, deadlines, drain |
//! | [`gate`] | every byte from a client, before the parser |
//! | [`framing`], [`frames`] | what those bytes may be, in HTTP/1 and HTTP/2: pure |
//! | [`exchange`] | one request, from its head to its answer |
//! | [`target`] | its path and authority, each in one reading: pure |
//! | [`headers`] | what ends at this hop, and what is ours to say: pure |
//! | [`xfcc`] | `X-Forwarded-Client-Cert`: pure |
//! | [`judge`], [`asking`] | policies; external authorizers and tokens |
//! | [`refusal`] | what a client is told instead of an answer |
//! | [`body`] | bodies on their way through |
//! | [`pool`] | connections to upstreams |
//! | [`tunnel`] | bytes after an upgrade |
//! | [`ticket`] | a request's account: its record and its metrics |
//! | [`metrics`] | Istio's standard metrics |
//! | [`limits`] | bounds |

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

pub mod asking;
pub mod body;
pub mod exchange;
pub mod frames;
pub mod framing;
pub mod gate;
pub mod headers;
pub mod judge;
pub mod limits;
pub mod metrics;
pub mod pool;
pub mod refusal;
pub mod serve;
pub mod target;
pub mod ticket;
pub mod tunnel;
mod watch;
pub mod xfcc;

use crate::connection::{Accepted, Security};
use crate::outbound::Upstream;
use crate::shared::Shared;
use exchange::Exchange;
use gate::Gate;
use ticket::Account;

/// Serves a client's HTTP connection to the workload.
pub async fn serve_inbound<S>(shared: Arc<Shared>, accepted: Arc<Accepted>, stream: S, upstream: Upstream)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let xfcc = match &accepted.security {
        Security::Mutual(peer) => xfcc::header(accepted.own_id.as_ref(), &peer.leaf_sha256, &peer.id),
        _ => None,
    };
    serve::serve(exchange(shared, accepted, &upstream, xfcc), stream).await;
}

/// Serves the workload's own HTTP connection to an upstream.
pub async fn serve_outbound<S>(shared: Arc<Shared>, accepted: Arc<Accepted>, stream: S, upstream: Upstream)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve::serve(exchange(shared, accepted, &upstream, None), stream).await;
}

fn exchange(
    shared: Arc<Shared>,
    accepted: Arc<Accepted>,
    upstream: &Upstream,
    xfcc: Option<http::HeaderValue>,
) -> Arc<Exchange> {
    let pool = shared
        .http
        .of(upstream, shared.config.limits.http.upstream_requests);
    let metrics = shared.http.metrics().clone();
    let account = Arc::new(Account::new(shared, accepted, Gate::new(), metrics));
    Arc::new(Exchange { account, pool, xfcc })
}
