//! What is spoken on the ports of the workload, where its Services, its pod and our configuration each have a word. Pure.

use std::collections::BTreeSet;

use signet_policy::Spoken;
use signet_proto::policy::Ports;

use crate::config::{Config, Protocol, Speaks};

/// What a port is judged as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether configuration and others do not say the same.
    pub disputed: bool,
}

/// Settles what is spoken on a port. Services and pod come first, and who configures may not know them. But nobody
/// takes HTTP from a port of which another says that it carries it: its requests would no longer be judged. Of what
/// nobody says anything, nothing is known to be HTTP.
#[must_use]
pub fn settle(configured: Option<Protocol>, told: Option<Protocol>) -> Settled {
    let agreed = |protocol| Settled {
        protocol,
        disputed: false,
    };
    let disputed = |protocol| Settled {
        protocol,
        disputed: true,
    };
    match (configured, told) {
        (None, None) => agreed(Protocol::Tcp),
        (Some(one), None) | (None, Some(one)) => agreed(one),
        (Some(Protocol::Http(ours)), Some(Protocol::Http(theirs))) => match (ours, theirs) {
            // The word that leaves it open gives way to the one that does not.
            (ours, Speaks::Auto) => agreed(Protocol::Http(ours)),
            (Speaks::Auto, theirs) => agreed(Protocol::Http(theirs)),
            (ours, theirs) if ours == theirs => agreed(Protocol::Http(ours)),
            (_, theirs) => disputed(Protocol::Http(theirs)),
        },
        (Some(Protocol::Tcp), Some(Protocol::Tcp)) => agreed(Protocol::Tcp),
        (Some(Protocol::Http(http)), Some(Protocol::Tcp))
        | (Some(Protocol::Tcp), Some(Protocol::Http(http))) => disputed(Protocol::Http(http)),
    }
}

/// What Services and pod say of a port, as far as the source of policies knows.
#[must_use]
pub fn told(ports: &Ports, port: u16) -> Option<Protocol> {
    Some(match ports.get(&port)?.spoken {
        Spoken::Tcp => Protocol::Tcp,
        Spoken::Http => Protocol::Http(Speaks::Auto),
        Spoken::Http2 => Protocol::Http(Speaks::Http2),
    })
}

/// A stable word for what is spoken.
#[must_use]
pub fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Http(Speaks::Auto) => "http",
        Protocol::Http(Speaks::Http1) => "http1",
        Protocol::Http(Speaks::Http2) => "http2",
    }
}

/// What the configuration says of the workload's ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// By listener; nothing where it is left open.
    ports: Vec<(u16, Option<Protocol>)>,
    /// The ports that are said to carry HTTP, where traffic to any port is redirected here.
    captured: Option<BTreeSet<u16>>,
}

impl Listeners {
    /// Those that are configured.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let capture = config
            .capture
            .as_ref()
            .filter(|capture| capture.inbound.is_some());
        Self {
            ports: config.inbound.iter().map(|one| (one.port, one.said())).collect(),
            captured: capture.map(|capture| capture.http_ports.iter().copied().collect()),
        }
    }

    /// What the listeners through which a port is reached say of it.
    pub fn said(&self, port: u16) -> impl Iterator<Item = Option<Protocol>> {
        let own = self.ports.iter().filter(move |(number, _)| *number == port);
        let captured = self.captured.as_ref().map(|http| {
            let listed = http.contains(&port);
            listed.then_some(Protocol::Http(Speaks::Auto))
        });
        own.map(|(_, said)| *said).chain(captured)
    }

    /// What becomes of it with what Services and pod say.
    #[must_use]
    pub fn judged(&self, ports: &Ports) -> Judged {
        let own = self.ports.iter().map(|(port, _)| *port);
        let listed = self.captured.iter().flatten().copied();
        let reached = ports
            .keys()
            .copied()
            .filter(|port| self.said(*port).next().is_some());
        let mut judged = Judged {
            tcp: BTreeSet::new(),
            http: BTreeSet::new(),
            captures: self.captured.is_some(),
        };
        for port in own.chain(listed).chain(reached).collect::<BTreeSet<_>>() {
            for said in self.said(port) {
                match settle(said, told(ports, port)).protocol {
                    Protocol::Tcp => judged.tcp.insert(port),
                    Protocol::Http(_) => judged.http.insert(port),
                };
            }
        }
        judged
    }
}

/// Which ports of the workload are judged by connection, and which by request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    tcp: BTreeSet<u16>,
    http: BTreeSet<u16>,
    /// Whether ports that are not known are reached as well; they are judged by connection.
    captures: bool,
}

/// Where requests are not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blind {
    /// Nowhere that counts.
    Nowhere,
    /// On these ports.
    On(Vec<u16>),
    /// On every port.
    Everywhere,
}

