//! Connections to the workload, from the accept to what serves them.

use std::net::SocketAddr;
use std::sync::Arc;

use signet_policy::model::Mode;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::access_log::{Limit, Policy, Reason, Record};
use crate::config::{Capture, Inbound, Protocol, Speaks, Terminates};
use crate::connection::{Accepted, Direction, Security};
use crate::connections::Place;
use crate::enforced::Enforced;
use crate::handshake::{Demands, Kind, Settled, Unsettled};
use crate::metrics::Secured;
use crate::outbound::{Address, Upstream};
use crate::shared::Shared;
use crate::spoken::settle;
use crate::stream::{Stream, reset_on_close};
use crate::tcp;

/// A port of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// What policies call it.
    pub port: u16,
    /// Where the workload listens.
    pub upstream: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether that is left open: then what the source of policies says is not disputed.
    pub auto: bool,
    /// Which TLS is terminated where it is not demanded.
    pub terminates: Terminates,
    /// Whether the workload is told the client's address.
    pub proxy_protocol: bool,
}

impl From<&Inbound> for Port {
    fn from(listener: &Inbound) -> Self {
        Self {
            port: listener.port,
            upstream: listener.upstream,
            protocol: listener.protocol,
            auto: listener.auto,
            terminates: listener.terminates,
            proxy_protocol: listener.proxy_protocol,
        }
    }
}

impl Port {
    /// The port of the workload that redirected connections to `destination` mean.
    #[must_use]
    pub fn redirected(capture: &Capture, destination: SocketAddr) -> Self {
        let number = destination.port();
        let listed = capture.http_ports.contains(&number);
        let protocol = if listed {
            Protocol::Http(Speaks::Auto)
        } else {
            Protocol::Tcp
        };
        let terminates = if capture.terminate_ports.contains(&number) {
            Terminates::Any
        } else {
            Terminates::Mesh
        };
        Self {
            port: number,
            upstream: destination,
            protocol,
            auto: !listed,
            terminates,
            proxy_protocol: false,
        }
    }

    /// The same, speaking what it is judged as with what the source of policies says.
    #[must_use]
    pub fn as_told(self, enforced: &Enforced) -> Self {
        let said = (!self.auto).then_some(self.protocol);
        Self {
            protocol: settle(said, enforced.protocol(self.port)).protocol,
            ..self
        }
    }
}

/// A connection as it was accepted.
pub struct Arrival {
    /// The socket.
    pub tcp: TcpStream,
    /// The other end.
    pub source: SocketAddr,
    /// What was dialled.
    pub destination: SocketAddr,
    /// Its place among the connections.
    pub place: Place,
}

/// Serves one connection to its end.
pub async fn serve(shared: Arc<Shared>, port: Port, arrival: Arrival) {
    let Arrival {
        tcp,
        source,
        destination,
        place,
    } = arrival;
    let mut accepted = Accepted {
        id: place.id(),
        direction: Direction::Inbound,
        security: Security::Unsettled,
        source,
        remote: source.ip().to_canonical(),
        destination,
        port: port.port,
        sni: None,
        alpn: None,
        own_not_after: None,
        own_id: None,
    };
    let Some((mode, port)) = settings(&shared, port) else {
        reset_on_close(&tcp);
        let detail = "there are no policies yet, and nobody passes before".to_owned();
        return Record::begin(&shared, &Arc::new(accepted)).ended(Reason::Policy(Policy::NotReady), detail);
    };
    let now = Instant::now();
    let limits = &shared.config.limits;
    let demands = Demands {
        mode,
        terminates: port.terminates,
        http: matches!(port.protocol, Protocol::Http(_)),
        deadline: now + limits.handshake,
        patience: limits.handshake,
        silence: now + limits.first_bytes,
    };
    let mut held = shared.connections.waiting().begin(limits.waiting_bytes);
    let settled = tokio::select! {
        settled = shared.acceptor.settle(tcp, &demands, &mut held) => settled,
        // Counted, not recorded: a flood must not become a flood of records.
        () = place.evicted() => return shared.metrics.ended(Direction::Inbound, Reason::Limit(Limit::Unsettled)),
    };
    let settled = match settled {
        Ok(settled) => settled,
        Err((fault, tcp)) => {
            if let Unsettled::Crowded(_) = fault {
                shared.crowded(Direction::Inbound);
            } else {
                let record = Record::begin(&shared, &Arc::new(accepted));
                record.since(now).ended(fault.reason(), fault.to_string());
            }
            return refuse(&fault, tcp.as_ref());
        }
    };
    drop(held);
    let stream = take_over(&mut accepted, settled);
    let accepted = Arc::new(accepted);
    if let Err(limit) = place.settled(&accepted) {
        stream.reset_on_close();
        return shared.metrics.ended(Direction::Inbound, Reason::Limit(limit));
    }
    count(&shared, &accepted);
    proceed(&shared, port, accepted, stream).await;
    drop(place);
}

