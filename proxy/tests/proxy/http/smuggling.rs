//! Messages that two servers may cut in two ways: refused with 400, and nothing of them goes on.

use super::site::{ALLOW_ALL, Echo, Site};

/// What is refused is refused at once; this only ends a test that would never end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Each is followed by what an attacker would like to be a second request.
const AMBIGUOUS: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 4, 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: -1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: +4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 4 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length : 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: b\r\nContent-Length\r\n: 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: b\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\nHost: b\nContent-Length: 0\n\n",
    "GET / HTTP/1.1\r\nHost: b\r\nX: \0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: b\r\nX\0: a\r\n\r\n",
    "GET /\0 HTTP/1.1\r\nHost: b\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET http://c/ HTTP/1.1\r\nHost: b\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1 x\r\nHost: b\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: b\r\n\r\n",
    "GET /\r\nHost: b\r\n\r\n",
    "G\tT / HTTP/1.1\r\nHost: b\r\n\r\n",
    "get / HTTP/1.1\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: b\r\nConnection: content-length\r\nContent-Length: 4\r\n\r\nabcd",
    "GET / HTTP/1.1\r\nHost: b\r\nConnection: x-forwarded-client-cert\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: b\r\n\r\n",
    "GET b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: b\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nGET /early HTTP/1.1\r\nHost: b\r\n\r\n",
];

#[tokio::test]
async fn ambiguous_messages_are_refused_and_nothing_of_them_goes_on() {
    for text in AMBIGUOUS {
        let echo = Echo::start().await;
        let site = Site::new("", ALLOW_ALL);
        let mut client = site.connect(&echo.upstream());
        client.send(text).await;
        client.send("GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n").await;
        let answer = tokio::time::timeout(PATIENCE, client.rest()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{text:?} was served: {}", echo.last()));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{text:?} got {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{text:?} got {answer:?}");
        assert_eq!(echo.count(), 0, "{text:?} reached the upstream: {}", echo.last());
        client.task.await.unwrap();
        assert_eq!(site.refused("request_bad"), 1, "{text:?} {}", site.metrics());
    }
}

#[tokio::test]
async fn a_chunk_that_is_malformed_ends_the_request_before_the_upstream_has_all_of_it() {
    for chunks in [
        "zz\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
    ] {
        let echo = Echo::start().await;
        let site = Site::new("", ALLOW_ALL);
        let mut client = site.connect(&echo.upstream());
        client
            .send("POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            .await;
        client.send(chunks).await;
        client.send("GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n").await;
        let answer = client.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(),
            "{chunks:?} got {answer:?}"
        );
        assert_eq!(
            echo.count(),
            0,
            "{chunks:?} reached the upstream: {}",
            echo.last()
        );
        client.task.await.unwrap();
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_by_size_and_by_count() {
    let echo = Echo::start().await;
    let site = Site::new(
        "limits: {http: {header_bytes: 2048, header_count: 10}}\n",
        ALLOW_ALL,
    );
    let large = format!("GET / HTTP/1.1\r\nHost: b\r\nX: {}\r\n\r\n", "x".repeat(4000));
    let many = format!("GET / HTTP/1.1\r\nHost: b\r\n{}\r\n", "X: y\r\n".repeat(20));
    for text in [large, many] {
        let mut client = site.connect(&echo.upstream());
        client.send(&text).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
        client.task.await.unwrap();
    }
    assert_eq!((echo.count(), site.refused("request_headers_too_large")), (0, 2));
}

#[tokio::test]
async fn a_body_beyond_its_bound_is_refused_whether_it_says_its_length_or_not() {
    let echo = Echo::start().await;
    let site = Site::new("limits: {http: {body_bytes: 10}}\n", ALLOW_ALL);
    for text in [
        "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 11\r\n\r\nabcdefghijk",
        "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabcdefgh\r\n3\r\nijk\r\n0\r\n\r\n",
    ] {
        let mut client = site.connect(&echo.upstream());
        client.send(text).await;
        let head = client.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    }
    assert_eq!((echo.count(), site.refused("request_body_too_large")), (0, 2));
    let mut client = site.connect(&echo.upstream());
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 10\r\n\r\nabcdefghij")
        .await;
    assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "));
}
