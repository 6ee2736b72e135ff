//! Dialling one upstream.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use signet_certs::SpiffeId;
use signet_certs::tls::{Terms, mutual_client_config, refusal};
use signet_certs::verify::{Expected, Role, VerifyError};
use signet_runtime::clock::TlsTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Address, Upstream};
use crate::access_log::{Identity, Reason, Upstream as Fault};
use crate::keys::{Keys, Trust};
use crate::shared::Shared;
use crate::stream::{Prefixed, Stream};

/// What our own clients offer. Never Istio's peer exchange, whose bytes we would then have to speak.
pub(crate) const ALPN: &[&[u8]] = &[b"signet", b"istio"];

/// Why an upstream was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialFailure {
    /// Its name leads nowhere.
    #[error("look up {name}: {source}")]
    Resolve {
        /// The name and port.
        name: String,
        /// The resolver's word.
        source: io::Error,
    },
    /// No connection.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Whom.
        address: String,
        /// The system's word.
        source: io::Error,
    },
    /// Neither connected nor refused in time.
    #[error("dial of {address} took longer than {} ms", after.as_millis())]
    Slow {
        /// Whom.
        address: String,
        /// The patience that was spent.
        after: Duration,
    },
    /// We have no SVID to present yet.
    #[error("there is no SVID to meet {address} with yet")]
    NoIdentity {
        /// Whom.
        address: String,
    },
    /// The handshake failed; plaintext is never tried instead.
    #[error("tls handshake with {address}: {source}")]
    Handshake {
        /// Whom.
        address: String,
        /// What rustls said, inside.
        source: io::Error,
    },
    /// It is somebody else, or its certificate is not accepted.
    #[error("{address} is refused: {fault}")]
    Refused {
        /// Whom.
        address: String,
        /// Why; for another identity, with the one expected and the one presented.
        fault: VerifyError,
    },
    /// No TLS configuration can be made.
    #[error("no TLS for {address}: {source}")]
    Unusable {
        /// Whom.
        address: String,
        /// Why.
        source: rustls::Error,
    },
}

impl DialFailure {
    /// For records and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } => Reason::Upstream(Fault::Connect),
            Self::Slow { .. } => Reason::Upstream(Fault::Slow),
            Self::NoIdentity { .. } => Reason::Identity(Identity::NoneOfOurs),
            Self::Handshake { .. } | Self::Unusable { .. } => Reason::Upstream(Fault::Handshake),
            Self::Refused { fault, .. } => Reason::Identity(match fault {
                VerifyError::OtherId { .. } => Identity::UnexpectedUpstream,
                _ => Identity::UpstreamRefused,
            }),
        }
    }
}

/// A connection to an upstream.
#[derive(Debug)]
pub struct Dialed {
    /// The bytes.
    pub stream: Stream,
    /// The address that answered.
    pub address: SocketAddr,
    /// The identity that it proved.
    pub peer: Option<SpiffeId>,
    /// What that rests on.
    pub trust: Option<Arc<Trust>>,
}

/// TLS configurations of upstreams, each made once.
pub struct Dialer {
    keys: Keys,
    time: TlsTime,
    tls12: bool,
    made: Mutex<HashMap<Arc<[SpiffeId]>, Arc<ClientConfig>>>,
}

impl Dialer {
    /// Presents what is in `keys`.
    #[must_use]
    pub fn new(keys: Keys, time: TlsTime, tls12: bool) -> Self {
        let made = Mutex::default();
        Self {
            keys,
            time,
            tls12,
            made,
        }
    }

    /// The configuration that accepts `expected` only. There are as many as the configuration file has lists.
    fn tls(&self, expected: &Arc<[SpiffeId]>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.get(expected) {
            return Ok(Arc::clone(config));
        }
        let keys = Arc::new(self.keys.clone());
        let terms = Terms {
            alpn: ALPN,
            tls12: self.tls12,
            time: Arc::new(self.time.clone()),
        };
        let config = mutual_client_config(keys.clone(), keys, Expected::AnyOf(Arc::clone(expected)), terms)?;
        let config = Arc::new(config);
        made.insert(Arc::clone(expected), Arc::clone(&config));
        Ok(config)
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

/// Connects to an upstream and makes sure who it is, within `limits.connect`.
///
/// # Errors
/// [`DialFailure`].
pub async fn dial(shared: &Shared, upstream: &Upstream) -> Result<Dialed, DialFailure> {
    let patience = shared.config.limits.connect;
    match tokio::time::timeout(patience, reach(shared, upstream)).await {
        Ok(done) => done,
        Err(_) => Err(DialFailure::Slow {
            address: upstream.address.to_string(),
            after: patience,
        }),
    }
}

async fn reach(shared: &Shared, upstream: &Upstream) -> Result<Dialed, DialFailure> {
    let tcp = connect(&upstream.address).await?;
    let refused = |source| DialFailure::Connect {
        address: upstream.address.to_string(),
        source,
    };
    let address = tcp.peer_addr().map_err(refused)?;
    // Every write is a whole message by then; waiting to fill a segment only adds delay.
    tcp.set_nodelay(true).map_err(refused)?;
    let Some(expected) = &upstream.expected else {
        return Ok(Dialed {
            stream: Stream::Plain(Prefixed::new(Vec::new(), tcp)),
            address,
            peer: None,
            trust: None,
        });
    };
    let named = || upstream.address.to_string();
    if shared.keys.usable(shared.clock.now()).is_none() {
        return Err(DialFailure::NoIdentity { address: named() });
    }
    let config = shared
        .dialer
        .tls(expected)
        .map_err(|source| DialFailure::Unusable {
            address: named(),
            source,
        })?;
    let name = ServerName::IpAddress(address.ip().into());
    let tls = TlsConnector::from(config)
        .connect(name, Prefixed::new(Vec::new(), tcp))
        .await;
    let tls = tls.map_err(|source| handshake_failure(named(), source))?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let now = shared.clock.now();
    // The bundles may have changed since the verifier looked.
    let proven = shared.keys.prove(chain, Role::Server, now);
    let proven = proven.map_err(|fault| DialFailure::Refused {
        address: named(),
        fault,
    })?;
    Ok(Dialed {
        stream: Stream::Client(Box::new(tls)),
        address,
        peer: Some(proven.verified().id.clone()),
        trust: Some(shared.keys.follow(proven, now)),
    })
}

fn handshake_failure(address: String, source: io::Error) -> DialFailure {
    let rustls = source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls.and_then(refusal) {
        Some(fault) => DialFailure::Refused {
            address,
            fault: fault.clone(),
        },
        None => DialFailure::Handshake { address, source },
    }
}

async fn connect(address: &Address) -> Result<TcpStream, DialFailure> {
    let refused = |source| DialFailure::Connect {
        address: address.to_string(),
        source,
    };
    match address {
        Address::Socket(socket) => TcpStream::connect(socket).await.map_err(refused),
        Address::Name(name, port) => {
            let found = tokio::net::lookup_host((&**name, *port)).await;
            let found = found.map_err(|source| DialFailure::Resolve {
                name: address.to_string(),
                source,
            })?;
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for socket in found {
                match TcpStream::connect(socket).await {
                    Ok(tcp) => return Ok(tcp),
                    Err(error) => last = error,
                }
            }
            Err(refused(last))
        }
    }
}
