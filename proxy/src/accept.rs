//! Listeners: bound at start, accepted from until the word to drain.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::SockaddrStorage;
use signet_runtime::shutdown::Tasks;
use tokio::net::{TcpListener, TcpStream};

use crate::access_log::{Capture, Reason};
use crate::config::Config;
use crate::connection::Direction;
use crate::inbound::{self, Arrival, Port};
use crate::outbound::{Way, listener};
use crate::shared::Shared;
use crate::stream::reset_on_close;

/// Wait after an accept that failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Connections that the kernel keeps for us to accept.
const BACKLOG: u32 = 4_096;

/// What a listener is for.
#[derive(Clone, Debug)]
enum Purpose {
    Inbound(Port),
    Outbound(Arc<Way>),
    CapturedInbound,
    CapturedOutbound,
}

impl Purpose {
    fn direction(&self) -> Direction {
        match self {
            Self::Inbound(_) | Self::CapturedInbound => Direction::Inbound,
            Self::Outbound(_) | Self::CapturedOutbound => Direction::Outbound,
        }
    }

    fn captures(&self) -> bool {
        matches!(self, Self::CapturedInbound | Self::CapturedOutbound)
    }
}

/// A listener as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Which way.
    pub direction: Direction,
    /// Whether it takes redirected traffic.
    pub captures: bool,
    /// Where it listens, with the port that the system chose.
    pub address: SocketAddr,
    /// Who is dialled; nothing for redirected traffic.
    pub upstream: Option<String>,
}

/// A listener that is bound and not served yet.
pub struct Ready {
    listener: TcpListener,
    purpose: Purpose,
    address: SocketAddr,
    /// The ports of all listeners that take redirected traffic: nobody's destination.
    capturing: Arc<[u16]>,
    own: OwnAddresses,
}

impl Ready {
    /// What operators see.
    #[must_use]
    pub fn bound(&self) -> Bound {
        Bound {
            direction: self.purpose.direction(),
            captures: self.purpose.captures(),
            address: self.address,
            upstream: match &self.purpose {
                Purpose::Inbound(port) => Some(port.upstream.to_string()),
                Purpose::Outbound(way) => Some(way.upstream.address.to_string()),
                Purpose::CapturedInbound | Purpose::CapturedOutbound => None,
            },
        }
    }

