//! What is known of a connection after its handshake. Plain data, shared by pointer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use signet_certs::tls::Proven;
use signet_certs::{SpiffeId, UnixTime};
use signet_policy::Connection;

/// Which way a connection goes, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

impl Direction {
    /// A word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The verified identity at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// SHA-256 of the leaf's DER.
    pub leaf_sha256: [u8; 32],
    /// The leaf's last valid second.
    pub not_after: UnixTime,
    /// The chain that proved it, of which later bundles are asked again; nothing for a peer that was not met here.
    pub proof: Option<Arc<Proven>>,
}

/// How a connection is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Mutual TLS, terminated here.
    Mutual(Peer),
    /// TLS between others, of which only the first bytes were read.
    PassedThrough,
    /// None.
    Plaintext,
    /// It ended before that was settled.
    Unsettled,
}

impl Security {
    /// A word for logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Mutual(_) => "mutual_tls",
            Self::PassedThrough => "passed_through",
            Self::Plaintext => "plaintext",
            Self::Unsettled => "unsettled",
        }
    }
}

/// A connection that was accepted, and whose first bytes or handshake told what it is.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its number in this process.
    pub id: u64,
    /// Which way it goes.
    pub direction: Direction,
    /// How it is secured.
    pub security: Security,
    /// The address at the other end.
    pub source: SocketAddr,
    /// The original client's address, where a trusted hop told it; else that of `source`.
    pub remote: IpAddr,
    /// What was dialled.
    pub destination: SocketAddr,
    /// The workload's port.
    pub port: u16,
    /// The server name that the client's TLS asked for.
    pub sni: Option<Box<str>>,
    /// The protocol that the handshake settled on.
    pub alpn: Option<Box<[u8]>>,
    /// The last valid second of the SVID of ours that the handshake used.
    pub own_not_after: Option<UnixTime>,
    /// The identity of ours that the handshake used.
    pub own_id: Option<SpiffeId>,
}

impl Accepted {
    /// The verified identity at the other end.
    #[must_use]
    pub fn peer(&self) -> Option<&SpiffeId> {
        match &self.security {
            Security::Mutual(peer) => Some(&peer.id),
            Security::PassedThrough | Security::Plaintext | Security::Unsettled => None,
        }
    }

    /// The chain that proved the other end.
    #[must_use]
    pub fn proof(&self) -> Option<&Arc<Proven>> {
        match &self.security {
            Security::Mutual(peer) => peer.proof.as_ref(),
            Security::PassedThrough | Security::Plaintext | Security::Unsettled => None,
        }
    }

    /// What a decision looks at.
    #[must_use]
    pub fn facts(&self) -> Connection<'_> {
        Connection {
            peer: self.peer(),
            source: self.source.ip(),
            remote: self.remote,
            destination: self.destination.ip(),
            port: self.port,
            sni: self.sni.as_deref(),
        }
    }
}
