//! Web servers that answer as a test wants, and a client that asks them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Headers of every answer of the application.
const ANSWERED: [&str; 5] = ["x-r-plain", "x-r-set", "x-r-add", "x-r-absent", "x-r-over"];

/// An answer: status, headers, body.
pub(in super::super) struct Said {
    pub(in super::super) status: StatusCode,
    pub(in super::super) headers: http::HeaderMap,
    pub(in super::super) body: String,
}

/// A request over a connection of its own.
pub(in super::super) async fn ask(address: &str, path: &str, headers: &[(&str, &str)]) -> Said {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header("host", "backend.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender
        .send_request(request.body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Said {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// A web server that answers by a function of the request's path and headers; ends when dropped.
pub(in super::super) struct Web {
    pub(in super::super) address: String,
    task: JoinHandle<()>,
}

impl Web {
    pub(in super::super) async fn start(
        answer: impl Fn(&Request<hyper::body::Incoming>) -> String + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let body = answer(&request);
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    for name in ANSWERED {
                        response
                            .headers_mut()
                            .insert(name, http::HeaderValue::from_static("app"));
                    }
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, task }
    }

    /// One that says what it was sent.
    pub(in super::super) async fn mirror() -> Self {
        Self::start(|request| {
            let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in request.headers() {
                let values = headers.entry(name.to_string()).or_default();
                values.push(value.to_str().unwrap().to_owned());
            }
            json!({"target": request.uri().to_string(), "headers": headers}).to_string()
        })
        .await
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}