impl Judged {
    /// Where what is limited to these ports, or to none, meets connections whose requests are not judged. Ports of which
    /// nobody knows count where they are named, and where there is nothing else: else every rule would be reported for
    /// ports that nothing listens on.
    #[must_use]
    pub fn blind(&self, limited: &[u16]) -> Blind {
        let on: BTreeSet<u16> = if limited.is_empty() {
            self.tcp.clone()
        } else {
            let unknown = |port| self.captures && !self.http.contains(port);
            let meant = limited
                .iter()
                .filter(|port| self.tcp.contains(port) || unknown(port));
            meant.copied().collect()
        };
        let nothing_else = limited.is_empty() && self.captures && self.http.is_empty();
        match on.is_empty() {
            false => Blind::On(on.into_iter().collect()),
            true if nothing_else => Blind::Everywhere,
            true => Blind::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use signet_proto::policy::ports::Port;

    use super::*;

    const AUTO: Option<Protocol> = Some(Protocol::Http(Speaks::Auto));
    const HTTP1: Option<Protocol> = Some(Protocol::Http(Speaks::Http1));
    const HTTP2: Option<Protocol> = Some(Protocol::Http(Speaks::Http2));
    const TCP: Option<Protocol> = Some(Protocol::Tcp);

    #[test]
    fn what_services_say_comes_first_and_nobody_takes_http_from_a_port() {
        for (configured, told, protocol, disputed) in [
            (None, None, TCP, false),
            (None, AUTO, AUTO, false),
            (None, TCP, TCP, false),
            (TCP, None, TCP, false),
            (HTTP1, None, HTTP1, false),
            (TCP, TCP, TCP, false),
            (TCP, AUTO, AUTO, true),
            (TCP, HTTP2, HTTP2, true),
            (AUTO, TCP, AUTO, true),
            (HTTP2, TCP, HTTP2, true),
            (AUTO, AUTO, AUTO, false),
            (AUTO, HTTP2, HTTP2, false),
            (HTTP2, AUTO, HTTP2, false),
            (HTTP2, HTTP2, HTTP2, false),
            (HTTP1, HTTP2, HTTP2, true),
        ] {
            let settled = settle(configured, told);
            assert_eq!(
                (Some(settled.protocol), settled.disputed),
                (protocol, disputed),
                "{configured:?} {told:?}"
            );
        }
    }

    fn ports(told: &[(u16, Spoken)]) -> Ports {
        let port = |spoken| Port {
            spoken,
            origin: "Service web".to_owned(),
            disputed: false,
        };
        told.iter()
            .map(|(number, spoken)| (*number, port(*spoken)))
            .collect()
    }

    fn listeners(text: &str) -> Listeners {
        let least = "policies: {directory: /p, namespace: shop}";
        Listeners::of(&Config::from_text(&format!("{least}\n{text}")).unwrap())
    }

    #[test]
    fn fields_about_requests_are_lost_where_a_port_that_they_mean_is_judged_by_connection() {
        let two = "inbound: [{listen: '127.0.0.1:1', upstream: '127.0.0.1:80', protocol: http}, \
                   {listen: '127.0.0.1:2', upstream: '127.0.0.1:90'}]";
        let redirected = "capture: {inbound: '127.0.0.1:1', http_ports: [80]}";
        for (config, told, limited, expected) in [
            ("", vec![], vec![], Blind::Nowhere),
            (two, vec![], vec![], Blind::On(vec![90])),
            (two, vec![], vec![80], Blind::Nowhere),
            (two, vec![], vec![80, 90, 70], Blind::On(vec![90])),
            (two, vec![(90, Spoken::Http)], vec![], Blind::Nowhere),
            (two, vec![(80, Spoken::Tcp)], vec![80], Blind::Nowhere),
            (
                two,
                vec![(90, Spoken::Http), (70, Spoken::Tcp)],
                vec![],
                Blind::Nowhere,
            ),
            (redirected, vec![], vec![], Blind::Nowhere),
            (redirected, vec![], vec![70, 80], Blind::On(vec![70])),
            (redirected, vec![(70, Spoken::Tcp)], vec![], Blind::On(vec![70])),
            (redirected, vec![(70, Spoken::Http2)], vec![70], Blind::Nowhere),
            (
                "capture: {inbound: '127.0.0.1:1'}",
                vec![],
                vec![],
                Blind::Everywhere,
            ),
            (
                "capture: {outbound: '127.0.0.1:1'}",
                vec![],
                vec![],
                Blind::Nowhere,
            ),
        ] {
            let judged = listeners(config).judged(&ports(&told));
            assert_eq!(judged.blind(&limited), expected, "{config} {told:?} {limited:?}");
        }
    }

    #[test]
    fn a_port_with_two_listeners_is_what_each_of_them_is() {
        let both = "inbound: [{listen: '127.0.0.1:1', upstream: '127.0.0.1:80', protocol: http}]\n\
                    capture: {inbound: '127.0.0.1:2'}";
        let judged = listeners(both).judged(&ports(&[]));
        assert_eq!(judged.blind(&[80]), Blind::On(vec![80]), "as redirected");
    }
}
