//! Connections to upstreams: dialled, met by mutual TLS or as they come, refused with a reason.

mod dial;
pub mod listener;

use std::net::SocketAddr;
use std::sync::Arc;

use signet_certs::SpiffeId;

use crate::config::Speaks;
pub(crate) use dial::ALPN;
pub use dial::{DialFailure, Dialed, Dialer, dial};
pub use listener::Way;

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket address.
    Socket(SocketAddr),
    /// A name, looked up at each dial, and a port.
    Name(Arc<str>, u16),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err("port 0 cannot be dialled".into())
            } else {
                Ok(Self::Socket(address))
            };
        }
        let wrong = || "is not host:port, as in backend.shop.svc:8080".to_owned();
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if name.is_empty() || name.len() > 253 || !name.chars().all(fits) || port == 0 {
            return Err(wrong());
        }
        Ok(Self::Name(name.into(), port))
    }
}

/// An upstream, and how it is met.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Where it is.
    pub address: Address,
    /// The identities of which it must prove one, by mutual TLS; nothing for plaintext.
    pub expected: Option<Arc<[SpiffeId]>>,
    /// What HTTP it speaks, where HTTP is spoken.
    pub speaks: Speaks,
}
