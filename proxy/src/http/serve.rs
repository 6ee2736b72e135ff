//! One connection of a client, from its first byte to its last: which HTTP it speaks, how long it may take, and
//! when it is asked to end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::exchange::Exchange;
use super::flow::Flow;
use super::framing::without_empty_lines;
use super::gate::{Gated, Overdue};
use super::guard::Streams;
use super::joined::Joined;
use super::ticket::Account;
use super::watch::{Cut, Watch};

use crate::access_log::{Client, Limit, Reason, Record, RequestFault};

/// What an HTTP/2 client begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// ALPN of HTTP/2, ours and Istio's.
const ALPN_HTTP2: [&[u8]; 2] = [b"h2", b"istio-h2"];
/// Flow control: what a client may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept of answers that a client does not take, per stream.
const SEND_BUFFER: usize = 128 * 1024;
/// Bytes that are read ahead of what is forwarded.
const READ_AHEAD: usize = 64 * 1024;
/// Streams that a client may reset before we have looked at them, and that it may make us reset.
const PENDING_RESETS: usize = 50;
const LOCAL_RESETS: usize = 256;
/// A connection that says nothing for this long is asked whether it lives, and has so long to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT: Duration = Duration::from_secs(20);
/// As much of the next request is read before there is a parser again.
const FIRST_BYTES: usize = 64;
/// A last word to a client that is not listening is not waited for longer.
const LAST_WORD: Duration = Duration::from_secs(1);

/// With hyper's word, where it had one.
type Ended = (Cut, Option<hyper::Error>);

/// Serves HTTP on a connection until it ends.
pub async fn serve<S>(exchange: Arc<Exchange>, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let account = Arc::clone(&exchange.account);
    let alpn = account.accepted.alpn.as_deref();
    let mut prefix = Vec::new();
    let http2 = if alpn.is_some_and(|alpn| ALPN_HTTP2.contains(&alpn)) {
        true
    } else {
        let limits = &account.shared.config.limits.http;
        let first = tokio::time::timeout(limits.request_head, sniff(&mut stream, &mut prefix));
        let first = tokio::select! {
            biased;
            () = account.docket.ended() => return,
            first = first => first,
        };
        match first {
            Ok(Ok(http2)) => http2,
            // Nothing was asked: an idle connection that went away.
            Ok(Err(_)) if prefix.is_empty() => return,
            Ok(Err(error)) => return ended(&account, Reason::Client(Client::Gone), error.to_string()),
            Err(_) => {
                last_word(&mut stream, StatusCode::REQUEST_TIMEOUT).await;
                return ended(
                    &account,
                    Reason::Request(RequestFault::Slow),
                    "no request came in time",
                );
            }
        }
    };
    if http2 {
        serve_http2(exchange, stream, prefix).await;
    } else {
        let (mut next, mut parks) = (Some((stream, prefix)), true);
        while let Some((stream, prefix)) = next {
            next = serve_http1(Arc::clone(&exchange), stream, prefix, parks).await;
            // Only a connection of which nothing is left over may come back here: each round takes a byte of its client.
            parks = next.as_ref().is_none_or(|(_, read)| read.is_empty());
            if let Some((stream, _)) = next.take_if(|_| parks) {
                next = parked(&account, stream).await;
            }
        }
    }
}

/// Reads until it is known whether HTTP/2 is spoken.
async fn sniff<S: AsyncRead + Unpin>(stream: &mut S, prefix: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    loop {
        let room = bytes.len() - prefix.len().min(bytes.len());
        let read = stream.read(bytes.get_mut(..room).unwrap_or_default()).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        prefix.extend_from_slice(bytes.get(..read).unwrap_or_default());
        if !PREFACE.starts_with(prefix) {
            return Ok(false);
        }
        if prefix.len() == PREFACE.len() {
            return Ok(true);
        }
    }
}

