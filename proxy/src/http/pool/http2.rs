//! HTTP/2 connections to an upstream: shared by requests, within the streams that the upstream allows.
//!
//! A connection is driven by a task of its own, over `h2` itself. A request opens its stream and reads its answer
//! in the task that it has: nothing is handed from task to task.

mod again;
mod dialing;
mod download;
mod driver;
mod keep_alive;
mod upload;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::Request;
use hyper::body::Body as _;
use signet_certs::{SpiffeId, UnixTime};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, Permit, Pool, SendFailure, Sent};
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::joined::Joined;
use crate::keys::Trust;
use crate::shared::Shared;
use again::{Again, was_refused};
use dialing::Dialing;
pub use download::Download;
use driver::Driver;
use keep_alive::Heard;
use upload::Uploading;

/// Most streams on one connection, even where the upstream allows more.
const MAX_STREAMS: usize = 1000;
/// Most connections to one upstream.
const MAX_CONNECTIONS: usize = 16;
/// Flow control: what an upstream may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept of requests that an upstream does not take, per stream.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams before the upstream says how many it allows: what RFC 9113 §6.5.2 recommends as the least.
const FIRST_STREAMS: usize = 100;
/// Streams of one connection that the upstream may make us reset.
const LOCAL_RESETS: usize = 1024;

/// A connection.
struct Shared2 {
    sender: SendRequest<Bytes>,
    /// Requests under way.
    streams: Arc<AtomicUsize>,
    /// Whether it has ended.
    closed: Arc<AtomicBool>,
    /// Its driver is told when nobody wants it any more.
    _wanted: oneshot::Sender<Infallible>,
    address: std::net::SocketAddr,
    peer: Option<SpiffeId>,
    /// What that rests on.
    trust: Option<Arc<Trust>>,
    /// When it takes no more requests.
    retires: Option<UnixTime>,
    used: Mutex<Instant>,
}

/// The connections to one upstream.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Vec<Arc<Shared2>>>,
    /// Held while one is dialled, so that a burst of requests dials once.
    dialing: Dialing,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

impl Shared2 {
    fn is_untrusted(&self) -> bool {
        self.trust.as_ref().is_some_and(|trust| trust.is_withdrawn())
    }
}

impl std::fmt::Debug for Shared2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared2({})", self.address)
    }
}

/// A stream on a connection, as long as it is held.
#[derive(Debug)]
pub struct Place {
    connection: Arc<Shared2>,
    _permit: Permit,
}

impl Place {
    /// What the trust in the connection's other end rests on.
    #[must_use]
    pub fn trust(&self) -> Option<&Arc<Trust>> {
        self.connection.trust.as_ref()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that carries no request yet.
pub(super) struct Stream {
    sender: SendRequest<Bytes>,
    place: Place,
}

impl Connections {
    /// A stream, on a new connection where the others are full.
    pub(super) async fn stream(
        &self,
        pool: &Pool,
        shared: &Shared,
        permit: Permit,
    ) -> Result<Stream, SendFailure> {
        if let Some((connection, sender)) = self.free(shared.clock.now()) {
            return Ok(Stream::on(connection, sender, permit));
        }
        // Few requests dial; what that needs is not part of every connection's memory.
        Box::pin(self.dialed(pool, shared, permit)).await
    }

    async fn dialed(&self, pool: &Pool, shared: &Shared, permit: Permit) -> Result<Stream, SendFailure> {
        let now = shared.clock.now();
        let mut turn = self.dialing.turn().await;
        if let Some((connection, sender)) = self.free(now) {
            return Ok(Stream::on(connection, sender, permit));
        }
        if let Some(failure) = turn.awaited.take() {
            return Err(failure);
        }
        let connection = match begin(pool, shared).await {
            Ok(connection) => Arc::new(connection),
            Err(failure) => return Err(turn.failed(failure)),
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| !one.closed.load(Ordering::Relaxed));
        if open.len() >= MAX_CONNECTIONS {
            return Err(SendFailure::Busy(pool.named()));
        }
        open.push(Arc::clone(&connection));
        drop(open);
        let sender = connection.sender.clone();
        Ok(Stream::on(connection, sender, permit))
    }

    fn free(&self, now: UnixTime) -> Option<(Arc<Shared2>, SendRequest<Bytes>)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that ended, or whose SVID did, carry nothing new; what is under way on them ends in peace.
        open.retain(|one| {
            let ends = one.closed.load(Ordering::Relaxed) || one.is_untrusted();
            !ends && one.retires.is_none_or(|end| end >= now)
        });
        open.iter().find_map(|one| {
            let most = one.sender.current_max_send_streams().min(MAX_STREAMS);
            if one.streams.load(Ordering::Relaxed) >= most {
                return None;
            }
            let mut sender = one.sender.clone();
            // One that was told to take no more requests, or has failed, says so here.
            if let Poll::Ready(Err(_)) = sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
                one.closed.store(true, Ordering::Relaxed);
                return None;
            }
            Some((Arc::clone(one), sender))
        })
    }

