//! What is put on a pair: `wrk` for requests, and connections of our own where the handshake is what counts.

use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use signet_tests::client::Presented;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::client::TlsStream;

use super::PATH;
use super::app::BULK_PATH;

/// Connections that handshakes are made over at once.
const AT_ONCE: usize = 8;
/// Connections that requests at a fixed rate go over.
const OVER: usize = 16;

/// Whether `wrk` is there.
pub(crate) fn has_wrk() -> bool {
    let found = std::process::Command::new("wrk")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok()
}

/// Requests answered with success over `connections` in `time`.
///
/// # Panics
/// When any was not.
pub(crate) async fn wrk(entry: &str, connections: usize, time: Duration) -> u64 {
    let output = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{}s", time.as_secs()),
        ])
        .arg(format!("http://{entry}{PATH}"))
        .output()
        .await
        .expect("wrk runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let faults = ["Non-2xx", "Socket errors"];
    assert!(
        output.status.success() && !faults.iter().any(|fault| text.contains(fault)),
        "wrk on {entry}:\n{text}"
    );
    let line = text.lines().find(|line| line.contains(" requests in "));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("wrk says:\n{text}"))
}

/// Half and 99 of 100 requests take no longer.
#[derive(Clone, Copy, Default)]
pub(crate) struct Latency {
    p50: Duration,
    p99: Duration,
}

impl Latency {
    /// What is more than `other`.
    pub(crate) fn less(self, other: Self) -> Self {
        Self {
            p50: self.p50.saturating_sub(other.p50),
            p99: self.p99.saturating_sub(other.p99),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {} µs, p99 {} µs",
            self.p50.as_micros(),
            self.p99.as_micros()
        )
    }
}

/// Latency at so many requests a second, counted from when each was due.
pub(crate) async fn latency(entry: &str, per_second: f64, time: Duration) -> Latency {
    let gap = Duration::from_secs_f64(as_f64(OVER) / per_second);
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..OVER)
        .map(|n| {
            let entry = entry.to_owned();
            let first = Instant::now() + gap.mul_f64(as_f64(n) / as_f64(OVER));
            tokio::spawn(async move { timed(&entry, first, gap, end).await })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("requests"));
    }
    all.sort();
    let at = |share: usize| all.get(all.len() * share / 100).copied().unwrap_or_default();
    Latency {
        p50: at(50),
        p99: at(99),
    }
}

async fn timed(entry: &str, first: Instant, gap: Duration, end: Instant) -> Vec<Duration> {
    let stream = TcpStream::connect(entry).await.expect("connects");
    stream.set_nodelay(true).expect("an option");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    let mut tick = tokio::time::interval_at(first, gap);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut took = Vec::new();
    loop {
        let due = tick.tick().await;
        if due > end {
            return took;
        }
        let request = http::Request::get(PATH)
            .header("host", "backend")
            .body(Empty::<bytes::Bytes>::new())
            .expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.expect("a body");
        took.push(due.elapsed());
    }
}

/// Connections with a handshake of their own and one request each, for `time`; how many.
pub(crate) async fn handshakes(inbound: &str, presented: &Arc<Presented>, time: Duration) -> u64 {
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let config = Arc::new(config(presented));
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (stop, made) = (Arc::clone(&stop), Arc::clone(&made));
            let (config, inbound) = (Arc::clone(&config), inbound.to_owned());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect(&inbound, &config).await;
                    let answer = ask(&mut stream, PATH, "close").await;
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("handshakes");
    }
    made.load(Ordering::Relaxed)
}

/// So many connections, each with its handshake and one request behind it.
pub(crate) async fn idle(inbound: &str, presented: &Presented, count: usize) -> Vec<TlsStream<TcpStream>> {
    let config = Arc::new(config(presented));
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = connect(inbound, &config).await;
        ask(&mut stream, PATH, "keep-alive").await;
        held.push(stream);
    }
    held
}

/// The bulk through a TCP entry; how many bytes.
pub(crate) async fn bulk(entry: &str) -> u64 {
    let mut stream = TcpStream::connect(entry).await.expect("connects");
    let request = format!("GET {BULK_PATH} HTTP/1.1\r\nhost: backend\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let (mut room, mut moved) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut room).await.expect("bytes") {
            0 => return moved,
            some => moved += u64::try_from(some).expect("a count"),
        }
    }
}

async fn connect(inbound: &str, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(inbound).await.expect("connects");
    stream.set_nodelay(true).expect("an option");
    let name = rustls::pki_types::ServerName::try_from("any.invalid").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .expect("a handshake")
}

async fn ask(stream: &mut TlsStream<TcpStream>, path: &str, connection: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: backend\r\nconnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut room = [0; 2048];
    let read = stream.read(&mut room).await.expect("an answer");
    String::from_utf8_lossy(room.get(..read).unwrap_or_default()).into_owned()
}

fn config(presented: &Presented) -> ClientConfig {
    let mut config = signet_tests::tls::client_config(Some(presented)).expect("a configuration");
    // A resumed session is no full handshake.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![
        b"istio-http/1.1".to_vec(),
        b"istio".to_vec(),
        b"http/1.1".to_vec(),
    ];
    config
}

fn as_f64(count: usize) -> f64 {
    crate::issuance::as_f64(u64::try_from(count).unwrap_or(u64::MAX))
}
