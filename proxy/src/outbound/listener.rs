//! Connections of the workload to others, from the accept to what serves them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::access_log::{Reason, Record, Upstream as Fault};
use crate::config::{Config, Outbound, Outgoing, Protocol, Reach, Speaks};
use crate::connection::{Accepted, Direction, Security};
use crate::inbound::Arrival;
use crate::keys::Own;
use crate::metrics::Secured;
use crate::outbound::{Address, Upstream};
use crate::shared::Shared;
use crate::stream::{Prefixed, Stream, reset_on_close};
use crate::tcp;

/// Where a connection of the workload goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Who is dialled, and how.
    pub upstream: Upstream,
    /// What is spoken.
    pub protocol: Protocol,
}

impl From<&Outbound> for Way {
    fn from(listener: &Outbound) -> Self {
        Self::new(listener.upstream.clone(), listener.protocol, &listener.outgoing)
    }
}

impl Way {
    fn new(address: Address, protocol: Protocol, outgoing: &Outgoing) -> Self {
        let speaks = match protocol {
            Protocol::Http(speaks) => speaks,
            Protocol::Tcp => Speaks::Auto,
        };
        let expected = match outgoing {
            Outgoing::Mutual(ids) => Some(Arc::clone(ids)),
            Outgoing::Plaintext => None,
        };
        let upstream = Upstream {
            address,
            expected,
            speaks,
        };
        Self { upstream, protocol }
    }

    /// The way of a redirected connection; nothing where its destination is unknown and unknown ones are refused. The
    /// first destination that holds the address counts.
    #[must_use]
    pub fn to(config: &Config, destination: SocketAddr) -> Option<Self> {
        let (known, others) = &config.destinations;
        let found = known.iter().find(|known| known.holds(destination));
        let address = Address::Socket(destination);
        match (found, others) {
            (Some(known), _) => Some(Self::new(address, known.protocol, &known.outgoing)),
            (None, Reach::Plaintext) => Some(Self::new(address, Protocol::Tcp, &Outgoing::Plaintext)),
            (None, Reach::Refuse) => None,
        }
    }
}

/// Serves one connection to its end; without a way it is refused.
pub async fn serve(shared: Arc<Shared>, way: Option<Way>, arrival: Arrival) {
    let Arrival {
        tcp,
        source,
        destination,
        place,
    } = arrival;
    let own = shared.keys.usable(shared.clock.now());
    let accepted = Arc::new(Accepted {
        id: place.id(),
        direction: Direction::Outbound,
        security: Security::Plaintext,
        source,
        remote: source.ip().to_canonical(),
        destination,
        port: destination.port(),
        sni: None,
        alpn: None,
        own_not_after: own.as_ref().map(Own::not_after),
        own_id: own.map(|own| own.id().clone()),
    });
    let Some(way) = way else {
        reset_on_close(&tcp);
        let detail = format!("{destination} is not among the destinations, and default_outbound is refuse");
        return Record::begin(&shared, &accepted).ended(Reason::Upstream(Fault::Unlisted), detail);
    };
    if let Err(limit) = place.settled(&accepted) {
        reset_on_close(&tcp);
        return shared.metrics.ended(Direction::Outbound, Reason::Limit(limit));
    }
    let labels = Secured {
        direction: accepted.direction.as_str(),
        security: accepted.security.as_str(),
    };
    shared.metrics.connections.get_or_create(&labels).inc();
    let stream = Stream::Plain(Prefixed::new(Vec::new(), tcp));
    match way.protocol {
        Protocol::Http(_) => {
            Box::pin(crate::http::serve_outbound(
                shared,
                accepted,
                stream,
                way.upstream,
            ))
            .await
        }
        Protocol::Tcp => Box::pin(tcp::serve_outbound(shared, accepted, stream, way.upstream)).await,
    }
    drop(place);
}
