//! Connections that become something else, on purpose only.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use signet_certs::UnixTime;
use signet_proxy::config::Speaks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::site::{ALLOW_ALL, Echo, Site, accepted, upstream};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

/// A server that switches protocols and then sends back what it gets.
async fn switching(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                assert!(
                    head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
                    "{head}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n";

#[tokio::test]
async fn after_an_upgrade_bytes_pass_both_ways_untouched() {
    let address = switching(SWITCH).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Auto));
    client.send(ASK).await;
    let head = client.until("\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("sec-websocket-accept: y"),
        "{head}"
    );
    let message = b"\n\r\0 no http at all\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    for _ in 0..3 {
        client.send(message).await;
        let mut back = vec![0; message.len()];
        client.stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, message);
    }
}

#[tokio::test]
async fn an_upgrade_ends_when_policy_would_no_longer_let_it_begin() {
    let address = switching(SWITCH).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Auto));
    client.send(ASK).await;
    client.until("\r\n\r\n").await;
    site.enforce(super::judged::DENY_POST);
    client.send("still here").await;
    client.until("still here").await;
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ws, namespace: b}\n\
                spec: {action: DENY, rules: [{to: [{operation: {paths: [/ws]}}]}]}\n";
    site.enforce(deny);
    assert_eq!(client.rest().await, "");
    assert_eq!(site.refused("policy_withdrawn"), 1);
}

#[tokio::test]
async fn an_upgrade_ends_with_its_token() {
    use super::withdrawn::tokens::{Issuer, ONLY_ALICE};
    let (address, issuer) = (switching(SWITCH).await, Issuer::new());
    let site = Site::new("", &(issuer.authentication() + ONLY_ALICE));
    let now = site.clock.0.load(Ordering::SeqCst);
    let mut client = site.connect(&upstream(address, Speaks::Auto));
    let token = issuer.token(now + 100);
    client
        .send(ASK.replace("\r\n\r\n", &format!("\r\nAuthorization: Bearer {token}\r\n\r\n")))
        .await;
    client.until("\r\n\r\n").await;
    client.send("still here").await;
    client.until("still here").await;
    site.clock.0.store(now + 162, Ordering::SeqCst);
    assert_eq!(client.rest().await, "");
    assert_eq!(site.refused("token_withdrawn"), 1, "{}", site.metrics());
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_our_svid_an_upgrade_is_left_alone_unless_configured_otherwise() {
    for (config, stays) in [("", true), ("close_on_expiry: true\n", false)] {
        let address = switching(SWITCH).await;
        let site = Site::new(config, ALLOW_ALL);
        let now = site.clock.0.load(Ordering::SeqCst);
        let mut ending = accepted();
        ending.own_not_after = Some(UnixTime::since_unix_epoch(Duration::from_secs(now + 100)));
        let mut client = site.connect_as(ending, &upstream(address, Speaks::Auto));
        client.send(ASK).await;
        client.until("\r\n\r\n").await;
        site.clock.0.store(now + 101, Ordering::SeqCst);
        if stays {
            tokio::time::sleep(Duration::from_secs(60)).await;
            client.send("still here").await;
            client.until("still here").await;
        } else {
            assert_eq!(client.rest().await, "");
            assert_eq!(site.refused("svid_expired"), 1);
        }
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_answered_leaves_http_as_it_was() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    for _ in 0..2 {
        client.send(ASK).await;
        assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "));
    }
    client
        .send("GET / HTTP/1.1\r\nHost: b\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
        .await;
    let (_, told) = client.answer().await;
    assert!(
        !told.contains("upgrade") && !told.contains("http2-settings"),
        "{told}"
    );
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_a_bad_answer() {
    for (answer, ask) in [
        (SWITCH, "GET / HTTP/1.1\r\nHost: b\r\n\r\n"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", ASK),
    ] {
        let (address, _) = super::site::scripted(answer.as_bytes(), false).await;
        let site = Site::new("", ALLOW_ALL);
        let mut client = site.connect(&upstream(address, Speaks::Http1));
        client.send(ask).await;
        let (head, _) = client.answer().await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(site.refused("upstream_bad_answer"), 1);
    }
}

#[tokio::test]
async fn connect_is_not_served() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    client.send("CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert_eq!(echo.connections(), 0);
}
