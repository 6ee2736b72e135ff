//! The header of PROXY protocol version 2: who the client is, for workloads that ask for it. Its identity goes with it
//! in a TLV of the range that the protocol leaves to applications.

use std::net::{IpAddr, SocketAddr};

use crate::connection::Accepted;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, PROXY.
const PROXIED: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// Our TLV: the client's SPIFFE ID, which was verified.
const SPIFFE_ID: u8 = 0xe0;

/// The header for this connection.
pub(crate) fn header(accepted: &Accepted) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(64);
    let (source, destination) = (accepted.source, accepted.destination);
    let family = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            addresses.extend_from_slice(&source.octets());
            addresses.extend_from_slice(&destination.octets());
            TCP4
        }
        _ => {
            addresses.extend_from_slice(&six(source));
            addresses.extend_from_slice(&six(destination));
            TCP6
        }
    };
    addresses.extend_from_slice(&source.port().to_be_bytes());
    addresses.extend_from_slice(&destination.port().to_be_bytes());
    if let Some(peer) = accepted.peer() {
        let id = peer.as_str().as_bytes();
        addresses.push(SPIFFE_ID);
        addresses.extend_from_slice(&length(id));
        addresses.extend_from_slice(id);
    }
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[PROXIED, family]);
    header.extend_from_slice(&length(&addresses));
    header.extend_from_slice(&addresses);
    header
}

/// Bounded well below the field: a SPIFFE ID has at most 2,048 bytes.
fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

fn six(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Direction, Peer, Security};
    use signet_certs::UnixTime;

    fn accepted(source: &str, destination: &str, security: Security) -> Accepted {
        let source: SocketAddr = source.parse().unwrap();
        Accepted {
            id: 0,
            direction: Direction::Inbound,
            security,
            source,
            remote: source.ip(),
            destination: destination.parse().unwrap(),
            port: 80,
            sni: None,
            alpn: None,
            own_not_after: None,
            own_id: None,
        }
    }

    #[test]
    fn the_header_is_as_the_protocol_has_it() {
        let plain = header(&accepted("10.0.0.1:258", "10.0.0.2:80", Security::Plaintext));
        let expected = [
            &SIGNATURE[..],
            &[0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 80],
        ]
        .concat();
        assert_eq!(plain, expected);
        let peer = Peer {
            id: "spiffe://a/ns/b/sa/c".parse().unwrap(),
            leaf_sha256: [0; 32],
            not_after: UnixTime::since_unix_epoch(std::time::Duration::ZERO),
            proof: None,
        };
        let mutual = header(&accepted("[fd00::1]:1", "10.0.0.2:80", Security::Mutual(peer)));
        assert_eq!(mutual[13], TCP6);
        assert_eq!(mutual[14..16], [0, 36 + 3 + 20]);
        assert_eq!(mutual[16 + 16..16 + 32], six("10.0.0.2:80".parse().unwrap()));
        assert!(mutual.ends_with(b"\xe0\0\x14spiffe://a/ns/b/sa/c"));
    }
}
