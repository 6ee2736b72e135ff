//! One GET of a bundle endpoint: TLS by the configured profile, bounded redirects with the same checks,
//! a bounded body, one deadline for all of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use signet_certs::tls::refusal;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::{EndpointFault, EndpointUrl};

/// Largest bundle fetched, in bytes. All of them together fit into one message to an agent.
pub const MAX_BODY_BYTES: usize = 96 * 1024;
/// Everything from the name's resolution to the last byte, redirects included.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Redirects followed; none is remembered.
const MAX_REDIRECTS: usize = 5;

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The endpoint cannot be reached.
    #[error("{host} cannot be reached: {fault}")]
    Unreachable {
        /// Its host.
        host: String,
        /// What the system says.
        fault: std::io::Error,
    },
    /// It does not prove to be who it must be, or speaks no TLS.
    #[error("{host} does not prove to be the configured endpoint: {fault}")]
    Tls {
        /// Its host.
        host: String,
        /// What our verifier or rustls says.
        fault: String,
    },
    /// The host of a URL is no name that TLS can check.
    #[error("{0:?} is no host name")]
    Host(String),
    /// It speaks no HTTP.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// It answers with something else than a bundle.
    #[error("the endpoint answers with status {0}")]
    Status(StatusCode),
    /// It leads somewhere that is no endpoint.
    #[error("the endpoint redirects to something that {0}")]
    Redirect(EndpointFault),
    /// It leads on and on.
    #[error("the endpoint redirects more than {MAX_REDIRECTS} times")]
    Redirects,
    /// A redirect without a target.
    #[error("the endpoint redirects without saying where to")]
    NoLocation,
    /// A body that is too large, or was cut off.
    #[error("the body cannot be read, or has more than {MAX_BODY_BYTES} bytes")]
    Body,
    /// It takes too long.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
}

/// The body that `url` answers with.
///
/// # Errors
/// A [`FetchError`].
pub async fn fetch(url: &EndpointUrl, tls: Arc<ClientConfig>) -> Result<Bytes, FetchError> {
    let followed = async {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            match get(&url, Arc::clone(&tls)).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Redirect(location) => {
                    url = url.redirected(&location).map_err(FetchError::Redirect)?;
                    tracing::debug!(%url, "bundle endpoint redirects");
                }
            }
        }
        Err(FetchError::Redirects)
    };
    tokio::time::timeout(DEADLINE, followed)
        .await
        .unwrap_or(Err(FetchError::Deadline))
}

enum Answer {
    Body(Bytes),
    Redirect(String),
}

async fn get(url: &EndpointUrl, tls: Arc<ClientConfig>) -> Result<Answer, FetchError> {
    let stream = dial(url, tls).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(url.path())
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json")
        .header(
            header::USER_AGENT,
            concat!("signet-ca/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Host(url.authority().to_owned()))?;
    let mut exchange = std::pin::pin!(async { read(sender.send_request(request).await?).await });
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut exchange => return answer,
        ended = &mut connection => ended?,
    }
    // The connection is over; what came through it is still to be read.
    exchange.await
}

async fn dial(url: &EndpointUrl, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, FetchError> {
    let host = url.host().to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_| FetchError::Host(host.clone()))?;
    let stream = TcpStream::connect((url.host(), url.port()))
        .await
        .map_err(|fault| FetchError::Unreachable {
            host: host.clone(),
            fault,
        })?;
    TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .map_err(|error| FetchError::Tls {
            host,
            fault: spoken(&error),
        })
}

/// Our verifier's own words, where it was the one that refused.
fn spoken(error: &std::io::Error) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls.and_then(refusal) {
        Some(reason) => reason.to_string(),
        None => error.to_string(),
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, FetchError> {
    let status = response.status();
    // All of them are treated as temporary (SPIFFE Federation §5.2.1.4).
    if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok());
        return location
            .map(|location| Answer::Redirect(location.to_owned()))
            .ok_or(FetchError::NoLocation);
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(status));
    }
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    Ok(Answer::Body(body.map_err(|_| FetchError::Body)?.to_bytes()))
}

#[cfg(test)]
mod tests;
