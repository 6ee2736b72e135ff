//! Asking the application once, as kubelet would.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderValue, TE, USER_AGENT};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use super::config::{Asked, HttpProbe, ProbeCheck};

/// What the application sees as the client.
const AGENT: HeaderValue = HeaderValue::from_static("signet-proxy probe");
/// The answer of a health check has two bytes.
const MAX_ANSWER: usize = 1024;
/// Largest head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// The one method of gRPC's health checking protocol that kubelet asks.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// `SERVING` of that protocol.
const SERVING: i32 = 1;

/// What the application answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes.
    Good,
    /// Another status than 200 to 399.
    Status(u16),
    /// It is not serving, as far as it knows.
    NotServing(i32),
    /// gRPC's status, in place of an answer.
    Rpc(String),
    /// It takes no connections.
    Unreachable(io::ErrorKind),
    /// No answer in time.
    Slow,
    /// It broke off, or speaks something else.
    Broken,
}

impl Answer {
    /// A word for metrics and logs.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Status(_) => "status",
            Self::NotServing(_) => "not_serving",
            Self::Rpc(_) => "rpc_status",
            Self::Unreachable(_) => "unreachable",
            Self::Slow => "timeout",
            Self::Broken => "broken",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("the application answered well"),
            Self::Status(status) => write!(f, "the application answered {status}"),
            Self::NotServing(status) => write!(f, "the application says it is not serving ({status})"),
            Self::Rpc(code) => write!(f, "the application answered with gRPC status {code}"),
            Self::Unreachable(kind) => write!(f, "the application takes no connection: {kind}"),
            Self::Slow => f.write_str("the application did not answer in time"),
            Self::Broken => f.write_str("the application broke off, or speaks another protocol"),
        }
    }
}

/// Asks at `own`, an address of this pod.
pub(super) async fn ask(check: ProbeCheck, own: IpAddr) -> Answer {
    let address = SocketAddr::new(own, check.port);
    let asked = async {
        let tcp = TcpStream::connect(address).await;
        let tcp = tcp.map_err(|e| Answer::Unreachable(e.kind()))?;
        match &check.asked {
            Asked::Tcp => Ok(()),
            Asked::Http(probe) => http(tcp, address, probe).await,
            Asked::Grpc(service) => grpc(tcp, address, service).await,
        }
    };
    match tokio::time::timeout(check.timeout, asked).await {
        Ok(Ok(())) => Answer::Good,
        Ok(Err(answer)) => answer,
        Err(_) => Answer::Slow,
    }
}

fn broken<E>(_: E) -> Answer {
    Answer::Broken
}

async fn http(tcp: TcpStream, address: SocketAddr, probe: &HttpProbe) -> Result<(), Answer> {
    let host = HeaderValue::from_str(&address.to_string()).map_err(broken)?;
    let request = Request::get(probe.path.as_str())
        .header(HOST, probe.host.clone().unwrap_or(host))
        .header(USER_AGENT, AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(broken)?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(tcp))
        .await
        .map_err(broken)?;
    // Both in this task: nothing is left behind when the time is up, and the body is never read.
    let mut answered = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answered => response,
        // It may have ended after its answer.
        _ = connection => answered.await,
    };
    let status = response.map_err(broken)?.status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(Answer::Status(status.as_u16()))
    }
}

/// `HealthCheckRequest` of the protocol.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `HealthCheckResponse` of the protocol.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn grpc(tcp: TcpStream, address: SocketAddr, service: &str) -> Result<(), Answer> {
    let question = HealthCheckRequest {
        service: service.to_owned(),
    };
    let request = Request::post(format!("http://{address}{HEALTH}"))
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
        .header(USER_AGENT, AGENT)
        .body(Full::new(framed(&question)))
        .map_err(broken)?;
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(tcp))
        .await
        .map_err(broken)?;
    let mut judged = pin!(async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        judge(response).await
    });
    tokio::select! {
        biased;
        judged = &mut judged => judged,
        _ = connection => judged.await,
    }
}

/// A message as gRPC sends it: not compressed, its length, itself.
fn framed(message: &impl Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(5 + encoded.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    frame.put_slice(&encoded);
    frame.freeze()
}

async fn judge(response: Response<Incoming>) -> Result<(), Answer> {
    if response.status() != StatusCode::OK {
        return Err(Answer::Status(response.status().as_u16()));
    }
    let early = rpc_status(response.headers());
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(broken)?;
    let late = body.trailers().and_then(rpc_status);
    match early.or(late).as_deref() {
        Some("0") => {}
        Some(code) => return Err(Answer::Rpc(code.chars().take(3).collect())),
        None => return Err(Answer::Broken),
    }
    let bytes = body.to_bytes();
    let (head, message) = bytes.split_at_checked(5).ok_or(Answer::Broken)?;
    let length = u32::try_from(message.len()).map_err(broken)?.to_be_bytes();
    if head != [&[0][..], &length].concat() {
        return Err(Answer::Broken);
    }
    let status = HealthCheckResponse::decode(message).map_err(broken)?.status;
    if status == SERVING {
        Ok(())
    } else {
        Err(Answer::NotServing(status))
    }
}

fn rpc_status(headers: &http::HeaderMap) -> Option<String> {
    let status = headers.get("grpc-status")?;
    Some(status.to_str().unwrap_or("?").to_owned())
}
