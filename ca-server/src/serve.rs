//! HTTP/2 and gRPC of one connection, in one task: what has arrived is answered in one turn; the answers
//! leave together in the next, behind other connections that are ready. See
//! `docs/adr/0012-one-task-for-a-connection.md`.
//!
//! `CreateCertificate` and `MintJwtSvid` are read and answered here. Every other call goes to the services
//! tonic generates, as part of the same task.

mod age;
mod body;
mod call;
mod keepalive;
mod message;
mod waiting;

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::Request;
use signet_proto::wire::signet::ca::v1::authority_server::AuthorityServer;
use signet_runtime::backoff::random_share;
use tokio_util::sync::CancellationToken;

use crate::bundle_service::Bundles;
use crate::gather::{self, Records};
use crate::jwt_service::Minting;
use crate::listener::{Connection, Peer};
use crate::metrics::Metrics;
use crate::service::Issuing;
use age::{Age, Stage};
use call::{Answer, Call};
use keepalive::KeepAlive;
pub use message::MessageError;
use waiting::Waiting;

/// A call that is not answered by then is given up, slow senders included.
pub const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// As istiod pings its clients.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Calls at once on one connection. A starting ztunnel sends eight, an agent as many; who has more to ask
/// waits for the answers. No fewer than clients take for granted until they are told (RFC 9113 §6.5.2): what
/// they send above it is refused.
const PER_CONNECTION: u32 = 100;
/// What a peer may send unread, per call and per connection: strangers fill these before they are known.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// Longest list of headers read; a token has at most 16 KiB.
const HEADER_LIST: u32 = 24 * 1024;
/// Calls that a peer may open and reset before they were looked at (CVE-2023-44487).
const RESET_UNSEEN: usize = 64;
/// Calls answered before their answers leave: about one and a half milliseconds' work.
const BATCH: usize = 16;

/// Why a connection ended that neither side meant to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The peer broke the protocol, or the bytes stopped.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// A ping went unanswered.
    #[error("the peer did not answer a ping")]
    Unresponsive,
}

impl End {
    /// A stable word for metrics; nothing for what happens to every connection some day.
    #[must_use]
    pub fn as_str(&self) -> Option<&'static str> {
        match self {
            Self::Unresponsive => Some("unresponsive"),
            Self::Http2(e) if e.is_io() || e.is_remote() => None,
            Self::Http2(_) => Some("http2"),
        }
    }
}

/// What is served on every connection.
pub struct Server {
    issuing: Issuing,
    minting: Minting,
    authority: AuthorityServer<Bundles>,
    waiting: Waiting,
    oldest: Duration,
    metrics: Metrics,
}

impl Server {
    /// Puts the services together. Connections retire when they are about as old as `oldest`.
    #[must_use]
    pub fn new(
        issuing: Issuing,
        minting: Minting,
        bundles: Bundles,
        oldest: Duration,
        metrics: Metrics,
    ) -> Self {
        let authority = AuthorityServer::new(bundles).max_decoding_message_size(message::MOST);
        Self {
            issuing,
            minting,
            authority,
            waiting: Waiting::new(metrics.unfinished_calls.clone()),
            oldest,
            metrics,
        }
    }

    /// The records that are written before an answer leaves.
    #[must_use]
    pub fn records(&self) -> Arc<dyn Records> {
        self.issuing.records()
    }

    /// Serves one connection until the peer leaves, or until `ended` or its age and its last call is
    /// answered.
    ///
    /// # Errors
    /// An [`End`].
    pub async fn serve(
        self: Arc<Self>,
        connection: Connection,
        ended: &CancellationToken,
    ) -> Result<(), End> {
        let mut driver = Driver::begin(self, connection).await?;
        tokio::select! {
            biased;
            end = poll_fn(|cx| driver.poll(cx)) => return end,
            () = ended.cancelled() => {}
        }
        driver.http2.graceful_shutdown();
        poll_fn(|cx| driver.poll(cx)).await
    }
}

