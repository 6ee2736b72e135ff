//! Where a proxy's admin page is: a host of loopback, and a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// `127.0.0.1:15000`, `[::1]:15000` or `localhost:15000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAddress {
    host: Host,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Localhost,
    Address(IpAddr),
}

/// Why a text is no address of an admin page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmin {
    /// Not of the form.
    #[error("write HOST:PORT, as in 127.0.0.1:15000")]
    Form,
    /// Somewhere else than here.
    #[error(
        "{0} is not loopback, and a proxy's admin page is on loopback only; run this where the proxy runs \
(`kubectl exec POD -c signet-proxy -- signet …`), or bring the page here (`kubectl port-forward POD 15000`) and ask \
127.0.0.1:15000"
    )]
    Elsewhere(String),
}

impl FromStr for AdminAddress {
    type Err = NotAdmin;

    fn from_str(text: &str) -> Result<Self, NotAdmin> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAdmin::Form)?;
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err(NotAdmin::Form),
            Ok(port) => port,
        };
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(NotAdmin::Form)?,
            None if host.is_empty() || host.contains([':', '/']) => return Err(NotAdmin::Form),
            None => host,
        };
        let host = match bare.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => Host::Address(address),
            Err(_) if bare.eq_ignore_ascii_case("localhost") => Host::Localhost,
            _ => return Err(NotAdmin::Elsewhere(bare.to_owned())),
        };
        Ok(Self { host, port })
    }
}

impl AdminAddress {
    /// Where to dial, in this order. `localhost` is not looked up: it is loopback by definition.
    #[must_use]
    pub fn candidates(&self) -> Vec<SocketAddr> {
        let hosts = match self.host {
            Host::Address(address) => vec![address],
            Host::Localhost => vec![
                IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            ],
        };
        hosts
            .into_iter()
            .map(|host| SocketAddr::new(host, self.port))
            .collect()
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Localhost => write!(f, "localhost:{}", self.port),
            Host::Address(address) => SocketAddr::new(address, self.port).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_loopback_are_read_and_printed_alike() {
        for text in ["127.0.0.1:15000", "127.9.9.9:1", "[::1]:15000", "localhost:15000"] {
            let address: AdminAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert!(address.candidates().iter().all(|one| one.ip().is_loopback()));
        }
        assert_eq!(
            "LocalHost:1".parse::<AdminAddress>().unwrap().candidates().len(),
            2
        );
    }

    #[test]
    fn other_hosts_are_refused_with_the_way_to_them() {
        for (text, host) in [
            ("10.0.0.1:15000", "10.0.0.1"),
            ("0.0.0.0:15000", "0.0.0.0"),
            ("[::]:15000", "::"),
            ("cart.shop:15000", "cart.shop"),
            ("localhost.evil.example:15000", "localhost.evil.example"),
        ] {
            let refused = text.parse::<AdminAddress>().unwrap_err();
            assert_eq!(refused, NotAdmin::Elsewhere(host.into()), "{text}");
            assert!(refused.to_string().contains("kubectl port-forward"));
        }
        for text in [
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:99999",
            ":15000",
            "::1:15000",
            "[::1:15000",
            "",
            "http://127.0.0.1:15000",
        ] {
            assert_eq!(text.parse::<AdminAddress>(), Err(NotAdmin::Form), "{text}");
        }
    }
}
