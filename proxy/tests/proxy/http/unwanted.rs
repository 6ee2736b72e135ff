//! Clients that are answered while they still send: they hear the answer, whatever they send after it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{PingPong, Reason, SendStream};
use http::Request;
use signet_proxy::config::Speaks;
use signet_proxy::outbound::Upstream;
use tokio::time::Instant;

use super::site::{ALLOW_ALL, Echo, Site, scripted, upstream};

const DENY_ALL: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: b}
spec: {}
";

const BODY: usize = 300_000;

/// A stream whose head was sent.
struct Begun {
    answer: ResponseFuture,
    body: SendStream<Bytes>,
    pings: PingPong,
    _sender: SendRequest<Bytes>,
}

impl Begun {
    async fn at(site: &Site, upstream: &Upstream) -> Self {
        let stream = site.connect(upstream).stream;
        let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://b/").body(()).unwrap();
        let (answer, body) = sender.send_request(request, false).unwrap();
        Self {
            answer,
            body,
            pings,
            _sender: sender,
        }
    }

    /// The whole answer's status.
    async fn answered(&mut self) -> u16 {
        let (head, mut body) = (&mut self.answer).await.unwrap().into_parts();
        while let Some(piece) = body.data().await {
            let length = piece.unwrap().len();
            body.flow_control().release_capacity(length).unwrap();
        }
        head.status.as_u16()
    }

    /// Sends the whole body.
    async fn send(&mut self) {
        let mut left = BODY;
        while left > 0 {
            self.body.reserve_capacity(left);
            let room = poll_fn(|cx| self.body.poll_capacity(cx)).await;
            let piece = left.min(room.expect("the stream is open").unwrap());
            left -= piece;
            let bytes = Bytes::from(vec![b'x'; piece]);
            self.body.send_data(bytes, left == 0).unwrap();
        }
    }

    /// By which reason the proxy has reset the stream, now that it has read everything.
    async fn reset(&mut self) -> Option<Reason> {
        self.pings.ping(h2::Ping::opaque()).await.unwrap();
        poll_fn(|cx| match self.body.poll_reset(cx) {
            Poll::Ready(reason) => Poll::Ready(reason.ok()),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}

#[tokio::test]
async fn a_client_of_http1_that_is_refused_while_it_sends_hears_so_and_may_ask_again() {
    let echo = Echo::start().await;
    let site = Site::new("", DENY_ALL);
    let mut client = site.connect(&echo.upstream());
    for _ in 0..2 {
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: {BODY}\r\n\r\nx"
            ))
            .await;
        let (head, _) = client.answer().await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        client.send(vec![b'x'; BODY - 1]).await;
    }
    assert_eq!(echo.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_late_of_a_body_is_no_request() {
    let site = Site::new("", DENY_ALL);
    let nobody = upstream("192.0.2.1:1".parse().unwrap(), Speaks::Http1);
    let mut client = site.connect(&nobody);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n";
    let length = smuggled.len();
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    client.answer().await;
    // Idle for so long that a connection without a request under way would give its parser back.
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.send(smuggled).await;
    client
        .send("GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
        .await;
    let answers = client.rest().await;
    assert_eq!(answers.matches("HTTP/1.1 403").count(), 1, "{answers}");
}

#[tokio::test]
async fn a_client_of_http1_that_asks_first_is_not_told_to_go_on() {
    let site = Site::new("", DENY_ALL);
    let mut client = site.connect(&Echo::start().await.upstream());
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

#[tokio::test]
async fn a_client_of_http2_that_is_refused_while_it_sends_is_not_reset() {
    let echo = Echo::start().await;
    let site = Site::new("", DENY_ALL);
    let mut begun = Begun::at(&site, &echo.upstream()).await;
    assert_eq!(begun.answered().await, 403);
    assert_eq!(begun.reset().await, None);
    begun.send().await;
    assert_eq!(begun.reset().await, None);
}

#[tokio::test]
async fn a_client_whose_upstream_answers_while_it_sends_is_not_reset() {
    let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
    let (address, _) = scripted(answer, false).await;
    let site = Site::new("", ALLOW_ALL);
    let mut begun = Begun::at(&site, &upstream(address, Speaks::Http1)).await;
    assert_eq!(begun.answered().await, 413);
    begun.send().await;
    assert_eq!(begun.reset().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http1_that_does_not_go_on_is_closed() {
    let site = Site::new("", DENY_ALL);
    let nobody = upstream("192.0.2.1:1".parse().unwrap(), Speaks::Http1);
    let mut client = site.connect(&nobody);
    let began = Instant::now();
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 9\r\n\r\nx")
        .await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert_eq!(client.rest().await, "");
    lingered(began);
}

/// For the time that a body nobody wants is read.
fn lingered(began: Instant) {
    let (took, seconds) = (began.elapsed(), Duration::from_secs);
    assert!(took >= seconds(5) && took < seconds(6), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_end_its_body_soon_is_reset_all_the_same() {
    let site = Site::new("", DENY_ALL);
    let nobody = upstream("192.0.2.1:1".parse().unwrap(), Speaks::Http1);
    let mut begun = Begun::at(&site, &nobody).await;
    let began = Instant::now();
    assert_eq!(begun.answered().await, 403);
    let reason = poll_fn(|cx| begun.body.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
    lingered(began);
}