/// A call that has just arrived.
type Arrived = (Request<RecvStream>, SendResponse<Bytes>);

/// What accepting came to.
enum Accepted {
    /// Nothing more for now; the peer's next bytes wake the task.
    All,
    /// As many as one turn takes.
    Batch,
    /// The peer has left, or was told to and has.
    Closed,
}

/// One connection, turn by turn.
struct Driver {
    server: Arc<Server>,
    peer: Arc<Peer>,
    http2: h2::server::Connection<Connection, Bytes>,
    turns: gather::Turns,
    keepalive: Option<KeepAlive>,
    age: Age,
    arrived: Vec<Arrived>,
    under_way: FuturesUnordered<Call>,
    answers: Vec<Answer>,
}

impl Driver {
    async fn begin(server: Arc<Server>, connection: Connection) -> Result<Self, End> {
        let (peer, turns) = (Arc::new(connection.peer().clone()), connection.turns());
        let mut http2 = Builder::new()
            .max_concurrent_streams(PER_CONNECTION)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .handshake(connection)
            .await?;
        let keepalive = http2
            .ping_pong()
            .map(|pings| KeepAlive::new(pings, KEEPALIVE.0, KEEPALIVE.1));
        let age = Age::new(server.oldest, random_share());
        Ok(Self {
            server,
            peer,
            http2,
            turns,
            keepalive,
            age,
            arrived: Vec::new(),
            under_way: FuturesUnordered::new(),
            answers: Vec::new(),
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.turns.begin();
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(cx).is_ready()
        {
            return Poll::Ready(Err(End::Unresponsive));
        }
        match self.age.poll(cx) {
            Poll::Ready(Stage::Retire) => self.retire(),
            Poll::Ready(Stage::Close) => return Poll::Ready(Ok(())),
            Poll::Pending => {}
        }
        let mut accepted = self.accept(cx)?;
        self.work(cx);
        let answered = self.answer();
        if answered {
            // Puts the answers into frames, which are held until the next turn.
            accepted = self.accept(cx)?;
        }
        if matches!(accepted, Accepted::Closed) {
            return Poll::Ready(Ok(()));
        }
        let more = matches!(accepted, Accepted::Batch) || !self.arrived.is_empty();
        if self.turns.held() || answered || more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The peer is told to dial again. Calls under way are answered; streams without an end are ended.
    fn retire(&mut self) {
        tracing::debug!(
            peer.addr = self.peer.address.map(tracing::field::display),
            "connection retires"
        );
        self.server.metrics.connections_retired.inc();
        self.http2.graceful_shutdown();
        self.peer.retired.cancel();
    }

    /// Takes the calls that have arrived. What was answered in the turn before leaves here.
    fn accept(&mut self, cx: &mut Context<'_>) -> Result<Accepted, End> {
        while self.arrived.len() < BATCH {
            match self.http2.poll_accept(cx) {
                Poll::Ready(Some(call)) => self.arrived.push(call?),
                Poll::Ready(None) => return Ok(Accepted::Closed),
                Poll::Pending => return Ok(Accepted::All),
            }
        }
        Ok(Accepted::Batch)
    }

    /// Begins the calls that have arrived and goes on with those under way.
    fn work(&mut self, cx: &mut Context<'_>) {
        let _moment = self.peer.recent.moment();
        for (request, respond) in self.arrived.drain(..) {
            let mut call = Call::new(&self.server, &self.peer, request, respond);
            match Pin::new(&mut call).poll(cx) {
                Poll::Ready(answer) => self.answers.extend(answer),
                Poll::Pending => self.under_way.push(call),
            }
        }
        while let Poll::Ready(Some(answer)) = self.under_way.poll_next_unpin(cx) {
            self.answers.extend(answer);
        }
    }

    /// Hands the answers to HTTP/2. Says whether there were any.
    fn answer(&mut self) -> bool {
        let any = !self.answers.is_empty();
        for answer in self.answers.drain(..) {
            if let Some(rest) = answer.send() {
                self.under_way.push(rest);
            }
        }
        any
    }
}
