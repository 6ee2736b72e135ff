//! HTTP/2 clients that make others work for nothing: ended, counted, and nothing is kept of them.

use super::site::{ALLOW_ALL, Client, Echo, Site};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `GET http://b/` in static HPACK.
pub(super) fn head() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84];
    block.extend([0x41, 0x01, b'b']);
    block
}

pub(super) fn settings() -> Vec<u8> {
    frame(0x4, 0, 0, &[])
}

/// Sends until the proxy closes, and reads all the while.
async fn flood(client: Client, frames: impl Iterator<Item = Vec<u8>> + Send + 'static) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Client { stream, task } = client;
    let (mut read, mut write) = tokio::io::split(stream);
    let writer = tokio::spawn(async move {
        for bytes in frames {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let mut all = Vec::new();
    let _ = read.read_to_end(&mut all).await;
    task.await.unwrap();
    writer.await.unwrap();
}

#[tokio::test]
async fn floods_end_the_connection_and_are_counted() {
    let ping = frame(0x6, 0, 0, &[0; 8]);
    let six = [0, 3, 0, 0, 0, 100];
    let settings_frame = frame(0x4, 0, 0, &six);
    let priority = frame(0x2, 0, 1, &[0, 0, 0, 0, 1]);
    let unknown = frame(0xee, 0, 0, &[1, 2, 3]);
    for (name, one) in [
        ("ping", ping),
        ("settings", settings_frame),
        ("priority", priority),
        ("unknown", unknown),
    ] {
        let echo = Echo::start().await;
        let site = Site::new("", ALLOW_ALL);
        let client = site.connect(&echo.upstream());
        let begin = [PREFACE.to_vec(), settings()].concat();
        flood(
            client,
            std::iter::once(begin).chain(std::iter::repeat_n(one, 5000)),
        )
        .await;
        assert_eq!(site.refused("limit_abuse"), 1, "{name}: {}", site.metrics());
    }
}

#[tokio::test]
async fn requests_that_are_reset_at_once_end_the_connection() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let client = site.connect(&echo.upstream());
    let begin = [PREFACE.to_vec(), settings()].concat();
    let pairs = (0..5000_u32).map(|number| {
        let stream = number * 2 + 1;
        [
            frame(0x1, 0x5, stream, &head()),
            frame(0x3, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat()
    });
    flood(client, std::iter::once(begin).chain(pairs)).await;
    assert_eq!(site.refused("limit_abuse"), 1, "{}", site.metrics());
    assert!(echo.count() < 1000, "{}", echo.count());
}

#[tokio::test]
async fn a_header_block_without_end_is_cut_off() {
    for piece in [vec![], vec![0x00, 0x01, b'a', 0x01, b'b']] {
        let echo = Echo::start().await;
        let site = Site::new("", ALLOW_ALL);
        let client = site.connect(&echo.upstream());
        let begin = [PREFACE.to_vec(), settings(), frame(0x1, 0x1, 1, &head())].concat();
        let pieces = std::iter::repeat_n(frame(0x9, 0, 1, &piece), 100_000);
        flood(client, std::iter::once(begin).chain(pieces)).await;
        assert_eq!(site.refused("limit_abuse"), 1, "{}", site.metrics());
        assert_eq!(echo.count(), 0);
    }
}

#[tokio::test]
async fn headers_beyond_their_bound_are_refused_on_their_stream() {
    use http_body_util::Full;
    let echo = Echo::start().await;
    let site = Site::new("limits: {http: {header_bytes: 4096}}\n", ALLOW_ALL);
    let mut sender = site.connect(&echo.upstream()).http2().await;
    let request = http::Request::get("http://b/")
        .header("x-large", "x".repeat(10_000))
        .body(Full::<bytes::Bytes>::default())
        .unwrap();
    let answer = sender.send_request(request).await;
    assert!(answer.map_or(true, |answer| answer.status() == 431));
    assert_eq!(echo.count(), 0);
}

#[tokio::test]
async fn more_streams_than_allowed_are_not_served_at_once() {
    use tokio::io::AsyncReadExt as _;
    let (address, connections) = super::site::scripted(b"", false).await;
    let site = Site::new("limits: {http: {streams: 3}}\n", ALLOW_ALL);
    let mut client = site.connect(&super::site::upstream(
        address,
        signet_proxy::config::Speaks::Http1,
    ));
    client.send([PREFACE.to_vec(), settings()].concat()).await;
    for stream in [1_u32, 3, 5, 7, 9] {
        client.send(frame(0x1, 0x5, stream, &head())).await;
    }
    let mut refused = 0;
    while refused < 2 {
        let mut head = [0; 9];
        client.stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        client.stream.read_exact(&mut payload).await.unwrap();
        if head[3] == 0x3 {
            assert_eq!(payload, [0, 0, 0, 7], "REFUSED_STREAM");
            refused += 1;
        }
    }
    assert!(connections.load(std::sync::atomic::Ordering::SeqCst) <= 3);
}

/// A header that is neither indexed nor huffman-coded.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x00, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    bytes.push(u8::try_from(value.len()).unwrap());
    bytes.extend(value.as_bytes());
    bytes
}

#[tokio::test]
async fn what_http1_would_read_as_framing_does_not_pass_from_http2_to_it() {
    for (headers, body) in [
        (
            vec![("transfer-encoding", "chunked")],
            "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        ),
        (vec![("connection", "upgrade"), ("upgrade", "x")], ""),
        (vec![("content-length", "3")], "0123456789"),
        (vec![("content-length", "30")], "0123456789"),
        (
            vec![("content-length", "10"), ("content-length", "3")],
            "0123456789",
        ),
        (
            vec![("content-length", "10"), ("content-length", "10")],
            "0123456789",
        ),
        (vec![("x", "a\r\ntransfer-encoding: chunked")], "x"),
        (vec![("x\r\ny", "a")], "x"),
        (vec![("X-Upper", "a")], "x"),
        (vec![(":path", "/other")], "x"),
        (vec![("host", "other")], "x"),
        (vec![("te", "gzip")], "x"),
    ] {
        let echo = Echo::start().await;
        let site = Site::new("", ALLOW_ALL);
        let speaks = signet_proxy::config::Speaks::Http1;
        let mut client = site.connect(&super::site::upstream(echo.address, speaks));
        // `POST`, https, `/`, authority b.
        let mut block = vec![0x83, 0x87, 0x84, 0x41, 0x01, b'b'];
        for (name, value) in &headers {
            block.extend(literal(name, value));
        }
        let bytes = [
            PREFACE.to_vec(),
            settings(),
            frame(0x1, 0x4, 1, &block),
            frame(0x0, 0x1, 1, body.as_bytes()),
            // A good one after it, to see that the bad one is over.
            frame(0x1, 0x5, 3, &[0x82, 0x87, 0x84, 0x41, 0x01, b'b']),
        ];
        client.send(bytes.concat()).await;
        // Two good ones, one after the other: by the end of the second, the bad one had all the time it needs.
        let patience = std::time::Duration::from_secs(60);
        for (times, next) in [(1, Some(5)), (2, None)] {
            let told = tokio::time::timeout(patience, client.until_asked(&echo, times)).await;
            let asked = told.unwrap_or_else(|_| panic!("{headers:?} hangs"));
            let Some(stream) = next.filter(|_| asked) else {
                break;
            };
            let good = frame(0x1, 0x5, stream, &[0x82, 0x87, 0x84, 0x41, 0x01, b'b']);
            client.send(good).await;
        }
        let seen = echo.seen.lock().unwrap().clone();
        let good = |one: &String| one.starts_with("GET / ") && one.ends_with("body ");
        assert!(seen.iter().all(good), "{headers:?} went on as {seen:?}");
    }
}