    pub(super) fn sweep(&self, wait: Duration) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| {
            let busy = one.streams.load(Ordering::Relaxed) > 0;
            let used = one.used.lock().unwrap_or_else(PoisonError::into_inner);
            !one.is_untrusted() && (busy || used.elapsed() <= wait)
        });
    }
}

async fn begin(pool: &Pool, shared: &Shared) -> Result<Shared2, SendFailure> {
    let dialed = pool.dial(shared).await?;
    let retires = super::retires(dialed.trust.as_deref(), shared);
    let limits = &shared.config.limits.http;
    let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let heard = Heard::default();
    let begun = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_bytes)
        .max_concurrent_reset_streams(MAX_STREAMS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS))
        .max_send_buffer_size(SEND_BUFFER)
        .initial_max_send_streams(FIRST_STREAMS)
        .enable_push(false)
        .handshake(heard.on(Joined::new(dialed.stream)))
        .await;
    let (sender, connection) = begun.map_err(|source| SendFailure::Stream {
        address: pool.named(),
        source,
    })?;
    let named = pool.named();
    let (streams, closed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (wanted, unwanted) = oneshot::channel();
    let driver = Driver::new(connection, heard, Arc::clone(&streams), unwanted).under(dialed.trust.clone());
    let ended = Arc::clone(&closed);
    pool.tasks.spawn(async move {
        let driven = driver.await;
        ended.store(true, Ordering::Relaxed);
        if let Err(error) = driven {
            tracing::debug!(upstream = %named, %error, "http2 upstream connection ended");
        }
    });
    Ok(Shared2 {
        sender,
        streams,
        closed,
        _wanted: wanted,
        address: dialed.address,
        peer: dialed.peer,
        trust: dialed.trust,
        retires,
        used: Mutex::new(Instant::now()),
    })
}

impl Stream {
    fn on(connection: Arc<Shared2>, sender: SendRequest<Bytes>, permit: Permit) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        *connection.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let place = Place {
            connection,
            _permit: permit,
        };
        Self { sender, place }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(self, pool: &Pool, request: Request<RequestBody>) -> Sent {
        let Self { mut sender, place } = self;
        let (head, body) = request.into_parts();
        let whole = body.is_end_stream();
        let again = whole.then(|| Again::of(&head));
        let failed = |source| {
            let trust = place.connection.trust.as_deref();
            Sent::Failed(SendFailure::stream(pool.named(), trust, source))
        };
        let (answer, stream) = match sender.send_request(Request::from_parts(head, ()), whole) {
            Ok(begun) => begun,
            // Nothing of it was sent.
            Err(source) => return again.map_or_else(|| failed(source), Again::untouched),
        };
        drop(sender);
        let uploading = match whole {
            true => None,
            false => Some(Uploading::begin(body, stream, &pool.tasks).await),
        };
        let response = match answer.await {
            Ok(response) => response,
            Err(source) => {
                return match again {
                    Some(again) if was_refused(&source) => again.untouched(),
                    _ => failed(source),
                };
            }
        };
        if let Some(uploading) = uploading {
            uploading.goes_on();
        }
        let (head, stream) = response.into_parts();
        let (peer, address) = (place.connection.peer.clone(), Some(place.connection.address));
        let body = ResponseBody::http2(Download::new(stream, &head.headers), place);
        Sent::Answered(Box::new(Answer {
            response: http::Response::from_parts(head, body),
            peer,
            address,
            upgraded: None,
        }))
    }
}
