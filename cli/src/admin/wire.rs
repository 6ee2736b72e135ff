//! What the admin sockets say, as JSON. Members unknown here are ignored, so that an older `signet` can
//! speak to a newer daemon.

use serde::{Deserialize, Serialize};

use crate::times::Moment;

/// An error answer.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) error: String,
}

/// The part of `GET /v1/status` that every daemon has.
#[derive(Clone, Debug, Deserialize)]
pub struct Readiness {
    /// Whether it is ready.
    pub ready: bool,
    /// What it waits for.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// `GET /v1/status` of a CA.
#[derive(Clone, Debug, Deserialize)]
pub struct CaStatus {
    /// Its process.
    pub pid: u32,
    /// Its trust domain.
    pub trust_domain: String,
    /// Where it serves certificates, as bound.
    pub ca_address: String,
    /// Where it serves metrics, as bound.
    pub metrics_address: String,
    /// Whether it can issue.
    pub ready: bool,
    /// What it waits for.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// `GET /v1/status` of an agent.
#[derive(Clone, Debug, Deserialize)]
pub struct AgentStatus {
    /// Its process.
    pub pid: u32,
    /// Its trust domain.
    pub trust_domain: String,
    /// Its workload socket.
    pub socket: String,
    /// Where it serves metrics, as bound.
    pub metrics_address: String,
    /// Whether it holds an SVID.
    pub ready: bool,
    /// What it waits for.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// `GET /v1/authorities`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authorities {
    /// The trust domain.
    pub trust_domain: String,
    /// Sequence of the bundle.
    pub sequence: u64,
    /// The roots.
    pub roots: Vec<Authority>,
    /// What leaves are signed with.
    pub issuing: Issuing,
    /// The keys for JWT-SVIDs.
    #[serde(default)]
    pub jwt_keys: Vec<AuthorityKey>,
}

/// One key for JWT-SVIDs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthorityKey {
    /// Its name in token headers.
    pub kid: String,
    /// Kind of the key.
    pub key: String,
    /// The algorithm it signs with.
    pub algorithm: String,
    /// Whether it is the one that signs now.
    pub signs: bool,
}

/// One X.509 authority.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authority {
    /// Its subject key identifier, or its serial where there is none.
    pub authority_id: String,
    /// Its subject.
    pub subject: String,
    /// Its serial, hex.
    pub serial: String,
    /// Kind of its key.
    pub key: String,
    /// First second of validity.
    pub not_before: Moment,
    /// Last second of validity.
    pub not_after: Moment,
    /// Where it stands in its life: `prepared`, `active` or `old`.
    #[serde(default)]
    pub state: Option<String>,
}

/// The authority that signs leaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Issuing {
    /// Its facts.
    #[serde(flatten)]
    pub authority: Authority,
    /// When its successor is made.
    pub renews_at: Option<Moment>,
    /// Where it comes from: `own_root`, `plugged_in` or `direct`.
    pub source: String,
}

/// `GET /v1/bundle`.
#[derive(Clone, Debug, Deserialize)]
pub struct Bundle {
    /// The trust domain.
    pub trust_domain: String,
    /// Rises with every change.
    pub sequence: u64,
    /// How soon to ask again.
    #[serde(default)]
    pub refresh_hint_seconds: Option<u64>,
    /// The roots, concatenated.
    pub pem: String,
    /// Roots and JWT keys as a SPIFFE JWK set; absent from a daemon that knows no JWT keys.
    #[serde(default)]
    pub jwks: Option<String>,
}

/// `GET /v1/svids`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Svids {
    pub(super) svids: Vec<Svid>,
}

/// One SVID at its agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Svid {
    /// The identity.
    pub spiffe_id: String,
    /// Serial of the leaf, hex.
    pub serial: String,
    /// The authority that signed the leaf.
    pub authority_id: String,
    /// Kind of its key.
    pub key: String,
    /// First second of validity.
    pub not_before: Moment,
    /// Last second of validity.
    pub not_after: Moment,
    /// When the agent got it.
    pub received_at: Moment,
    /// When the agent asks for the next one.
    pub renews_at: Option<Moment>,
    /// Successful renewals so far.
    pub renewals: u64,
    /// The last success.
    pub last_success: Option<Moment>,
    /// The last failure since then, if any.
    pub last_failure: Option<Failure>,
    /// The chain, PEM, leaf first.
    #[serde(default, skip_serializing)]
    pub chain_pem: String,
}

/// A renewal that failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: Moment,
    /// A stable word.
    pub reason: String,
    /// A sentence.
    pub error: String,
}

/// `POST /v1/svids/rotate` for one of several.
#[derive(Serialize)]
pub(super) struct RotateQuestion<'a> {
    pub(super) spiffe_id: &'a str,
}

/// `POST /v1/token/check`. Never printed: it is the token.
#[derive(Serialize)]
pub(super) struct TokenQuestion<'a> {
    pub(super) token: &'a str,
}

/// What a CA says to a token.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenVerdict {
    /// Whether it passes.
    pub accepted: bool,
    /// A stable word.
    #[serde(default)]
    pub reason: Option<String>,
    /// A sentence.
    #[serde(default)]
    pub explanation: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub fix: Option<String>,
    /// The identity it would get.
    #[serde(default)]
    pub spiffe_id: Option<String>,
}
