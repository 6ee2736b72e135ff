//! HTTP/2 connections to an upstream: shared by requests, within the streams that the upstream allows.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Uri, Version};
use hyper::body::Body as _;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use signet_certs::{SpiffeId, UnixTime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{Answer, Pool, SendFailure, Sent};
use crate::http::body::{RequestBody, ResponseBody};
use crate::outbound::dial;
use crate::shared::Shared;

/// Most streams on one connection, even where the upstream allows more.
const MAX_STREAMS: usize = 1000;
/// Most connections to one upstream.
const MAX_CONNECTIONS: usize = 16;
/// Flow control: what an upstream may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A connection that says nothing for this long is asked whether it lives…
const PING_EVERY: Duration = Duration::from_secs(30);
/// …and has so long to answer.
const PING_WAIT: Duration = Duration::from_secs(20);

/// A connection.
struct Shared2 {
    sender: SendRequest<RequestBody>,
    streams: Arc<AtomicUsize>,
    /// How many streams the upstream allows.
    allowed: Arc<AtomicUsize>,
    address: std::net::SocketAddr,
    peer: Option<SpiffeId>,
    /// When it takes no more requests.
    retires: Option<UnixTime>,
    used: Mutex<Instant>,
}

/// The connections to one upstream.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Vec<Arc<Shared2>>>,
    /// Held while one is dialled, so that a burst of requests dials once.
    dialing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

/// A stream on a connection, as long as it is held.
#[derive(Debug)]
pub struct Place {
    streams: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that carries no request yet.
pub(super) struct Stream {
    connection: Arc<Shared2>,
    place: Option<Place>,
    named: String,
}

impl Connections {
    /// A stream, on a new connection where the others are full.
    pub(super) async fn stream(
        &self,
        pool: &Pool,
        shared: &Shared,
        permit: OwnedSemaphorePermit,
    ) -> Result<Stream, SendFailure> {
        if let Some(connection) = self.free(shared.clock.now()) {
            return Ok(Stream::on(connection, permit, pool));
        }
        // Few requests dial; what that needs is not part of every connection's memory.
        Box::pin(self.dialed(pool, shared, permit)).await
    }

    async fn dialed(
        &self,
        pool: &Pool,
        shared: &Shared,
        permit: OwnedSemaphorePermit,
    ) -> Result<Stream, SendFailure> {
        let now = shared.clock.now();
        let _one_dials = self.dialing.lock().await;
        if let Some(connection) = self.free(now) {
            return Ok(Stream::on(connection, permit, pool));
        }
        let connection = Arc::new(begin(pool, shared).await?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| !one.sender.is_closed());
        if open.len() >= MAX_CONNECTIONS {
            return Err(SendFailure::Busy(pool.named()));
        }
        open.push(Arc::clone(&connection));
        drop(open);
        Ok(Stream::on(connection, permit, pool))
    }

    fn free(&self, now: UnixTime) -> Option<Arc<Shared2>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that ended, or whose SVID did, carry nothing new; what is under way on them ends in peace.
        open.retain(|one| !one.sender.is_closed() && one.retires.is_none_or(|end| end >= now));
        let free = open.iter().find(|one| {
            let most = one.allowed.load(Ordering::Relaxed).min(MAX_STREAMS);
            one.streams.load(Ordering::Relaxed) < most
        });
        free.cloned()
    }

    pub(super) fn sweep(&self, wait: Duration) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| {
            let busy = one.streams.load(Ordering::Relaxed) > 0;
            let used = one.used.lock().unwrap_or_else(PoisonError::into_inner);
            busy || used.elapsed() <= wait
        });
    }
}

async fn begin(pool: &Pool, shared: &Shared) -> Result<Shared2, SendFailure> {
    let dialed = dial(shared, &pool.upstream).await?;
    let retires = super::retires(&dialed.stream, shared);
    let limits = &shared.config.limits.http;
    let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let begun = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_bytes)
        .max_concurrent_reset_streams(MAX_STREAMS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT)
        .handshake(TokioIo::new(dialed.stream))
        .await;
    let (sender, driver) = begun.map_err(|source| SendFailure::Broken {
        address: pool.named(),
        source,
    })?;
    let named = pool.named();
    // Until it says otherwise, what RFC 9113 §6.5.2 recommends as the least.
    let allowed = Arc::new(AtomicUsize::new(100));
    let told = Arc::clone(&allowed);
    let mut driver = Box::pin(driver);
    pool.tasks.spawn(async move {
        let driven = std::future::poll_fn(|cx| {
            let done = driver.as_mut().poll(cx);
            told.store(driver.current_max_send_streams(), Ordering::Relaxed);
            done
        });
        if let Err(error) = driven.await {
            tracing::debug!(upstream = %named, %error, "http2 upstream connection ended");
        }
    });
    Ok(Shared2 {
        sender,
        streams: Arc::default(),
        allowed,
        address: dialed.address,
        peer: dialed.peer,
        retires,
        used: Mutex::new(Instant::now()),
    })
}

impl Stream {
    fn on(connection: Arc<Shared2>, permit: OwnedSemaphorePermit, pool: &Pool) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        *connection.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let place = Place {
            streams: Arc::clone(&connection.streams),
            _permit: permit,
        };
        Self {
            connection,
            place: Some(place),
            named: pool.named(),
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> Sent {
        let again = Again::of(&request);
        let mut sender = self.connection.sender.clone();
        let closed = || Sent::Failed(SendFailure::Closed(self.named.clone()));
        match sender.try_send_request(request).await {
            Ok(response) => {
                let Some(place) = self.place.take() else {
                    return closed();
                };
                Sent::Answered(Box::new(Answer {
                    response: response.map(|body| ResponseBody::http2(body, place)),
                    peer: self.connection.peer.clone(),
                    address: Some(self.connection.address),
                    upgraded: None,
                }))
            }
            Err(mut error) => {
                let untouched = error.take_message();
                let source = error.into_error();
                match (untouched, again) {
                    (Some(request), _) => Sent::Untouched(Box::new(request)),
                    (None, Some(again)) if was_refused(&source) => Sent::Untouched(Box::new(again.request())),
                    _ => Sent::Failed(SendFailure::Broken {
                        address: self.named.clone(),
                        source,
                    }),
                }
            }
        }
    }
}

/// The upstream says that it did nothing with it (RFC 9113 §8.7).
fn was_refused(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return h2.is_remote() && h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        cause = inner.source();
    }
    false
}

/// A request without a body, to be sent once more where the first time surely did nothing.
struct Again {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Again {
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        request.body().is_end_stream().then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::none());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        *request.version_mut() = Version::HTTP_2;
        request
    }
}
