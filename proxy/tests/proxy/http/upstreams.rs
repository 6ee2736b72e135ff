//! What becomes of requests when an upstream is gone, breaks off, or says nonsense.

use std::sync::atomic::Ordering;

use signet_proxy::config::Speaks;
use tokio::net::TcpListener;

use super::site::{ALLOW_ALL, Echo, Site, scripted, upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_503_with_the_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Auto));
    for _ in 0..2 {
        client.send(GET).await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, "upstream_connect");
    }
    assert!(site.metrics().contains("response_flags=\"UF\""));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_waited_costs_no_request() {
    let (address, connections) = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    for _ in 0..20 {
        client.send(GET).await;
        assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "));
        // The upstream's end is on its way; whether it is here already makes no difference.
        tokio::task::yield_now().await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn an_answer_that_is_nonsense_or_breaks_off_is_never_reused() {
    for (answer, close, status) in [
        (&b"nonsense\r\n\r\n"[..], false, "503"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            false,
            "503",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false, "503"),
        (
            b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
            false,
            "503",
        ),
        (b"", true, "503"),
        (b"HTTP/1.1 200 O", true, "503"),
    ] {
        let (address, connections) = scripted(answer, close).await;
        let site = Site::new("", ALLOW_ALL);
        let mut client = site.connect(&upstream(address, Speaks::Http1));
        for number in 1..3 {
            client.send(GET).await;
            let head = client.until("\r\n\r\n").await;
            let told = String::from_utf8_lossy(answer);
            assert_eq!(head.split(' ').nth(1), Some(status), "{told:?} {head}");
            client.until("upstream_").await;
            let rest = if head.contains("content-length: 19") {
                "bad_answer"
            } else {
                "reset"
            };
            client.until(rest).await;
            assert_eq!(connections.load(Ordering::SeqCst), number, "{told:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_with_both_framings_is_passed_on_with_one() {
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (address, _) = scripted(answer, false).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client.send(GET).await;
    let text = client.until("0\r\n\r\n").await;
    assert!(
        !text.contains("content-length") && text.contains("transfer-encoding: chunked"),
        "{text}"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_for_the_client_too() {
    let (address, _) = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", true).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client.send(GET).await;
    let text = client.rest().await;
    // Whatever was flushed by then is a part that cannot be taken for the whole.
    assert!(
        text.is_empty() || (text.contains("content-length: 10") && text.ends_with("abc")),
        "{text}"
    );
    client.task.await.unwrap();
    assert_eq!(site.refused("upstream_reset"), 1);
}

#[tokio::test]
async fn bytes_after_an_answer_are_nobodys_next_answer() {
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let (address, connections) = scripted(answer, false).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    for _ in 0..3 {
        client.send(GET).await;
        assert_eq!(client.answer().await.1, "ok");
    }
    assert_eq!(
        connections.load(Ordering::SeqCst),
        3,
        "a connection with bytes left over is not used again"
    );
}

#[tokio::test]
async fn no_more_requests_than_allowed_are_under_way_to_one_upstream() {
    let (address, connections) = scripted(b"", false).await;
    let site = Site::new(
        "limits: {http: {upstream_requests: 2, upstream_requests_per_source: 2}}\n",
        ALLOW_ALL,
    );
    let upstream = upstream(address, Speaks::Http1);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = site.connect(&upstream);
        client.send(GET).await;
        held.push(client);
    }
    while connections.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let mut one_more = site.connect(&upstream);
    one_more.send(GET).await;
    let (head, body) = one_more.answer().await;
    assert!(
        head.starts_with("HTTP/1.1 503 ") && body == "upstream_busy",
        "{head}{body}"
    );
    drop(held);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_connection_along() {
    let (address, connections) = scripted(b"", false).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client.send(GET).await;
    while connections.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    drop(client.stream);
    client.task.await.unwrap();
    assert_eq!(site.refused("client_gone"), 1, "{}", site.metrics());
}

#[tokio::test]
async fn a_client_that_leaves_within_a_head_is_counted_and_between_requests_it_is_not() {
    let echo = Echo::start().await;
    for begun in [
        "",
        "P",
        "PRI * HT",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: b\r\nX: ",
    ] {
        let site = Site::new("", ALLOW_ALL);
        for asked in [false, true] {
            let mut client = site.connect(&echo.upstream());
            if asked {
                client.send(GET).await;
                client.answer().await;
            }
            client.send(begun).await;
            drop(client.stream);
            client.task.await.unwrap();
        }
        let counted = if begun.is_empty() { 0 } else { 2 };
        assert_eq!(
            site.refused("client_gone"),
            counted,
            "{begun:?} {}",
            site.metrics()
        );
    }
}
