//! One bounded GET of a document under a URL that somebody else chose: addresses checked after resolution,
//! redirects on the same host only, one deadline, one size.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

mod url;

pub use url::{UrlFault, WebUrl};

/// Redirects followed; none is remembered.
const MAX_REDIRECTS: usize = 5;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The CAs that this machine believes, for servers on the web. A machine without them verifies no server; that is
/// logged here, and each fetch says so.
#[must_use]
pub fn machine_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!(
            "this machine has no CA certificates, so no https server can be verified: name some by ca_file"
        );
    }
    roots
}

/// Whether an address may be dialled.
pub type Permit = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// How documents are fetched.
#[derive(Clone)]
pub struct Fetcher {
    /// For `https`; with `http/1.1` as its protocol, or none.
    pub tls: Arc<ClientConfig>,
    /// Asked about every address that a name resolved to.
    pub permit: Permit,
    /// Largest body.
    pub max_body: usize,
    /// Which redirects are followed.
    pub redirects: Redirects,
    /// How we call ourselves.
    pub user_agent: &'static str,
}

/// Which redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// Those on the same host, never from TLS to none.
    SameHost,
    /// Those to any host that proves itself by TLS.
    AnyWithTls,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The address is no URL to fetch from.
    #[error("the address {0}")]
    Url(UrlFault),
    /// The name does not resolve.
    #[error("{host} cannot be resolved: {fault}")]
    Resolve {
        /// The name.
        host: String,
        /// What the system says.
        fault: io::Error,
    },
    /// It resolves to addresses that may not be dialled, and to no other.
    #[error("{host} is at {address}, which may not be dialled")]
    Forbidden {
        /// The name.
        host: String,
        /// Its first address.
        address: IpAddr,
    },
    /// Nobody answers there.
    #[error("{host} cannot be reached: {fault}")]
    Unreachable {
        /// The name.
        host: String,
        /// What the system says.
        fault: io::Error,
    },
    /// It does not prove to have that name, or speaks no TLS.
    #[error("tls handshake with {host}: {fault}")]
    Tls {
        /// The name.
        host: String,
        /// What rustls says.
        fault: io::Error,
    },
    /// It speaks no HTTP.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// It answers with something else than a document.
    #[error("the server answers with status {0}")]
    Status(StatusCode),
    /// It leads where we do not follow.
    #[error("the server redirects to something that {0}")]
    Redirect(UrlFault),
    /// It leads on and on.
    #[error("the server redirects more than {MAX_REDIRECTS} times")]
    Redirects,
    /// A redirect without a target.
    #[error("the server redirects without saying where to")]
    NoLocation,
    /// The body is too large, or was cut off.
    #[error("the body cannot be read, or has more than {0} bytes")]
    Body(usize),
    /// It takes too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
}

impl FetchError {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Resolve { .. } => "resolve",
            Self::Forbidden { .. } => "forbidden_address",
            Self::Unreachable { .. } => "unreachable",
            Self::Tls { .. } => "tls",
            Self::Http(_) => "http",
            Self::Status(_) => "status",
            Self::Redirect(_) | Self::Redirects | Self::NoLocation => "redirect",
            Self::Body(_) => "body",
            Self::Deadline(_) => "deadline",
        }
    }
}

enum Answer {
    Body(Bytes),
    Redirect(String),
}

impl Fetcher {
    /// The body that `url` answers with, within `patience` from the name's resolution to the last byte.
    ///
    /// # Errors
    /// A [`FetchError`].
    pub async fn get(&self, url: &str, patience: Duration) -> Result<Bytes, FetchError> {
        let first: WebUrl = url.parse().map_err(FetchError::Url)?;
        let followed = async {
            let mut url = first;
            for _ in 0..=MAX_REDIRECTS {
                match self.get_once(&url).await? {
                    Answer::Body(body) => return Ok(body),
                    Answer::Redirect(to) => {
                        let followed = match self.redirects {
                            Redirects::SameHost => url.redirected(&to),
                            Redirects::AnyWithTls => url.joined(&to).and_then(WebUrl::with_tls),
                        };
                        url = followed.map_err(FetchError::Redirect)?;
                        tracing::debug!(%url, "redirected");
                    }
                }
            }
            Err(FetchError::Redirects)
        };
        tokio::time::timeout(patience, followed)
            .await
            .unwrap_or(Err(FetchError::Deadline(patience)))
    }

    async fn get_once(&self, url: &WebUrl) -> Result<Answer, FetchError> {
        let tcp = self.dial(url).await?;
        if !url.is_https() {
            return self.exchange(url, tcp).await;
        }
        let host = url.host().to_owned();
        let tls = |fault| FetchError::Tls {
            host: host.clone(),
            fault,
        };
        let name = ServerName::try_from(host.clone()).map_err(|_| {
            tls(io::Error::other(
                "the name is neither a DNS name nor an IP address",
            ))
        })?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, tcp).await.map_err(tls)?;
        self.exchange(url, stream).await
    }

    /// A connection to one of the name's addresses that may be dialled. What is dialled is what was checked.
    async fn dial(&self, url: &WebUrl) -> Result<TcpStream, FetchError> {
        let host = url.host().to_owned();
        let found = tokio::net::lookup_host((url.host(), url.port())).await;
        let found: Vec<SocketAddr> = match found {
            Ok(found) => found.collect(),
            Err(fault) => return Err(FetchError::Resolve { host, fault }),
        };
        let permitted = found.iter().filter(|address| (self.permit)(address.ip()));
        let mut fault = None;
        for address in permitted.take(MAX_ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => fault = Some(error),
            }
        }
        Err(match (fault, found.first()) {
            (Some(fault), _) => FetchError::Unreachable { host, fault },
            (None, Some(first)) => FetchError::Forbidden {
                host,
                address: first.ip(),
            },
            (None, None) => FetchError::Resolve {
                host,
                fault: io::Error::other("the name has no address"),
            },
        })
    }

    async fn exchange<S>(&self, url: &WebUrl, stream: S) -> Result<Answer, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut http = hyper::client::conn::http1::Builder::new();
        let (mut sender, connection) = http
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let request = Request::get(url.path())
            .header(header::HOST, url.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, self.user_agent)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|_| FetchError::Url(UrlFault::Malformed))?;
        let mut exchange = std::pin::pin!(async { self.read(sender.send_request(request).await?).await });
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            answer = &mut exchange => return answer,
            ended = &mut connection => ended?,
        }
        // The connection is over; what came through it is still to be read.
        exchange.await
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, FetchError> {
        let status = response.status();
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
        let body = Limited::new(response.into_body(), self.max_body).collect().await;
        let body = body.map_err(|_| FetchError::Body(self.max_body))?;
        Ok(Answer::Body(body.to_bytes()))
    }
}

#[cfg(test)]
mod tests;
