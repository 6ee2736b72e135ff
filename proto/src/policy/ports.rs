//! What is spoken on a workload's ports, on its way to the proxy.

use std::collections::BTreeMap;

use signet_policy::Spoken;

use super::{MAX_TEXT_BYTES, SnapshotError, bounded};
use crate::wire::signet::policy::v1 as wire;

/// Most ports of one workload that are told.
pub const MAX_PORTS: usize = 1_024;

/// What is known of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What is spoken there.
    pub spoken: Spoken,
    /// Who says so, for people.
    pub origin: String,
    /// Whether others say otherwise.
    pub disputed: bool,
}

/// The ports of a workload of which it is known what is spoken there.
pub type Ports = BTreeMap<u16, Port>;

/// Ports as they travel.
#[must_use]
pub fn port_messages(ports: &Ports) -> Vec<wire::Port> {
    let message = |(number, port): (&u16, &Port)| wire::Port {
        port: u32::from(*number),
        protocol: match port.spoken {
            Spoken::Tcp => wire::PortProtocol::Tcp,
            Spoken::Http => wire::PortProtocol::Http,
            Spoken::Http2 => wire::PortProtocol::Http2,
        }
        .into(),
        origin: port.origin.clone(),
        disputed: port.disputed,
    };
    ports.iter().take(MAX_PORTS).map(message).collect()
}

/// What is not known here is not known to be HTTP.
pub(super) fn received(messages: Vec<wire::Port>) -> Result<Ports, SnapshotError> {
    bounded("ports", messages.len(), MAX_PORTS)?;
    let mut ports = Ports::new();
    for message in messages {
        bounded("the origin of a port", message.origin.len(), MAX_TEXT_BYTES)?;
        let spoken = match message.protocol() {
            wire::PortProtocol::Http => Spoken::Http,
            wire::PortProtocol::Http2 => Spoken::Http2,
            wire::PortProtocol::Unspecified | wire::PortProtocol::Tcp => Spoken::Tcp,
        };
        let Ok(number) = u16::try_from(message.port) else {
            return Err(SnapshotError::TooMany {
                what: "a port",
                found: usize::try_from(message.port).unwrap_or(usize::MAX),
                most: usize::from(u16::MAX),
            });
        };
        let (origin, disputed) = (message.origin, message.disputed);
        let port = Port {
            spoken,
            origin,
            disputed,
        };
        ports.insert(number, port);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_same_at_the_other_end_and_an_unknown_protocol_is_not_http() {
        let port = |spoken, disputed| Port {
            spoken,
            origin: "Service shop/web".into(),
            disputed,
        };
        let sent = Ports::from([
            (80, port(Spoken::Http, false)),
            (81, port(Spoken::Http2, false)),
            (82, port(Spoken::Tcp, true)),
        ]);
        let mut messages = port_messages(&sent);
        assert_eq!(received(messages.clone()).unwrap(), sent);
        messages[0].protocol = 77;
        assert_eq!(received(messages.clone()).unwrap()[&80].spoken, Spoken::Tcp);
        messages[0].port = 65_536;
        assert!(matches!(
            received(messages),
            Err(SnapshotError::TooMany { what: "a port", .. })
        ));
    }
}
