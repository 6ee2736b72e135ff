//! Listeners: bound at start, accepted from until the word to drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use signet_runtime::shutdown::Tasks;
use tokio::net::{TcpListener, TcpStream};

use crate::access_log::Reason;
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
        let address = source.ip().to_canonical();
        let place = match shared
            .connections
            .admit(address, limits.connections, limits.connections_per_source)
        {
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
                let metrics = shared.metrics.clone();
                if let Err(error) = self.captured(arrival, shared, tasks) {
                    metrics.accept_failures.inc();
                    tracing::warn!(%error, "redirected connection has no destination; closed");
                }
            }
        }
    }

    fn captured(&self, mut arrival: Arrival, shared: Arc<Shared>, tasks: &Tasks) -> io::Result<()> {
        if let Purpose::CapturedInbound = self.purpose {
            let capture = shared.config.capture.clone().unwrap_or_default();
            let (port, destination) = Port::captured(&arrival.tcp, &capture, self.address)?;
            arrival.destination = destination;
            tasks.spawn(inbound::serve(shared, port, arrival));
            return Ok(());
        }
        let destination = crate::original::destination(&arrival.tcp)?;
        if destination.port() == self.address.port() {
            return Err(io::Error::other("the connection was not redirected"));
        }
        arrival.destination = destination;
        let way = Way::to(&shared.config, destination);
        tasks.spawn(listener::serve(shared, way, arrival));
        Ok(())
    }
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
    inbound
        .chain(outbound)
        .chain(capture)
        .map(|(listen, purpose)| {
            let named = |e: io::Error| format!("bind listener {listen}: {e}");
            let listener = listen_on(listen).map_err(named)?;
            let address = listener.local_addr().map_err(named)?;
            Ok(Ready {
                listener,
                purpose,
                address,
            })
        })
        .collect()
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
