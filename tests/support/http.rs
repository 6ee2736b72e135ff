//! Plain HTTP/1.1, one request per connection, over TCP or a unix socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// 200.
pub const OK: StatusCode = StatusCode::OK;
/// A request that is not answered by then failed.
const DEADLINE: Duration = Duration::from_secs(15);

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, as text.
    pub body: String,
}

impl Answer {
    /// A header's value, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// `GET path` at `address` (`host:port`).
///
/// # Errors
/// What went wrong, as a sentence.
pub async fn get(address: &str, path: &str) -> Result<Answer, String> {
    let dial = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| format!("connect {address}: {e}"))?;
        exchange(stream, Method::GET, path, String::new()).await
    };
    in_time(dial).await
}

/// `GET path` at `address` (`host:port`), with a token.
///
/// # Errors
/// What went wrong, as a sentence.
pub async fn get_with_token(address: &str, path: &str, token: &str) -> Result<Answer, String> {
    let dial = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| format!("connect {address}: {e}"))?;
        let bearer = ("authorization", format!("Bearer {token}"));
        sent(stream, (Method::GET, path), Some(bearer), String::new()).await
    };
    in_time(dial).await
}

/// A request over a unix socket.
///
/// # Errors
/// What went wrong, as a sentence.
pub async fn unix(socket: &Path, method: Method, path: &str, body: String) -> Result<Answer, String> {
    let dial = async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| format!("connect {}: {e}", socket.display()))?;
        exchange(stream, method, path, body).await
    };
    in_time(dial).await
}

async fn in_time(exchange: impl Future<Output = Result<Answer, String>>) -> Result<Answer, String> {
    tokio::time::timeout(DEADLINE, exchange)
        .await
        .unwrap_or_else(|_| Err("no answer in time".into()))
}

/// One request over any stream.
///
/// # Errors
/// What went wrong, as a sentence.
pub async fn exchange<S>(stream: S, method: Method, path: &str, body: String) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    sent(stream, (method, path), None, body).await
}

async fn sent<S>(
    stream: S,
    (method, path): (Method, &str),
    header: Option<(&str, String)>,
    body: String,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("connection", "close");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    connection.abort();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
