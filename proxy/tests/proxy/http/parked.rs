//! Connections of HTTP/1 that are idle: they wait without a parser, and nothing but a request ends that. Time is the test's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use signet_proxy::http::serve_inbound;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::Instant;

use super::site::{ALLOW_ALL, Client, Echo, Site, accepted};

const SHORT: &str = "limits: {http: {request_head: 5s, idle: 60s}}\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";
/// Whoever reads with so little room has no parser.
const LITTLE: usize = 256;

/// How often a stream was read, and with how much room the last time.
#[derive(Default)]
struct Reads {
    count: AtomicUsize,
    room: AtomicUsize,
}

/// A stream whose reads are counted.
struct Counted(DuplexStream, Arc<Reads>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.1.count.fetch_add(1, Ordering::SeqCst);
        self.1.room.store(buf.remaining(), Ordering::SeqCst);
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Reads {
    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Lets so many seconds pass, however busy the proxy is, and says how often it read meanwhile.
    async fn within(&self, seconds: u64) -> usize {
        let before = self.count();
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        self.count() - before
    }

    fn has_no_parser(&self) -> bool {
        self.room.load(Ordering::SeqCst) <= LITTLE
    }
}

/// A client that has had an answer.
async fn answered(site: &Site, echo: &Echo) -> (Client, Arc<Reads>) {
    let (client, server) = tokio::io::duplex(1024 * 1024);
    let reads = Arc::<Reads>::default();
    let stream = Counted(server, Arc::clone(&reads));
    let serving = serve_inbound(
        Arc::clone(&site.shared),
        Arc::new(accepted()),
        stream,
        echo.upstream(),
    );
    let task = tokio::spawn(serving);
    let mut client = Client { stream: client, task };
    client.send(GET).await;
    assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "));
    assert!(!reads.has_no_parser());
    (client, reads)
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_after_a_request_keeps_nobody_busy() {
    for lines in ["\r\n", "\r\n\r\n\r\n"] {
        let echo = Echo::start().await;
        let site = Site::new("", ALLOW_ALL);
        let (mut client, reads) = answered(&site, &echo).await;
        client.send(lines).await;
        let count = reads.within(20).await;
        assert!(count < 10, "{count} reads after {lines:?}");
        assert!(reads.has_no_parser());
        client.send(GET).await;
        assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "));
        assert_eq!((echo.count(), site.refused("request_bad")), (2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn empty_lines_do_not_wake_a_connection_that_is_parked() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let (mut client, reads) = answered(&site, &echo).await;
    reads.within(5).await;
    assert!(reads.has_no_parser());
    for _ in 0..3 {
        client.send("\r\n").await;
        let count = reads.within(3).await;
        assert!((1..10).contains(&count), "{count} reads");
        assert!(reads.has_no_parser());
    }
    client.send(format!("\r\n\r\n{GET}")).await;
    assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn empty_lines_do_not_count_as_going_on() {
    let echo = Echo::start().await;
    let site = Site::new(SHORT, ALLOW_ALL);
    let (mut client, reads) = answered(&site, &echo).await;
    for _ in 0..11 {
        client.send("\r\n".repeat(1000)).await;
        reads.within(5).await;
    }
    assert!(!client.task.is_finished());
    let began = Instant::now();
    assert_eq!(client.rest().await, "");
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_begins_after_an_empty_line_has_its_time() {
    let echo = Echo::start().await;
    let site = Site::new(SHORT, ALLOW_ALL);
    let (mut client, reads) = answered(&site, &echo).await;
    reads.within(5).await;
    client.send("\r\nGET / HT").await;
    let began = Instant::now();
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    let took = began.elapsed();
    assert!((5..7).contains(&took.as_secs()), "{took:?}");
}
