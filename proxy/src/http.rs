//! HTTP through the proxy: each request judged by the policies of its moment, and forwarded as it was judged.
//!
//! | module | owns |
//! |---|---|
//! | [`serve`] | one connection of a client: protocol, deadlines, drain |
//! | [`gate`] | every byte from a client, before the parser |
//! | [`joined`] | writes of HTTP/2, joined |
//! | [`framing`], [`frames`] | what those bytes may be, in HTTP/1 and HTTP/2: pure |
//! | [`exchange`] | one request, from its head to its answer |
//! | [`target`] | its path and authority, each in one reading: pure |
//! | [`headers`] | what ends at this hop, and what is ours to say: pure |
//! | [`xfcc`] | `X-Forwarded-Client-Cert`: pure |
//! | [`judge`], [`asking`] | policies; external authorizers and tokens |
//! | `docket`, `remembered` | the requests under way, and what is needed to judge them again |
//! | `again` | judging them again |
//! | [`refusal`] | what a client is told instead of an answer |
//! | [`body`] | bodies on their way through |
//! | [`pool`] | connections to upstreams |
//! | [`tunnel`] | bytes after an upgrade |
//! | [`ticket`] | a request's account: its record and its metrics |
//! | [`metrics`] | Istio's standard metrics |
//! | [`limits`] | bounds |
//! | [`flow`], [`guard`], [`pace`] | how long who may be waited for while an answer is sent |

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

mod again;
pub mod asking;
pub mod body;
mod docket;
pub mod exchange;
pub mod flow;
pub mod frames;
pub mod framing;
pub mod gate;
pub mod guard;
pub mod headers;
pub mod joined;
pub mod judge;
pub mod limits;
pub mod metrics;
pub mod pace;
pub mod pool;
pub mod refusal;
mod remembered;
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
use ticket::Account;

/// Serves a client's HTTP connection to the workload.
pub async fn serve_inbound<S>(shared: Arc<Shared>, accepted: Arc<Accepted>, stream: S, upstream: Upstream)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let xfcc = told(&accepted);
    serve::serve(exchange(shared, accepted, &upstream, xfcc), stream).await;
}

/// As [`serve_inbound`], for a workload that is told the client's address before anything else: by `preface`, with which
/// each connection to it begins. They are this client's alone.
pub async fn serve_announced<S>(
    shared: Arc<Shared>,
    accepted: Arc<Accepted>,
    stream: S,
    upstream: Upstream,
    preface: Vec<u8>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let xfcc = told(&accepted);
    let common = exchange(Arc::clone(&shared), accepted, &upstream, xfcc);
    let pool = shared.http.private(&common.pool, preface);
    let exchange = Exchange {
        account: Arc::clone(&common.account),
        pool,
        share: Arc::clone(&common.share),
        xfcc: common.xfcc.clone(),
    };
    drop(common);
    serve::serve(Arc::new(exchange), stream).await;
}

/// What the application is told of a client.
#[must_use]
pub fn told(accepted: &Accepted) -> Option<http::HeaderValue> {
    match &accepted.security {
        Security::Mutual(peer) => xfcc::header(accepted.own_id.as_ref(), &peer.leaf_sha256, &peer.id),
        _ => None,
    }
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
    let limits = &shared.config.limits.http;
    let (all, per_source) = (limits.upstream_requests, limits.upstream_requests_per_source);
    let pool = shared.http.of(upstream, all, per_source);
    let share = pool.share(accepted.remote);
    let account = Account::open(shared, accepted);
    Arc::new(Exchange {
        account,
        pool,
        share,
        xfcc,
    })
}
