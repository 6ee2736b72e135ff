//! HTTP/2 from the client, to upstreams of either kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use signet_proxy::config::Speaks;
use tokio::net::TcpListener;

use super::site::{ALLOW_ALL, Echo, Site, accepted, upstream};

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test]
async fn requests_go_on_as_they_came_or_as_the_upstream_wants_them() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    for (speaks, version, host) in [
        (Speaks::Auto, "HTTP/2.0", "http://back:80/a?b"),
        (Speaks::Http2, "HTTP/2.0", "http://back:80/a?b"),
        (Speaks::Http1, "HTTP/1.1", "host: back:80"),
    ] {
        let mut sender = site.connect(&upstream(echo.address, speaks)).http2().await;
        let mut request = get("http://back:80/x/../a?b");
        *request.body_mut() = Full::from("hi");
        *request.method_mut() = http::Method::PUT;
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let told = response.into_body().collect().await.unwrap().to_bytes();
        let told = String::from_utf8(told.to_vec()).unwrap();
        assert!(
            told.starts_with("PUT ") && told.contains(version) && told.contains(host),
            "{told}"
        );
        assert!(told.ends_with("body hi"), "{told}");
    }
    let mut client = site.connect(&upstream(echo.address, Speaks::Http2));
    client.send("GET /from/1 HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert!(
        client
            .answer()
            .await
            .1
            .starts_with("GET http://b/from/1 HTTP/2.0")
    );
}

#[tokio::test]
async fn alpn_says_which_http_it_is_before_a_byte_came() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut istio = accepted();
    istio.alpn = Some(b"istio-h2".as_slice().into());
    let mut sender = site.connect_as(istio, &echo.upstream()).http2().await;
    assert_eq!(sender.send_request(get("http://b/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn many_requests_at_once_share_one_upstream_connection() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let sender = site.connect(&echo.upstream()).http2().await;
    let requests = (0..50).map(|number| {
        let mut sender = sender.clone();
        async move {
            let response = sender
                .send_request(get(&format!("http://b/{number}")))
                .await
                .unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        }
    });
    let answers = futures::future::join_all(requests).await;
    for (number, told) in answers.iter().enumerate() {
        assert!(told.starts_with(format!("GET http://b/{number} ").as_bytes()));
    }
    assert_eq!(echo.connections(), 1);
}

/// A server whose answer has trailers, as gRPC's have.
async fn grpc() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let count = Arc::clone(&count);
                async move {
                    assert_eq!(request.headers()["te"], "trailers");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    count.fetch_add(1, Ordering::SeqCst);
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "5".parse().unwrap());
                    trailers.insert("grpc-message", "no such thing".parse().unwrap());
                    let frames = [
                        Ok::<_, std::convert::Infallible>(Frame::data(body)),
                        Ok(Frame::trailers(trailers)),
                    ];
                    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
                    response
                        .headers_mut()
                        .insert("content-type", "application/grpc".parse().unwrap());
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    (address, served)
}

#[tokio::test]
async fn a_grpc_call_keeps_its_trailers_and_its_status_is_counted() {
    let (address, served) = grpc().await;
    let site = Site::new("", ALLOW_ALL);
    let mut sender = site.connect(&upstream(address, Speaks::Auto)).http2().await;
    let request = Request::post("http://b/shop.Cart/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from(&b"\0\0\0\0\x02hi"[..]))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "5");
    assert_eq!(trailers["grpc-message"], "no such thing");
    assert_eq!(&body.to_bytes()[..], b"\0\0\0\0\x02hi");
    assert_eq!(served.load(Ordering::SeqCst), 1);
    let metrics = site.metrics();
    assert!(metrics.contains("request_protocol=\"grpc\"") && metrics.contains("grpc_response_status=\"5\""));
}

#[tokio::test]
async fn a_denial_of_one_stream_leaves_the_others_alone() {
    let echo = Echo::start().await;
    let site = Site::new("", super::judged::DENY_POST);
    let mut sender = site.connect(&echo.upstream()).http2().await;
    let post = Request::post("http://b/").body(Full::from("x")).unwrap();
    assert_eq!(sender.send_request(post).await.unwrap().status(), 403);
    assert_eq!(sender.send_request(get("http://b/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn drain_lets_requests_under_way_finish() {
    let (release, mut held) = tokio::sync::mpsc::channel::<()>(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, mut arrivals) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 1000];
        let _ = stream.read(&mut bytes).await.unwrap();
        arrived.send(()).await.unwrap();
        held.recv().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
    });
    let site = Site::new("", ALLOW_ALL);
    let sender = site.connect(&upstream(address, Speaks::Http1)).http2().await;
    let mut one = sender.clone();
    let under_way = tokio::spawn(async move { one.send_request(get("http://b/")).await.unwrap() });
    arrivals.recv().await.unwrap();
    site.shared.drain.cancel();
    let mut another = sender.clone();
    while !another.is_closed() && another.send_request(get("http://b/late")).await.is_ok() {}
    release.send(()).await.unwrap();
    assert_eq!(under_way.await.unwrap().status(), 200);
}
