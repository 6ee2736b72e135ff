//! gRPC channels over connections we make ourselves: TCP with a rustls configuration of the caller's, or
//! a unix socket. tonic's own dialler takes neither our clock nor our verifiers.
//!
//! A channel connects when it is first used and again after a connection is lost. What went wrong with
//! a dial is found in the status by [`dial_error`].

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// How patient a channel is. Deadlines of calls are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a whole dial: name, TCP and TLS.
    pub connect: Duration,
    /// Between HTTP/2 pings, idle or not.
    pub ping_interval: Duration,
    /// For the answer to a ping, before the connection counts as lost.
    pub ping_answer: Duration,
}

impl Default for Timeouts {
    /// What Istio's clients use, and its servers allow.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            ping_interval: Duration::from_secs(30),
            ping_answer: Duration::from_secs(10),
        }
    }
}

/// An address or name that cannot be dialled, whoever listens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not `host:port`.
    #[error("address {0:?} is not host:port, as in \"ca.example.svc:15012\"")]
    Address(String),
    /// Neither a DNS name nor an IP address.
    #[error("server name {0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
}

/// Why a dial failed. All of these can pass by themselves but [`DialError::NotHttp2`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No connection.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Host and port, or the socket's path.
        address: String,
        /// The system's word.
        source: io::Error,
    },
    /// Connected, but the handshake failed. [`DialError::tls`] is rustls' own reason.
    #[error("tls handshake with {address} as {server_name}: {source}")]
    Handshake {
        /// Host and port.
        address: String,
        /// The name the server had to prove.
        server_name: String,
        /// What rustls said, inside.
        source: io::Error,
    },
    /// Neither connected nor refused in time.
    #[error("dial of {address} took longer than {} ms", after.as_millis())]
    Slow {
        /// Host and port, or the socket's path.
        address: String,
        /// The patience that was spent.
        after: Duration,
    },
    /// The other side speaks TLS, but not HTTP/2.
    #[error("{address} does not offer http/2 (alpn h2), so it is no grpc server")]
    NotHttp2 {
        /// Host and port.
        address: String,
    },
}

impl DialError {
    /// rustls' reason, if the handshake failed for one.
    #[must_use]
    pub fn tls(&self) -> Option<&rustls::Error> {
        match self {
            Self::Handshake { source, .. } => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

/// A channel to `address` (`host:port`) over TLS as `config` says; the server must prove `server_name`.
/// Nothing is dialled yet. Needs a tokio runtime.
///
/// # Errors
/// An [`AddressError`].
pub fn channel(
    address: &str,
    config: Arc<ClientConfig>,
    server_name: &str,
    timeouts: Timeouts,
) -> Result<Channel, AddressError> {
    let endpoint = Endpoint::from_shared(format!("https://{}", checked(address)?))
        .map_err(|_| AddressError::Address(address.to_owned()))?;
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|_| AddressError::ServerName(server_name.to_owned()))?;
    let address = Arc::<str>::from(address);
    let connector = tower::service_fn(move |_: Uri| {
        let (address, config, name) = (Arc::clone(&address), Arc::clone(&config), name.clone());
        async move {
            in_time(&address, timeouts.connect, tls(&address, config, name))
                .await
                .map(TokioIo::new)
        }
    });
    Ok(patient(endpoint, timeouts).connect_with_connector_lazy(connector))
}

/// A channel to `address` (`host:port`) without TLS. Nothing is dialled yet. Needs a tokio runtime.
///
/// # Errors
/// An [`AddressError`].
pub fn plaintext_channel(address: &str, timeouts: Timeouts) -> Result<Channel, AddressError> {
    let endpoint = Endpoint::from_shared(format!("http://{}", checked(address)?))
        .map_err(|_| AddressError::Address(address.to_owned()))?;
    let address = Arc::<str>::from(address);
    let connector = tower::service_fn(move |_: Uri| {
        let address = Arc::clone(&address);
        async move {
            in_time(&address, timeouts.connect, tcp(&address))
                .await
                .map(TokioIo::new)
        }
    });
    Ok(patient(endpoint, timeouts).connect_with_connector_lazy(connector))
}

/// A channel to the unix socket at `path`. Nothing is dialled yet.
#[must_use]
pub fn unix_channel(path: PathBuf, timeouts: Timeouts) -> Channel {
    let path = Arc::new(path);
    let connector = tower::service_fn(move |_: Uri| {
        let path = Arc::clone(&path);
        async move {
            let address = path.display().to_string();
            let connect = async {
                let refused = |source| DialError::Connect {
                    address: address.clone(),
                    source,
                };
                UnixStream::connect(path.as_path()).await.map_err(refused)
            };
            in_time(&address, timeouts.connect, connect)
                .await
                .map(TokioIo::new)
        }
    });
    // The authority of a socket has no meaning; gRPC's own clients send this one.
    patient(Endpoint::from_static("http://localhost"), timeouts).connect_with_connector_lazy(connector)
}

/// What went wrong with the dial, if that is why a call has this status.
#[must_use]
pub fn dial_error(status: &tonic::Status) -> Option<&DialError> {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// `host:port` and nothing else.
fn checked(address: &str) -> Result<&str, AddressError> {
    let parts = address.rsplit_once(':');
    let sound = parts.is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', '@', '?', '#']) && port.parse::<u16>().is_ok()
    });
    if sound {
        Ok(address)
    } else {
        Err(AddressError::Address(address.to_owned()))
    }
}

fn patient(endpoint: Endpoint, timeouts: Timeouts) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(timeouts.ping_interval)
        .keep_alive_timeout(timeouts.ping_answer)
        .keep_alive_while_idle(true)
}

