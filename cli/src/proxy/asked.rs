//! What a proxy's admin socket is asked, and what it says. Members unknown here are ignored, so that an older `signet`
//! can speak to a newer proxy.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::wire::Svid;
use crate::times::Moment;

/// `POST /tls-check`: what came of a handshake.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TlsChecked {
    /// What was asked for.
    pub destination: String,
    /// A stable word.
    pub outcome: String,
    /// The same as a sentence, where it did not go well.
    pub error: Option<String>,
    /// The alert by which the other side ended it.
    pub alert: Option<String>,
    /// What the proxy's configuration says of the destination.
    pub listed: Option<Listed>,
    /// What becomes of destinations that are not there.
    pub default_outbound: String,
    /// What it presents.
    pub own: Option<Svid>,
    /// Its chain in PEM.
    #[serde(skip_serializing)]
    pub own_chain_pem: Option<String>,
    /// Who answered.
    pub address: Option<SocketAddr>,
    /// Where it called from.
    pub source: Option<SocketAddr>,
    /// What is known of the TLS.
    pub tls: Option<TlsFacts>,
}

impl TlsChecked {
    /// Whether the destination is met by mutual TLS.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.listed.as_ref().is_some_and(|listed| listed.mode == "mtls")
    }

    /// It stands nowhere, and is served in plaintext for that. Nothing was dialled.
    #[must_use]
    pub fn is_plain_by_default(&self) -> bool {
        self.outcome == "unlisted" && self.default_outbound == "plaintext"
    }

    /// Whatever answered spoke no TLS.
    #[must_use]
    pub fn is_without_handshake(&self) -> bool {
        matches!(
            self.outcome.as_str(),
            "no_tls" | "handshake_slow" | "closed" | "reset"
        )
    }
}

/// A destination in a proxy's configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Listed {
    /// Where it stands, as in `outbound[0]`.
    pub by: String,
    /// Who is dialled.
    pub upstream: String,
    /// `mtls` or `plaintext`.
    pub mode: String,
    /// The identities of which it must prove one.
    pub expected: Vec<String>,
    /// `http` or `tcp`.
    pub protocol: String,
}

/// What was settled on, and who was there.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TlsFacts {
    /// `TLSv1_3` or `TLSv1_2`.
    pub version: Option<String>,
    /// The cipher suite.
    pub cipher: Option<String>,
    /// The protocol of ALPN.
    pub alpn: Option<String>,
    /// The SPIFFE ID of the leaf.
    pub presented: Option<String>,
    /// What was presented, leaf first.
    pub chain: Vec<Link>,
}

/// One certificate of a chain.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Link {
    /// Its subject; empty for a leaf.
    pub subject: String,
    /// Its names.
    #[serde(default)]
    pub names: Vec<String>,
    /// Who signed it, by its own word.
    pub issuer: String,
    /// The same as the asking proxy knows it; nothing for a stranger.
    pub signed_by: Option<String>,
    /// Serial number.
    pub serial: String,
    /// First valid second.
    pub not_before: Moment,
    /// Last valid second.
    pub not_after: Moment,
    /// Whether it is valid now, by the proxy's clock.
    pub valid: bool,
}

/// `POST /decision`. Never printed: it may hold a token.
#[derive(Clone, Serialize)]
pub struct Question {
    /// What the caller dials.
    pub destination: SocketAddr,
    /// Where the caller calls from.
    pub source: SocketAddr,
    /// The chain that it presents; nothing for plaintext.
    pub chain_pem: Option<String>,
    /// The request, for ports that speak HTTP.
    pub request: AskedRequest,
}

/// A request. Never printed: it may hold a token.
#[derive(Clone, Serialize)]
pub struct AskedRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `:authority` or `Host`.
    pub host: String,
    /// The other headers.
    pub headers: Vec<(String, String)>,
    /// Its token.
    #[serde(serialize_with = "expose")]
    pub token: Option<Zeroizing<String>>,
}

/// To the proxy that is to judge it, over its admin socket.
fn expose<S: serde::Serializer>(token: &Option<Zeroizing<String>>, to: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(|token| token.as_str()).serialize(to)
}

/// What a proxy would do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Decided {
    /// Who it is.
    pub spiffe_id: Option<String>,
    /// The workload's port, as policies mean it.
    pub port: u16,
    /// `http` or `tcp`.
    pub protocol: String,
    /// Where the workload listens.
    pub application: String,
    /// `STRICT`, `PERMISSIVE` or `DISABLE`; nothing before the first policies.
    pub mode: Option<String>,
    /// The object that says so.
    pub mode_by: Option<String>,
    /// Version of the policies.
    pub version: Option<String>,
    /// Who the caller is to policies.
    pub caller: Option<String>,
    /// The steps that were taken.
    pub steps: Vec<Step>,
    /// What every policy says.
    pub votes: Vec<Vote>,
}

impl Decided {
    /// The step of this name, if it got there.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.step == name)
    }
}

impl Step {
    /// Whether the request ends here.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.outcome == "refused"
    }
}

/// One step.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Step {
    /// `mode`, `certificate`, `request`, `token`, `policy` or `application`.
    pub step: String,
    /// `ok`, `refused` or `depends`.
    pub outcome: String,
    /// The word of the access record, for a refusal.
    pub reason: Option<String>,
    /// A sentence.
    pub sentence: String,
    /// The status that the caller gets; nothing for a reset.
    pub status: Option<u16>,
    /// The policy that decided.
    pub policy: Option<String>,
}

/// What one policy says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Vote {
    /// The policy.
    pub policy: String,
    /// Its action.
    pub action: String,
    /// It decides nothing.
    pub dry_run: bool,
    /// `matches`, `does_not_match` or `unreadable`.
    pub says: String,
    /// Why.
    pub because: Vec<String>,
}