/// Waits for the first bytes of the next request; empty lines before it are passed over. Nothing when there will be
/// none, or it has waited long enough.
async fn parked<S>(account: &Account, mut stream: S) -> Option<(S, Vec<u8>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &account.shared.config.limits.http;
    account.docket.rest();
    let mut watch = Watch::new(account, limits, false);
    let mut first = [0; FIRST_BYTES];
    let read = poll_fn(|cx| {
        account.docket.is_driven(cx);
        let mut room = ReadBuf::new(&mut first);
        if let Poll::Ready(read) = Pin::new(&mut stream).poll_read(cx, &mut room) {
            let begun = without_empty_lines(room.filled());
            if read.is_err() || room.filled().is_empty() || !begun.is_empty() {
                return Poll::Ready(Some(begun.to_vec()));
            }
            // There may be more; the time is looked at in between.
            cx.waker().wake_by_ref();
        }
        watch.poll(cx, account, limits).map(|_| None)
    })
    .await;
    if let Some(read) = read.filter(|read| !read.is_empty()) {
        return Some((stream, read));
    }
    // Nothing was under way: there is nothing to say but goodbye.
    let _ = tokio::time::timeout(LAST_WORD, stream.shutdown()).await;
    None
}

/// Serves until the connection ends, or is idle: then with the bytes that were read and not yet served, of which
/// there are none as a rule. That it is idle is told only if it `parks`.
async fn serve_http1<S>(
    exchange: Arc<Exchange>,
    stream: S,
    prefix: Vec<u8>,
    parks: bool,
) -> Option<(S, Vec<u8>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let account = Arc::clone(&exchange.account);
    let limits = &account.shared.config.limits.http;
    let io = Gated::http1(stream, prefix, Arc::clone(&account.gate));
    let service = service_fn(move |request| {
        let (exchange, flow) = (Arc::clone(&exchange), Arc::new(Flow::new(false)));
        async move { Ok::<_, Infallible>(exchange.serve(request, flow).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        // The end of the client's side is noticed while a request is under way, so that nobody works for it in vain.
        .half_close(false)
        .keep_alive(true)
        // Our own deadlines tell a slow head from an idle connection.
        .header_read_timeout(None)
        .max_headers(limits.header_count)
        .max_header_size(limits.header_bytes)
        .max_buf_size(READ_AHEAD.max(limits.header_bytes + 1024));
    let mut connection = builder
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let watch = Watch::new(&account, limits, parks);
    let done = drive(&account, watch, Pin::new(&mut connection), |connection| {
        connection.graceful_shutdown()
    })
    .await;
    let cut = done.err()?;
    if cut.0 == Cut::Quiet {
        let parts = connection.into_parts()?;
        let read = without_empty_lines(&parts.read_buf).to_vec();
        return Some((parts.io.into_inner().into_inner(), read));
    }
    let (reason, detail, status) = fate(&account, &cut);
    if !account.gate.is_busy()
        && let Some(status) = status
        && let Some(parts) = connection.into_parts()
    {
        last_word(&mut parts.io.into_inner().into_inner(), status).await;
    }
    if let Some(reason) = reason {
        ended(&account, reason, detail);
    }
    None
}

async fn serve_http2<S>(exchange: Arc<Exchange>, stream: S, prefix: Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let account = Arc::clone(&exchange.account);
    let limits = &account.shared.config.limits.http;
    let io = Gated::http2(Joined::new(stream), prefix, Arc::clone(&account.gate));
    let streams = Streams::new(limits);
    let handed = streams.clone();
    let service = service_fn(move |request| {
        let (exchange, flow) = (Arc::clone(&exchange), handed.begin());
        // On the heap at once: on its way to a task of its own it is moved several times.
        Box::pin(async move { Ok::<_, Infallible>(exchange.serve(request, flow).await) })
    });
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT);
    let connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let watch = Watch::new(&account, limits, false);
    let done = drive(&account, watch, connection, |connection| {
        connection.graceful_shutdown()
    })
    .await;
    if let Err(cut) = done
        && let (Some(reason), detail, _) = fate(&account, &cut)
    {
        ended(&account, reason, detail);
    }
}

/// Drives a connection, with an eye on the time, on the end of our SVID and on the end of the process.
async fn drive<C>(
    account: &Account,
    mut watch: Watch<'_>,
    mut connection: Pin<&mut C>,
    mut drain: impl FnMut(Pin<&mut C>),
) -> Result<(), Ended>
where
    C: Future<Output = hyper::Result<()>>,
{
    let limits = &account.shared.config.limits.http;
    poll_fn(|cx| {
        account.docket.is_driven(cx);
        if let Poll::Ready(done) = connection.as_mut().poll(cx) {
            return Poll::Ready(verdict(account, done));
        }
        match watch.poll(cx, account, limits) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(cut)) => Poll::Ready(Err((cut, None))),
            Poll::Ready(None) => {
                drain(connection.as_mut());
                connection.as_mut().poll(cx).map(|done| verdict(account, done))
            }
        }
    })
    .await
}

/// What hyper takes for the end of a connection may be a fault that we found.
fn verdict(account: &Account, done: hyper::Result<()>) -> Result<(), Ended> {
    match done {
        Ok(()) if account.gate.framing_fault().is_some() || account.gate.is_crowded() => {
            Err((Cut::Broken, None))
        }
        done => done.map_err(|error| (Cut::Broken, Some(error))),
    }
}

/// What is recorded of a connection that was cut, if anything, and what its client is told if nothing else is.
fn fate(account: &Account, cut: &Ended) -> (Option<Reason>, String, Option<StatusCode>) {
    let gate = &account.gate;
    let bad = Some(Reason::Request(RequestFault::Bad));
    if let Some(fault) = gate.framing_fault() {
        let detail = format!("{}: {fault}", fault.as_str());
        return (bad, detail, Some(StatusCode::BAD_REQUEST));
    }
    if let Some(fault) = gate.frame_fault() {
        let detail = format!("{}: {fault}", fault.as_str());
        return (Some(Reason::Limit(Limit::Abuse)), detail, None);
    }
    if gate.is_crowded() {
        let reason = Some(Reason::Limit(Limit::Waiting));
        return (reason, String::new(), Some(StatusCode::SERVICE_UNAVAILABLE));
    }
    match cut {
        (Cut::Overdue(Overdue::Head), _) => {
            let reason = Some(Reason::Request(RequestFault::Slow));
            (
                reason,
                "the head did not arrive in time".into(),
                Some(StatusCode::REQUEST_TIMEOUT),
            )
        }
        (Cut::Overdue(Overdue::Idle), _) => (None, String::new(), None),
        // A request under way tells by itself what it was given up for.
        (Cut::Overdue(Overdue::Write | Overdue::Total | Overdue::Silence), _) if gate.is_busy() => {
            (None, String::new(), None)
        }
        (Cut::Overdue(_), _) => (
            Some(Reason::Client(Client::Idle)),
            "the client took nothing for too long".into(),
            None,
        ),
        (Cut::Broken, Some(error)) if error.is_parse_too_large() => (
            Some(Reason::Request(RequestFault::HeadersTooLarge)),
            error.to_string(),
            None,
        ),
        (Cut::Broken, Some(error)) if error.is_parse() => (bad, error.to_string(), None),
        (Cut::Broken, Some(error)) if was_abuse(error) => {
            (Some(Reason::Limit(Limit::Abuse)), error.to_string(), None)
        }
        (Cut::Broken, Some(error)) if gate.is_mid_head() => {
            (Some(Reason::Client(Client::Gone)), error.to_string(), None)
        }
        // A request under way has a record of its own; between requests nobody was harmed.
        (Cut::Broken | Cut::Quiet | Cut::Withdrawn, _) => (None, String::new(), None),
    }
}

/// Whether the HTTP/2 parser ended the connection for what the client did.
fn was_abuse(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return h2.is_library() && h2.reason().is_some_and(|reason| reason != h2::Reason::NO_ERROR);
        }
        cause = inner.source();
    }
    false
}

/// The record of a connection that ended without a request to blame.
fn ended(account: &Account, reason: Reason, detail: impl Into<String>) {
    if reason == Reason::Limit(Limit::Waiting) {
        return account.shared.crowded(account.accepted.direction);
    }
    let mut record = Record::begin(&account.shared, &account.accepted);
    record.ended(reason, detail.into());
}

/// An answer to a request that never became one.
async fn last_word<S: AsyncWrite + Unpin>(stream: &mut S, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        status.as_str()
    );
    let said = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(LAST_WORD, said).await {
        tracing::trace!(%error, "last word not taken");
    }
}
