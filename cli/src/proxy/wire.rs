//! What a proxy's admin page says, and what `-o json` and `-o yaml` print of it. Members unknown here are ignored, so
//! that an older `signet` can speak to a newer proxy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::times::Moment;

/// `GET /secrets`. There is no key in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Secrets {
    /// What the proxy presents; nothing when no SVID has come, or none that verifies.
    pub svid: Option<Svid>,
    /// Whom it believes, by trust domain.
    pub bundles: Vec<Bundle>,
    /// Chains of peers that verified.
    pub verified_chains: VerifiedChains,
}

/// An X509-SVID.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Svid {
    /// Who.
    pub spiffe_id: String,
    /// Serial number of the leaf.
    pub serial: String,
    /// First valid second of the leaf.
    pub not_before: Moment,
    /// Last second in which the whole chain is valid.
    pub not_after: Moment,
    /// Whether that is still to come, by the proxy's clock.
    pub valid: bool,
    /// Leaf first.
    pub chain: Vec<Certificate>,
}

/// One certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Certificate {
    /// Its subject; empty for a leaf.
    pub subject: String,
    /// Serial number.
    pub serial: String,
    /// First valid second.
    pub not_before: Moment,
    /// Last valid second.
    pub not_after: Moment,
    /// Whether it is valid now, by the proxy's clock.
    pub valid: bool,
}

/// The roots of a trust domain.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Bundle {
    /// The trust domain.
    pub trust_domain: String,
    /// Its roots.
    pub roots: Vec<Certificate>,
}

/// How often a peer's chain had been verified before.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct VerifiedChains {
    /// Chains that are kept.
    pub kept: u64,
    /// Handshakes that found theirs.
    pub hits: u64,
    /// Handshakes that did not.
    pub misses: u64,
}

/// `GET /policies`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Policies {
    /// Where they come from.
    pub source: PolicySource,
    /// What is enforced; nothing before the first snapshot.
    pub in_force: Option<InForce>,
}

/// Where policies come from, and how that stands.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PolicySource {
    /// `agent` or `files`.
    pub source: String,
    /// The version in force.
    pub version: Option<String>,
    /// Since when.
    pub since: Option<Moment>,
    /// Namespace of the workload.
    pub namespace: Option<String>,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// Objects that cannot be read.
    pub faults: Vec<PolicyFault>,
    /// Why there is no news.
    pub failure: Option<SourceFailure>,
}

/// An object that cannot be read.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PolicyFault {
    /// The object, or the document.
    pub policy: String,
    /// Where it came from.
    pub origin: String,
    /// What is in force instead.
    pub state: String,
    /// What is wrong with it.
    pub faults: Vec<String>,
}

/// Why there is no news from the source.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "(String, String)")]
pub struct SourceFailure {
    /// A stable word.
    pub reason: String,
    /// A sentence.
    pub error: String,
}

impl From<(String, String)> for SourceFailure {
    fn from((reason, error): (String, String)) -> Self {
        Self { reason, error }
    }
}

/// What is enforced.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct InForce {
    /// Its version.
    pub version: String,
    /// The AuthorizationPolicies that concern the workload.
    pub policies: Vec<String>,
    /// What of them cannot be enforced as it stands.
    pub unenforceable: Vec<Unenforceable>,
    /// What ports ask of their callers.
    pub mutual_tls: MutualTls,
    /// Issuers of tokens that are judged; nothing for a rule without one.
    pub token_issuers: Vec<Option<String>>,
    /// Ports on which no token is looked at though a rule says how; empty for all of them. Older proxies do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_unenforceable_on: Option<Vec<u16>>,
}

/// A field that cannot be enforced, and is read to the safe side.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Unenforceable {
    /// The policy.
    pub policy: String,
    /// The rule in it, from 0.
    pub rule: u64,
    /// The field.
    pub field: String,
    /// Whether nothing can enforce it, or only listeners without HTTP cannot.
    pub everywhere: bool,
    /// Whether the rule then matches nothing, or the field counts as matched.
    pub never_matches: bool,
    /// The ports; empty for all. Older proxies do not say.
    #[serde(default)]
    pub ports: Vec<u16>,
}

/// Modes of mutual TLS.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MutualTls {
    /// Of ports without a ruling of their own.
    pub workload: Ruling,
    /// Of the others.
    pub ports: BTreeMap<u16, Ruling>,
}

/// A mode, and who set it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ruling {
    /// `STRICT`, `PERMISSIVE` or `DISABLE`.
    pub mode: String,
    /// The PeerAuthentication; nothing for the default.
    pub by: Option<String>,
}

/// `GET /connections`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Connections {
    /// How many are open, those in their handshake included.
    pub open: u64,
    /// The oldest of those past it, up to 1,000.
    pub connections: Vec<Connection>,
}

/// An open connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Connection {
    /// Its number, as in the access log.
    pub connection: u64,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// `mutual_tls`, `passed_through` or `plaintext`.
    pub security: String,
    /// The other end.
    pub source: std::net::SocketAddr,
    /// What was dialled.
    pub destination: String,
    /// The workload's port.
    pub port: u16,
    /// Who was verified at the other end.
    pub peer: Option<Peer>,
    /// As whom the proxy presented itself.
    pub own_id: Option<String>,
    /// How long that SVID is valid.
    pub own_not_after: Option<Moment>,
    /// The server name that the client asked for.
    pub sni: Option<String>,
    /// The protocol that was settled on.
    pub alpn: Option<String>,
}

/// A verified peer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Peer {
    /// Who.
    pub spiffe_id: String,
    /// Digest of its certificate.
    pub leaf_sha256: String,
    /// Last valid second of it.
    pub not_after: Moment,
}

/// `GET /listeners`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Listeners {
    /// All of them.
    pub listeners: Vec<Listener>,
}

/// A listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Listener {
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Whether it takes redirected traffic.
    pub captures: bool,
    /// Where it listens, as bound.
    pub address: String,
    /// Who is dialled; nothing for redirected traffic.
    pub upstream: Option<String>,
}

/// `GET /plaintext-clients`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PlaintextClients {
    /// Since when the proxy looks.
    pub since: Moment,
    /// Who came.
    pub clients: Vec<PlaintextClient>,
    /// Connections of clients that found no room in the list.
    pub unlisted_connections: u64,
}

/// A client that came without mutual TLS.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PlaintextClient {
    /// Its address.
    pub address: std::net::IpAddr,
    /// The workload's port that it came to.
    pub port: u16,
    /// How often.
    pub connections: u64,
    /// How many of these spoke a TLS of their own, which passed through.
    pub passed_through: u64,
    /// When first; an older proxy does not say.
    #[serde(default)]
    pub first: Option<Moment>,
    /// When last.
    pub last: Moment,
}
