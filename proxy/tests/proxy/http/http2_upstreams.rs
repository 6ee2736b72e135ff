//! HTTP/2 upstreams that end, refuse, take much, or are left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::Response;
use signet_proxy::config::Speaks;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::site::{ALLOW_ALL, Echo, Site, upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";

/// An upstream that does this with each request, of which it tells the number. Counts its connections.
async fn serving(
    each: impl Fn(usize, SendResponse<Bytes>, &mut Connection<TcpStream, Bytes>) + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, requests) = (Arc::clone(&connections), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let (each, requests) = (each.clone(), Arc::clone(&requests));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, respond))) = connection.accept().await {
                    each(requests.fetch_add(1, Ordering::SeqCst), respond, &mut connection);
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn no_request_is_lost_when_an_upstream_ends_its_connections() {
    let (address, connections) = serving(|_, mut respond, connection| {
        respond.send_response(Response::new(()), true).unwrap();
        connection.graceful_shutdown();
    })
    .await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http2));
    for _ in 0..20 {
        client.send(GET).await;
        let (head, _) = client.answer().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    assert!(connections.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn a_refused_request_without_a_body_is_sent_again() {
    let (address, _) = serving(|number, mut respond, _| {
        if number == 0 {
            respond.send_reset(Reason::REFUSED_STREAM);
        } else {
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http2));
    client.send(GET).await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(site.metrics().contains("signet_proxy_upstream_retries_total 1"));
}

#[tokio::test]
async fn a_failed_request_is_503_and_is_not_sent_again() {
    let (address, connections) =
        serving(|_, mut respond, _| respond.send_reset(Reason::INTERNAL_ERROR)).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http2));
    client.send(GET).await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert!(site.metrics().contains("signet_proxy_upstream_retries_total 0"));
}

#[tokio::test]
async fn an_answer_that_is_reset_is_not_taken_for_a_whole_one() {
    let (begun, mut bodies) = mpsc::unbounded_channel();
    let (address, _) = serving(move |_, mut respond, _| {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data("some of it".into(), false).unwrap();
        begun.send(body).unwrap();
    })
    .await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http2));
    client.send(GET).await;
    client.until("some of it").await;
    bodies.recv().await.unwrap().send_reset(Reason::CANCEL);
    let told = client.rest().await;
    assert!(!told.ends_with("0\r\n\r\n"), "{told}");
}

#[tokio::test]
async fn bodies_beyond_every_window_go_both_ways() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(echo.address, Speaks::Http2));
    let body = "x".repeat(3_000_000);
    let length = body.len();
    client
        .send(&format!(
            "PUT /a HTTP/1.1\r\nHost: b\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    let (_, told) = client.answer().await;
    assert!(told.ends_with(&body), "{}", told.len());
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_stream_along() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (address, _) = serving(move |_, respond, _| arrived.send(respond).unwrap()).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http2));
    client.send(GET).await;
    let mut respond = arrivals.recv().await.unwrap();
    drop(client);
    let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, Reason::CANCEL);
}

/// What a stream may carry before its receiver says more (RFC 9113 §6.9.2).
const FIRST_WINDOW: usize = 65_535;

/// An upstream that answers once its window is used up, never opens it again, and tells how the body ended.
async fn sated() -> (SocketAddr, mpsc::UnboundedReceiver<Option<Reason>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (mut body, tell) = (request.into_body(), tell.clone());
            tokio::spawn(async move {
                let mut taken = 0;
                let end = loop {
                    match body.data().await {
                        Some(Ok(data)) => taken += data.len(),
                        Some(Err(error)) => break error.reason(),
                        None => break None,
                    }
                    if taken == FIRST_WINDOW {
                        respond.send_response(Response::new(()), true).unwrap();
                    }
                };
                tell.send(end).unwrap();
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn an_upload_that_is_no_longer_taken_ends_with_its_request() {
    let (address, mut told) = sated().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http2));
    let body = "x".repeat(200_000);
    client
        .send(format!(
            "PUT /a HTTP/1.1\r\nHost: b\r\nContent-Length: 200000\r\n\r\n{body}"
        ))
        .await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let patience = Duration::from_secs(60);
    let end = timeout(patience, told.recv()).await.unwrap();
    assert_eq!(end, Some(Some(Reason::CANCEL)));
    let tasks = site.shared.http.tasks();
    let only_the_connection = async {
        while tasks.len() != 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(patience, only_the_connection).await.unwrap();
}

/// An address that answers to nothing: a listener that has as many connections waiting as it may. As long as what
/// comes with it is held.
async fn hole() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 100, "the queue has no end");
    }
    (address, (listener, waiting))
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_connection_share_its_failure() {
    let site = Site::new("limits: {connect: 5s}\n", ALLOW_ALL);
    let (address, _held) = hole().await;
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = site.connect(&upstream(address, Speaks::Http2));
        client.send(GET).await;
        clients.push(client);
    }
    for client in &mut clients {
        let (head, _) = client.answer().await;
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    }
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(5) && took < Duration::from_secs(6),
        "{took:?}"
    );
    assert_eq!(site.refused("upstream_slow"), 20, "{}", site.metrics());
    // Whoever comes later tries again.
    let began = Instant::now();
    clients[0].send(GET).await;
    clients[0].answer().await;
    assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
}