/// What is demanded of peers on a port, and what is spoken there.
fn settings(shared: &Shared, port: Port) -> Option<(Mode, Port)> {
    let enforced = shared.policies.current()?;
    Some((enforced.in_force.peers.mode(port.port), port.as_told(&enforced)))
}

/// Closes by a reset; after an alert in the ordinary way, so that the client can read it.
fn refuse(fault: &Unsettled, tcp: Option<&TcpStream>) {
    if let Some(tcp) = tcp
        && !matches!(fault, Unsettled::Gone(_))
    {
        reset_on_close(tcp);
    }
}

fn take_over(accepted: &mut Accepted, settled: Settled) -> Stream {
    accepted.sni = settled.sni;
    accepted.alpn = settled.alpn;
    accepted.security = match settled.kind {
        Kind::Mutual(peer, own) => {
            accepted.own_not_after = Some(own.not_after());
            accepted.own_id = Some(own.id().clone());
            Security::Mutual(peer)
        }
        Kind::PassedThrough => Security::PassedThrough,
        Kind::Plaintext => Security::Plaintext,
    };
    settled.stream
}

fn count(shared: &Shared, accepted: &Accepted) {
    let labels = Secured {
        direction: accepted.direction.as_str(),
        security: accepted.security.as_str(),
    };
    shared.metrics.connections.get_or_create(&labels).inc();
    let passed_through = accepted.security == Security::PassedThrough;
    if passed_through || accepted.security == Security::Plaintext {
        let (client, now) = (accepted.remote, shared.clock.now());
        shared
            .connections
            .plaintext(client, accepted.port, passed_through, now);
    }
}

async fn proceed(shared: &Arc<Shared>, port: Port, accepted: Arc<Accepted>, stream: Stream) {
    let speaks = match port.protocol {
        Protocol::Http(speaks) => speaks,
        Protocol::Tcp => Speaks::Auto,
    };
    let upstream = Upstream {
        address: Address::Socket(port.upstream),
        expected: None,
        speaks,
    };
    let shared = Arc::clone(shared);
    // Each on the heap, so that a connection costs what it is, and one that says nothing yet costs little.
    // What passes through unread cannot be HTTP to us; it is judged as TCP.
    let http = matches!(port.protocol, Protocol::Http(_)) && accepted.security != Security::PassedThrough;
    if http && port.proxy_protocol {
        let header = tcp::proxy_protocol::header(&accepted);
        Box::pin(crate::http::serve_announced(
            shared, accepted, stream, upstream, header,
        ))
        .await;
    } else if http {
        Box::pin(crate::http::serve_inbound(shared, accepted, stream, upstream)).await;
    } else {
        Box::pin(tcp::serve_inbound(
            shared,
            accepted,
            stream,
            upstream,
            port.proxy_protocol,
        ))
        .await;
    }
}