    /// Serves it until the word to drain.
    pub fn serve(self, shared: &Arc<Shared>, tasks: &Tasks) {
        let essential = tasks.essential("listener");
        let (shared, connections) = (Arc::clone(shared), tasks.clone());
        tasks.spawn_until_shutdown(async move {
            let _essential = essential;
            loop {
                match self.listener.accept().await {
                    Ok((tcp, source)) => self.arrived(tcp, source, &shared, &connections),
                    Err(error) => {
                        shared.metrics.accept_failures.inc();
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }

    fn arrived(&self, tcp: TcpStream, source: SocketAddr, shared: &Arc<Shared>, tasks: &Tasks) {
        let limits = &shared.config.limits;
        let direction = self.purpose.direction();
        // A socket for both families calls an IPv4 client by a mapped address.
        let address = source.ip().to_canonical();
        let source = SocketAddr::new(address, source.port());
        let place = match shared.connections.admit(direction, address, limits) {
            Ok(place) => place,
            Err(limit) => {
                // Counted, not recorded: a flood must not become a flood of records.
                reset_on_close(&tcp);
                shared.metrics.ended(direction, Reason::Limit(limit));
                return;
            }
        };
        let _ = tcp.set_nodelay(true);
        let arrival = Arrival {
            destination: tcp.local_addr().unwrap_or(self.address),
            tcp,
            source,
            place,
        };
        let shared = Arc::clone(shared);
        match &self.purpose {
            Purpose::Inbound(port) => tasks.spawn(inbound::serve(shared, *port, arrival)),
            Purpose::Outbound(way) => tasks.spawn(listener::serve(shared, Some(Way::clone(way)), arrival)),
            Purpose::CapturedInbound | Purpose::CapturedOutbound => {
                if let Err(error) = self.captured(arrival, Arc::clone(&shared), tasks) {
                    self.not_served(&error, source, &shared);
                }
            }
        }
    }

    fn captured(&self, mut arrival: Arrival, shared: Arc<Shared>, tasks: &Tasks) -> Result<(), NotServed> {
        let meant = self.meant(&arrival.tcp, arrival.source);
        // Whoever came so is refused, not done.
        let destination = meant.inspect_err(|_| reset_on_close(&arrival.tcp))?;
        arrival.destination = destination;
        if let Purpose::CapturedInbound = self.purpose {
            let capture = shared.config.capture.clone().unwrap_or_default();
            let port = Port::redirected(&capture, destination);
            tasks.spawn(inbound::serve(shared, port, arrival));
        } else {
            let way = Way::to(&shared.config, destination);
            tasks.spawn(listener::serve(shared, way, arrival));
        }
        Ok(())
    }

    /// Whoever is in the network can dial these ports: the log is not theirs to fill.
    fn not_served(&self, error: &NotServed, source: SocketAddr, shared: &Shared) {
        let (direction, reason) = (self.purpose.direction(), error.reason());
        shared.metrics.ended(direction, reason);
        if let Some(left_out) = shared.connections.to_be_said(reason.as_str()) {
            tracing::warn!(
                direction = direction.as_str(), reason = reason.as_str(), peer.addr = %source, left_out, %error,
                "connection to a port that takes redirected traffic refused"
            );
        }
    }

    /// Where a redirected connection was going.
    fn meant(&self, tcp: &TcpStream, source: SocketAddr) -> Result<SocketAddr, NotServed> {
        let destination = crate::original::destination(tcp)?;
        // The address of the interface it came by is ours without a look at all of them.
        let came_by = tcp.local_addr()?.ip();
        self.check(source.ip(), destination, came_by)?;
        Ok(destination)
    }

    /// Whether a redirected connection is served. To a listener that takes redirected traffic nothing goes: serving that
    /// would be dialling ourselves, without end.
    fn check(&self, from: IpAddr, destination: SocketAddr, came_by: IpAddr) -> Result<(), NotServed> {
        if self.capturing.contains(&destination.port()) {
            return Err(NotServed::Capturing(destination));
        }
        let (from, to) = (from.to_canonical(), destination.ip().to_canonical());
        match self.purpose.direction() {
            Direction::Outbound if !self.own.holds(from)? => Err(NotServed::ForeignSource(from)),
            // Rules see a packet before the kernel asks whether it may have come from outside.
            Direction::Inbound if to.is_loopback() => Err(NotServed::Loopback(destination)),
            Direction::Inbound if came_by.to_canonical() != to && !self.own.holds(to)? => {
                Err(NotServed::ForeignDestination(to))
            }
            _ => Ok(()),
        }
    }
}

/// Why a connection to a port that takes redirected traffic is refused.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    /// It was not redirected, or is gone.
    #[error(transparent)]
    System(#[from] io::Error),
    /// It would come back to us.
    #[error("{0} takes redirected traffic only, and is nobody's destination")]
    Capturing(SocketAddr),
    /// Somebody else would use the workload's identity.
    #[error("{0} is not of this host, and only the workload itself may use its identity")]
    ForeignSource(IpAddr),
    /// It was brought to another host than it names.
    #[error("{0} is not of this host, and the proxy is a relay to nobody else")]
    ForeignDestination(IpAddr),
    /// A neighbour would reach what listens for this host alone, the proxy's own pages included.
    #[error("{0} is on loopback, which nobody reaches from outside")]
    Loopback(SocketAddr),
}

impl NotServed {
    fn reason(&self) -> Reason {
        Reason::Capture(match self {
            Self::System(_) => Capture::Unknown,
            Self::Capturing(_) => Capture::Direct,
            Self::ForeignSource(_) => Capture::ForeignSource,
            Self::ForeignDestination(_) => Capture::ForeignDestination,
            Self::Loopback(_) => Capture::Loopback,
        })
    }
}

/// The addresses of this host, as they were when one was last asked for that was not among them.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses(Mutex<HashSet<IpAddr>>);

impl OwnAddresses {
    /// Whether `address` is one of them.
    pub(crate) fn holds(&self, address: IpAddr) -> io::Result<bool> {
        if address.is_loopback() {
            return Ok(true);
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&address) {
            return Ok(true);
        }
        *known = nix::ifaddrs::getifaddrs()?
            .filter_map(|interface| interface.address.as_ref().and_then(ip))
            .collect();
        Ok(known.contains(&address))
    }
}

fn ip(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip())))
}

/// Binds every listener of the configuration.
///
/// # Errors
/// The first address that cannot be bound, named.
pub fn bind(config: &Config) -> Result<Vec<Ready>, String> {
    let inbound = config
        .inbound
        .iter()
        .map(|one| (one.listen, Purpose::Inbound(Port::from(one))));
    let outbound = config
        .outbound
        .iter()
        .map(|one| (one.listen, Purpose::Outbound(Arc::new(Way::from(one)))));
    let capture = config.capture.iter().flat_map(|capture| {
        let inbound = capture.inbound.map(|listen| (listen, Purpose::CapturedInbound));
        let outbound = capture.outbound.map(|listen| (listen, Purpose::CapturedOutbound));
        inbound.into_iter().chain(outbound)
    });
    let bound: Result<Vec<_>, String> = inbound
        .chain(outbound)
        .chain(capture)
        .map(|(listen, purpose)| {
            let named = |e: io::Error| format!("bind listener {listen}: {e}");
            let listener = listen_on(listen).map_err(named)?;
            let address = listener.local_addr().map_err(named)?;
            Ok((listener, purpose, address))
        })
        .collect();
    let bound = bound?;
    let captures = bound.iter().filter(|(_, purpose, _)| purpose.captures());
    let capturing: Arc<[u16]> = captures.map(|(.., address)| address.port()).collect();
    let ready = bound.into_iter().map(|(listener, purpose, address)| Ready {
        listener,
        purpose,
        address,
        capturing: Arc::clone(&capturing),
        own: OwnAddresses::default(),
    });
    Ok(ready.collect())
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(purpose: Purpose) -> Ready {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        Ready {
            address: listener.local_addr().unwrap(),
            listener,
            purpose,
            capturing: Arc::new([15001, 15006]),
            own: OwnAddresses::default(),
        }
    }

    #[tokio::test]
    async fn nobody_reaches_loopback_a_capturing_port_or_another_host_through_inbound_redirection() {
        let inbound = ready(Purpose::CapturedInbound);
        for (destination, refused) in [
            ("192.0.2.1:80", None),
            ("[2001:db8::1]:80", Some("ForeignDestination")),
            ("198.51.100.2:80", Some("ForeignDestination")),
            ("192.0.2.1:15006", Some("Capturing")),
            ("127.0.0.1:15000", Some("Loopback")),
            ("127.8.8.8:80", Some("Loopback")),
            ("[::1]:15000", Some("Loopback")),
            ("[::ffff:127.0.0.1]:15000", Some("Loopback")),
        ] {
            // Whoever it says that it comes from, and by whatever way.
            for (from, came_by) in [("192.0.2.9", "192.0.2.1"), ("127.0.0.1", "192.0.2.1")] {
                let checked = inbound.check(
                    from.parse().unwrap(),
                    destination.parse().unwrap(),
                    came_by.parse().unwrap(),
                );
                let found = checked.err().map(|why| format!("{why:?}"));
                let found = found.as_deref().and_then(|why| why.split('(').next());
                assert_eq!(found, refused, "{destination} from {from}");
            }
        }
    }

    #[tokio::test]
    async fn only_this_host_has_its_outbound_redirection_served() {
        let outbound = ready(Purpose::CapturedOutbound);
        let check = |from: &str| {
            let (destination, came_by) = ("192.0.2.1:80".parse().unwrap(), "127.0.0.1".parse().unwrap());
            outbound.check(from.parse().unwrap(), destination, came_by)
        };
        assert!(check("127.0.0.1").is_ok());
        assert!(matches!(check("192.0.2.9"), Err(NotServed::ForeignSource(_))));
    }

    #[test]
    fn addresses_of_this_host_are_known_from_those_of_others() {
        let addresses = OwnAddresses::default();
        for (address, own) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("192.0.2.7", false),
            ("2001:db8::7", false),
        ] {
            assert_eq!(
                addresses.holds(address.parse().unwrap()).unwrap(),
                own,
                "{address}"
            );
        }
        // Whichever the machine has beside loopback.
        let interfaces = nix::ifaddrs::getifaddrs().unwrap();
        for address in interfaces.filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip())) {
            assert!(addresses.holds(IpAddr::V4(address)).unwrap(), "{address}");
        }
    }
}
