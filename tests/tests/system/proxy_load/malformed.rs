//! Bytes that are no TLS and no HTTP, or only the beginning of it.

use std::sync::Arc;

use serde_json::json;
use signet_tests::proxy::Proxy;
use signet_tests::tls::client_config;
use signet_tests::wait::{SOON, until, within};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::traffic::{Callers, Door, Upstream, said};
use super::{STRICT, World, X, open, sound};
use crate::system::proxy_tls::connect;

/// A request that is good but for what is done to it. No caller asks for this path.
const HEAD: &str = "POST /broken HTTP/1.1\r\nhost: upstream\r\nx-more: 1\r\n\r\n";

/// A ClientHello of the mesh, in its record.
pub(super) fn hello() -> Vec<u8> {
    let mut config = client_config(None).unwrap();
    config.alpn_protocols = vec![b"istio".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("any.invalid").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// The same bytes in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = usize::try_from(self.next() % most + 1).unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < length {
            bytes.extend(self.next().to_be_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// How a client leaves after its last word.
#[derive(Clone, Copy, PartialEq)]
enum Leaves {
    /// It says that it is done and hears what is said.
    Listening,
    /// It resets the connection at once.
    Reset,
}

/// Says `words` and leaves; answers what it was told.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) -> Vec<u8> {
    // It may be reset before it has said everything.
    let _ = stream.write_all(words).await;
    let _ = stream.shutdown().await;
    let mut told = Vec::new();
    let _ = within("an end", SOON, stream.read_to_end(&mut told)).await;
    told
}

async fn visit(address: &str, words: &[u8], leaves: Leaves) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    if leaves == Leaves::Reset {
        let _ = stream.write_all(words).await;
        stream.set_zero_linger().unwrap();
        return;
    }
    say(stream, words).await;
}

/// Connections and requests to the workload that did not end well.
async fn refused(proxy: &Proxy) -> f64 {
    let text = proxy.scrape().await.text().to_owned();
    let lines = text.lines().filter(|line| {
        line.starts_with("signet_proxy_refusals_total{") && line.contains("direction=\"inbound\"")
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// What comes instead of a handshake.
fn broken_handshakes() -> Vec<Vec<u8>> {
    let (hello, mut noise) = (hello(), Noise(0x5167_6e65_7421));
    let mut all: Vec<Vec<u8>> = (0..hello.len()).map(|end| hello[..end].to_vec()).collect();
    for place in 0..hello.len() {
        let mut flipped = hello.clone();
        flipped[place] ^= 1 << (noise.next() % 8);
        all.push(flipped);
    }
    for _ in 0..100 {
        all.push(noise.bytes(400));
        // A record of a handshake, of any length, and of any contents.
        all.push([&[22, 3, 1][..], &noise.bytes(400)].concat());
        // A hello and then no handshake.
        all.push([&hello[..], &noise.bytes(400)].concat());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_handshakes_are_each_counted_and_others_are_served_meanwhile() {
    let world = World::start().await;
    let upstream = Upstream::start().await;
    let mut proxy = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .inbound(&upstream.address(), json!({"protocol": "http"}))
        .start()
        .await;
    let x = world.svid(X.0, X.1).await;
    let address = proxy.inbound(0);
    let callers = Callers::start("x", 2, &Door::of(&address, Some(&x)));
    callers.wait("requests before", "200", 10).await;
    let mut visits = 0_u32;
    for words in broken_handshakes() {
        for leaves in [Leaves::Listening, Leaves::Reset] {
            visit(&address, &words, leaves).await;
            visits += 1;
        }
    }
    callers.wait("requests after", "200", 10).await;
    assert_eq!(said(&callers.stop().await), ["200".to_owned()].into());
    until("quiet", SOON, async || open(&proxy).await == 0.0).await;
    assert_eq!(refused(&proxy).await, f64::from(visits));
    sound(&mut proxy);
}

/// Heads that are no good, each a request that must not pass.
fn broken_heads() -> Vec<Vec<u8>> {
    let mut noise = Noise(0x6874_7470);
    let with = |header: &str| HEAD.replace("x-more: 1", header).into_bytes();
    let mut all: Vec<Vec<u8>> = (1..HEAD.len())
        .map(|end| HEAD.as_bytes()[..end].to_vec())
        .collect();
    all.extend(
        [
            "content-length: 3\r\ncontent-length: 4",
            "content-length: -1",
            "content-length: 99999999999999999999999",
            "content-length: 0\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked, gzip",
            "transfer-encoding: identity, chunked",
            "host: another",
            "x-more : 1",
            "x-more\r\n: 1",
            "x more: 1",
            ": 1",
            "x-more: a\r\n folded: 1",
            "x-more: \0",
            "x-more: a\rb",
            "no colon",
        ]
        .map(with),
    );
    all.extend(
        [
            HEAD.replace("HTTP/1.1", "HTTP/9.9"),
            HEAD.replace("HTTP/1.1", "http/1.1"),
            HEAD.replace("HTTP/1.1", ""),
            HEAD.replace("host: upstream\r\n", ""),
            HEAD.replace("/broken", "/bro ken"),
            HEAD.replace("/broken", "broken"),
            HEAD.replace("POST", "PO\0ST"),
            HEAD.replace("POST", ""),
            HEAD.replace("1\r\n\r\n", &format!("{}\r\n\r\n", "1".repeat(100_000))),
            HEAD.replace("x-more: 1\r\n", &"x-more: 1\r\n".repeat(2_000)),
        ]
        .map(String::into_bytes),
    );
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for _ in 0..50 {
        all.push(noise.bytes(300));
        all.push([&b"POST /broken HTTP/1.1\r\n"[..], &noise.bytes(300), b"\r\n\r\n"].concat());
        all.push([&preface[..], &noise.bytes(300)].concat());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_requests_never_pass_are_each_counted_and_others_are_served_meanwhile() {
    let world = World::start().await;
    let upstream = Upstream::start().await;
    let mut proxy = world
        .backend_proxy()
        .inbound(&upstream.address(), json!({"protocol": "http"}))
        .start()
        .await;
    let x = world.svid(X.0, X.1).await;
    let address = proxy.inbound(0);
    let callers = Callers::start("x", 2, &Door::of(&address, Some(&x)));
    callers.wait("requests before", "200", 10).await;
    let mut visits = 0_u32;
    for words in broken_heads() {
        visits += 3;
        let plain = TcpStream::connect(&address).await.unwrap();
        let mutual = connect(&address, Some(&x), &["istio"]).await.unwrap();
        for told in [say(plain, &words).await, say(mutual, &words).await] {
            let (told, asked) = (String::from_utf8_lossy(&told), String::from_utf8_lossy(&words));
            assert!(
                !told.starts_with("HTTP/1.1 2"),
                "{asked:?} was answered with {told:?}"
            );
        }
        visit(&address, &words, Leaves::Reset).await;
    }
    callers.wait("requests after", "200", 10).await;
    assert_eq!(said(&callers.stop().await), ["200".to_owned()].into());
    until("quiet", SOON, async || open(&proxy).await == 0.0).await;
    let seen = upstream.seen();
    assert!(seen.iter().all(|path| path.starts_with("/x-")), "one passed");
    assert_eq!(refused(&proxy).await, f64::from(visits));
    sound(&mut proxy);
}
