//! Slow clients and slow upstreams: each has so long, and a reason of its own. Time is the test's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt as _;
use signet_certs::UnixTime;
use signet_proxy::config::Speaks;
use tokio::io::AsyncReadExt as _;

use super::site::{ALLOW_ALL, Echo, Site, accepted, scripted, upstream};
use super::withdrawn::{Talker, get, get2, next};

const SHORT: &str =
    "limits: {http: {request_head: 5s, request_body: 6s, response_head: 7s, idle: 60s, write_stall: 8s}}\n";

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_too_slowly_is_answered_with_408() {
    let echo = Echo::start().await;
    let site = Site::new(SHORT, ALLOW_ALL);
    for begin in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: b\r\nX: "] {
        let started = tokio::time::Instant::now();
        let mut client = site.connect(&echo.upstream());
        client.send(begin).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{begin:?} {answer}");
        let took = started.elapsed();
        assert!(
            took >= Duration::from_secs(5) && took < Duration::from_secs(7),
            "{took:?}"
        );
        client.task.await.unwrap();
    }
    assert_eq!((site.refused("request_slow"), echo.connections()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_more_is_closed_without_a_word() {
    let (address, _) = scripted(b"HTTP/1.1 204 No Content\r\n\r\n", false).await;
    let site = Site::new(SHORT, super::judged::DENY_POST);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert!(client.answer().await.0.starts_with("HTTP/1.1 403 "));
    let started = tokio::time::Instant::now();
    assert_eq!(client.rest().await, "");
    let took = started.elapsed();
    assert!(
        took >= Duration::from_secs(59) && took < Duration::from_secs(62),
        "{took:?}"
    );
    assert_eq!(site.refused("request_slow"), 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_request_the_next_head_has_its_own_time_once_it_began() {
    let (address, _) = scripted(b"", false).await;
    let site = Site::new(SHORT, super::judged::DENY_POST);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n")
        .await;
    client.answer().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    client.send("GET ").await;
    let started = tokio::time::Instant::now();
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    assert!(started.elapsed() < Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_pauses_for_too_long_is_given_up() {
    let (address, _) = scripted(b"", false).await;
    let site = Site::new(SHORT, ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 100\r\n\r\nabc")
        .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    client.rest().await;
    client.task.await.unwrap();
    assert_eq!(site.refused("request_slow"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_does_not_answer_in_time_is_504() {
    let (address, _) = scripted(b"", false).await;
    let site = Site::new(SHORT, ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    let (head, body) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    assert_eq!(
        (body.as_str(), site.refused("upstream_slow")),
        ("upstream_slow", 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_may_take_so_long_in_all_even_when_its_answer_has_begun() {
    let (address, _) = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", false).await;
    let site = Site::new("limits: {http: {total: 9s}}\n", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.ends_with("abc"), "{answer}");
    client.task.await.unwrap();
    assert_eq!(site.refused("upstream_slow"), 1, "{}", site.metrics());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() {
    let answer: &'static [u8] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n".to_vec(),
        vec![b'x'; 4_000_000],
    ]
    .concat()
    .leak();
    let (address, _) = scripted(answer, false).await;
    let site = Site::new(SHORT, ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    let mut some = [0; 10];
    client.stream.read_exact(&mut some).await.unwrap();
    client.task.await.unwrap();
    assert_eq!(site.refused("client_idle"), 1, "{}", site.metrics());
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_our_svid_the_connection_is_asked_to_end() {
    let (address, _) = scripted(b"", false).await;
    let site = Site::new("", super::judged::DENY_POST);
    let mut ending = accepted();
    let now = site.clock.0.load(Ordering::SeqCst);
    ending.own_not_after = Some(UnixTime::since_unix_epoch(Duration::from_secs(now + 100)));
    let mut client = site.connect_as(ending, &upstream(address, Speaks::Http1));
    let request = "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n";
    client.send(request).await;
    assert!(!client.answer().await.0.contains("connection: close"));
    site.clock.0.store(now + 101, Ordering::SeqCst);
    assert_eq!(client.rest().await, "", "closed while it is idle");
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_our_svid_http2_takes_no_more_requests_and_those_under_way_finish() {
    let talker = Talker::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut ending = accepted();
    let now = site.clock.0.load(Ordering::SeqCst);
    ending.own_not_after = Some(UnixTime::since_unix_epoch(Duration::from_secs(now + 100)));
    let way = upstream(talker.address, Speaks::Http1);
    let mut sender = site.connect_as(ending, &way).http2().await;
    let mut long = sender.send_request(get2("/long")).await.unwrap();
    next(&mut long).await.unwrap();
    site.clock.0.store(now + 100, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(sender.is_ready());
    site.clock.0.store(now + 101, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(sender.send_request(get2("/more")).await.is_err(), "GOAWAY");
    talker.say("/long", "the rest").await;
    assert_eq!(next(&mut long).await.unwrap(), "the rest");
    talker.finish();
    let rest = long.into_body().collect().await;
    assert!(
        rest.is_ok_and(|rest| rest.to_bytes().is_empty()),
        "{}",
        site.metrics()
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_our_svid_a_busy_http1_connection_says_that_it_ends() {
    let talker = Talker::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut ending = accepted();
    let now = site.clock.0.load(Ordering::SeqCst);
    ending.own_not_after = Some(UnixTime::since_unix_epoch(Duration::from_secs(now + 100)));
    let mut client = site.connect_as(ending, &talker.upstream());
    client.send(get("/first")).await;
    let head = client.until("first\r\n").await;
    assert!(!head.contains("connection: close"), "{head}");
    site.clock.0.store(now + 101, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    talker.finish();
    assert_eq!(
        client.rest().await,
        "\r\n0\r\n\r\n".trim_start(),
        "whole, and the connection with it"
    );
}

#[tokio::test]
async fn drain_ends_idle_connections_and_closes_busy_ones_with_their_answer() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut idle = site.connect(&echo.upstream());
    idle.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    idle.answer().await;
    let mut busy = site.connect(&echo.upstream());
    busy.send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        .await;
    busy.until("100 Continue\r\n\r\n").await;
    site.shared.drain.cancel();
    assert_eq!(idle.rest().await, "");
    busy.send("hi").await;
    let answer = busy.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_idle_for_long_serves_its_next_requests_as_the_first() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    for pause in [0, 2, 1, 900, 0] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        client
            .send("GET /a HTTP/1.1\r\nHost: b\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\n\r\n")
            .await;
        for _ in 0..2 {
            let (head, _) = client.answer().await;
            assert!(head.starts_with("HTTP/1.1 200"), "after {pause} s: {head}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn drain_ends_a_connection_that_was_idle_for_long() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    client.answer().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    site.shared.drain.cancel();
    assert_eq!(client.rest().await, "");
}
