//! Which of our listeners a destination means.

use std::net::SocketAddr;

use crate::accept::{Bound, OwnAddresses};
use crate::config::{Config, Protocol};
use crate::connection::Direction;
use crate::inbound::Port;

/// The port that is reached at `destination`: through a listener of its own, or through redirection. Redirected traffic
/// is for an address of this host and for a port that is not ours to be redirected to, as for real connections: whoever
/// asks makes us dial nobody else.
pub(super) fn at(config: &Config, bound: &[Bound], destination: SocketAddr) -> Option<Port> {
    let inbound = |captures: bool| {
        bound
            .iter()
            .filter(move |one| one.direction == Direction::Inbound && one.captures == captures)
    };
    // They were bound in the order in which they are written.
    let mut listeners = config.inbound.iter().zip(inbound(false));
    if let Some((listener, _)) = listeners.find(|(_, bound)| means(bound.address, destination)) {
        return Some(Port::from(listener));
    }
    inbound(true).next()?;
    let mut capturing = bound.iter().filter(|one| one.captures);
    if capturing.any(|one| one.address.port() == destination.port()) {
        return None;
    }
    // Addresses that cannot be read are nobody's.
    let own = OwnAddresses::default().holds(destination.ip().to_canonical());
    let capture = config.capture.as_ref().filter(|_| own.unwrap_or(false))?;
    Some(Port::redirected(capture, destination))
}

fn means(listens: SocketAddr, destination: SocketAddr) -> bool {
    let (listens_ip, ip) = (listens.ip().to_canonical(), destination.ip().to_canonical());
    listens.port() == destination.port() && (listens_ip.is_unspecified() || listens_ip == ip)
}

/// `http` or `tcp`.
pub(super) fn word(port: &Port) -> &'static str {
    match port.protocol {
        Protocol::Http(_) => "http",
        Protocol::Tcp => "tcp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(direction: Direction, captures: bool, address: &str) -> Bound {
        Bound {
            direction,
            captures,
            address: address.parse().unwrap(),
            upstream: None,
        }
    }

    fn upstream(config: &Config, bound: &[Bound], destination: &str) -> Option<String> {
        let port = at(config, bound, destination.parse().unwrap())?;
        Some(port.upstream.to_string())
    }

    #[test]
    fn redirected_traffic_is_for_this_host_and_no_port_that_takes_it() {
        let text = r#"
            policies: {directory: /p, namespace: shop}
            inbound: [{listen: "127.0.0.1:9000", upstream: "127.0.0.1:9001"}]
            capture: {inbound: "0.0.0.0:15006", outbound: "0.0.0.0:15001"}
        "#;
        let config = Config::from_text(text).unwrap();
        let (inbound, outbound) = (Direction::Inbound, Direction::Outbound);
        let all = [
            bound(inbound, false, "127.0.0.1:9000"),
            bound(inbound, true, "0.0.0.0:15006"),
            bound(outbound, true, "0.0.0.0:15001"),
        ];
        for (destination, expected) in [
            ("127.0.0.1:9000", Some("127.0.0.1:9001")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::ffff:127.0.0.1]:8080", Some("[::ffff:127.0.0.1]:8080")),
            ("127.0.0.1:15006", None),
            ("127.0.0.1:15001", None),
            ("192.0.2.7:8080", None),
            ("[2001:db8::7]:8080", None),
            // Whoever dials these reaches this host, but nobody is redirected from them.
            ("0.0.0.0:8080", None),
            ("[::]:8080", None),
            ("[::ffff:0.0.0.0]:8080", None),
        ] {
            let found = upstream(&config, &all, destination);
            assert_eq!(found.as_deref(), expected, "{destination}");
        }
        let outwards = [all[0].clone(), all[2].clone()];
        assert_eq!(upstream(&config, &outwards, "127.0.0.1:8080"), None);
    }

    #[test]
    fn a_listener_on_every_address_is_meant_by_each() {
        for (listens, destination, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "10.0.0.1:80", true),
            ("[::]:80", "10.0.0.1:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "10.0.0.1:80", false),
            ("0.0.0.0:80", "10.0.0.1:81", false),
        ] {
            let found = means(listens.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(found, expected, "{listens} {destination}");
        }
    }
}