async fn in_time<T>(
    address: &str,
    patience: Duration,
    dial: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    match tokio::time::timeout(patience, dial).await {
        Ok(done) => done,
        Err(_) => Err(DialError::Slow {
            address: address.to_owned(),
            after: patience,
        }),
    }
}

async fn tcp(address: &str) -> Result<TcpStream, DialError> {
    let refused = |source| DialError::Connect {
        address: address.to_owned(),
        source,
    };
    let tcp = TcpStream::connect(address).await.map_err(refused)?;
    tcp.set_nodelay(true).map_err(refused)?;
    Ok(tcp)
}

async fn tls(
    address: &str,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<TlsStream<TcpStream>, DialError> {
    let tcp = tcp(address).await?;
    let wants_http2 = !config.alpn_protocols.is_empty();
    let server_name = name.to_str().into_owned();
    let stream = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|source| DialError::Handshake {
            address: address.to_owned(),
            server_name,
            source,
        })?;
    if wants_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(DialError::NotHttp2 {
            address: address.to_owned(),
        });
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::RootCertStore;
    use tonic::Code;
    use tonic::client::Grpc;

    fn config() -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// The status of any call over this channel.
    async fn call(channel: Channel) -> tonic::Status {
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/a.B/C");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        grpc.unary(tonic::Request::new(()), path, codec)
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn addresses_that_can_never_be_dialled_are_refused_at_once() {
        for wrong in [
            "",
            "host",
            ":1",
            "host:",
            "host:70000",
            "ho st:1",
            "https://host:1",
        ] {
            let refused = channel(wrong, config(), "host", Timeouts::default()).unwrap_err();
            assert_eq!(refused, AddressError::Address(wrong.into()));
        }
        let refused = channel("host:1", config(), "no name", Timeouts::default()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "server name \"no name\" is neither a DNS name nor an IP address"
        );
    }

    #[tokio::test]
    async fn a_refused_connection_is_found_in_the_status() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let status = call(channel(&free.to_string(), config(), "ca", Timeouts::default()).unwrap()).await;
        assert_eq!(status.code(), Code::Unavailable);
        let text = dial_error(&status).unwrap().to_string();
        assert!(
            text.starts_with(&format!("connect to {free}: Connection refused")),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_fails_the_handshake() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
            stream
        });
        let status = call(channel(&address.to_string(), config(), "ca", Timeouts::default()).unwrap()).await;
        let error = dial_error(&status).unwrap();
        assert!(
            matches!(error.tls(), Some(rustls::Error::InvalidMessage(_))),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .starts_with(&format!("tls handshake with {address} as ca: ")),
            "{error}"
        );
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let timeouts = Timeouts {
            connect: Duration::from_millis(50),
            ..Timeouts::default()
        };
        let status = call(channel(&address, config(), "ca", timeouts).unwrap()).await;
        let text = dial_error(&status).unwrap().to_string();
        assert_eq!(text, format!("dial of {address} took longer than 50 ms"));
    }

    #[tokio::test]
    async fn a_socket_nobody_serves_is_named_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.sock");
        let status = call(unix_channel(path.clone(), Timeouts::default())).await;
        let text = dial_error(&status).unwrap().to_string();
        assert!(
            text.starts_with(&format!("connect to {}: No such file", path.display())),
            "{text}"
        );
    }
}
