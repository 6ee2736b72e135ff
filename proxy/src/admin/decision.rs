//! What this proxy would do with a connection and a request, step by step in the order of a real one, by what is in
//! force at this moment: the same functions judge it. Nobody is asked who is not part of this process: tokens are judged
//! by the keys at hand, and where a real request would have newer ones fetched it is said so. Nothing is dialled but the
//! application, at a configured upstream or behind our own redirection, and it gets a connection that ends at once.

mod port;
mod request;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use signet_certs::certificate::Certificate;
use signet_certs::tls::BundleSource as _;
use signet_certs::verify::{Role, verify_peer_until};
use signet_policy::model::Mode;
use tokio::net::TcpStream;

use super::{Pages, patience};
use crate::access_log::{Identity, Policy, Reason, Tls};
use crate::connection::{Accepted, Direction, Peer, Security};
use crate::enforced::Enforced;
use crate::inbound::Port;
use crate::shared::Shared;
pub(super) use request::Asked;

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// What the caller dials.
    pub(super) destination: SocketAddr,
    /// Where the caller calls from.
    source: SocketAddr,
    /// The chain that the caller presents, PEM, leaf first; nothing for plaintext.
    chain_pem: Option<String>,
    /// The request, for ports that speak HTTP.
    request: Asked,
}

/// What the answer is.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// Who we are.
    spiffe_id: Option<String>,
    /// The workload's port, as policies mean it.
    port: u16,
    /// `http` or `tcp`.
    protocol: &'static str,
    /// Where the workload listens.
    application: String,
    /// What the port asks of its callers.
    mode: Option<&'static str>,
    /// The object that says so; nothing for the default.
    mode_by: Option<String>,
    /// The version of the policies in force.
    version: Option<String>,
    /// Who the caller is to policies.
    caller: Option<String>,
    /// The steps that were taken, in their order; a refusal is the last but for the application.
    steps: Vec<Step>,
    /// What every policy says.
    votes: Vec<Vote>,
}

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// Which.
    pub(super) step: &'static str,
    /// `ok`, `refused` or `depends`.
    pub(super) outcome: &'static str,
    /// The word of the access record, for a refusal.
    pub(super) reason: Option<&'static str>,
    /// A sentence.
    pub(super) sentence: String,
    /// The status that the caller gets; nothing for a reset.
    pub(super) status: Option<u16>,
    /// The policy that decided.
    pub(super) policy: Option<String>,
}

/// What one policy says.
#[derive(Debug, Serialize)]
pub(super) struct Vote {
    pub(super) policy: String,
    pub(super) action: &'static str,
    pub(super) dry_run: bool,
    pub(super) says: &'static str,
    pub(super) because: Vec<String>,
}

/// A step that ends it.
pub(super) type Refused = Box<Step>;

impl Step {
    pub(super) fn ok(step: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            step,
            outcome: "ok",
            reason: None,
            sentence: sentence.into(),
            status: None,
            policy: None,
        }
    }

    /// It is for somebody to say who was not asked.
    pub(super) fn depends(self) -> Self {
        Self {
            outcome: "depends",
            ..self
        }
    }

    pub(super) fn refused(step: &'static str, reason: Reason, sentence: impl Into<String>) -> Refused {
        Box::new(Self {
            outcome: "refused",
            reason: Some(reason.as_str()),
            ..Self::ok(step, sentence)
        })
    }
}

/// The answer; nothing where no listener of ours is at the destination.
pub(super) async fn decide(pages: &Pages, question: Question) -> Option<Answer> {
    let shared = &pages.shared;
    let port = port::at(&shared.config, &pages.listeners, question.destination)?;
    let enforced = shared.policies.current();
    let port = enforced.as_ref().map_or(port, |enforced| port.as_told(enforced));
    let ruling = enforced
        .as_ref()
        .map(|enforced| enforced.in_force.peers.ruling(port.port));
    let own = shared.keys.usable(shared.clock.now());
    let mut answer = Answer {
        spiffe_id: own.map(|own| own.id().to_string()),
        port: port.port,
        protocol: port::word(&port),
        application: port.upstream.to_string(),
        mode: ruling.map(|ruling| ruling.mode.as_str()),
        mode_by: ruling.and_then(|ruling| ruling.by.as_ref().map(ToString::to_string)),
        version: enforced.as_ref().map(|enforced| enforced.version.clone()),
        caller: None,
        steps: Vec::new(),
        votes: Vec::new(),
    };
    let refused = match &enforced {
        Some(enforced) => answer.climb(shared, enforced, (port, question)),
        None => {
            let sentence = "there are no policies yet, and nobody passes before";
            Err(Step::refused("mode", Reason::Policy(Policy::NotReady), sentence))
        }
    };
    if let Err(refused) = refused {
        answer.steps.push(*refused);
    }
    answer.steps.push(application(shared, &port).await);
    Some(answer)
}

impl Answer {
    fn climb(
        &mut self,
        shared: &Arc<Shared>,
        enforced: &Arc<Enforced>,
        (port, question): (Port, Question),
    ) -> Result<(), Refused> {
        let mode = enforced.in_force.peers.mode(port.port);
        self.steps.push(mode_step(mode, question.chain_pem.is_some())?);
        let security = match &question.chain_pem {
            Some(pem) if mode != Mode::Disable => {
                let peer = certificate(shared, pem)?;
                let sentence = format!("its chain leads to a root of ours; it is {}", peer.id);
                self.steps.push(Step::ok("certificate", sentence));
                self.caller = Some(peer.id.to_string());
                Security::Mutual(peer)
            }
            _ => Security::Plaintext,
        };
        let own = shared.keys.usable(shared.clock.now());
        let accepted = Accepted {
            id: 0,
            direction: Direction::Inbound,
            security,
            source: question.source,
            remote: question.source.ip().to_canonical(),
            destination: question.destination,
            port: port.port,
            sni: None,
            alpn: None,
            own_not_after: None,
            own_id: own.map(|own| own.id().clone()),
        };
        let case = request::Case {
            shared,
            enforced,
            accepted: &accepted,
        };
        if self.protocol == "http" {
            case.judge_request(question.request, self)
        } else {
            case.judge_connection(self)
        }
    }

    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn vote(&mut self, votes: Vec<Vote>) {
        self.votes = votes;
    }
}

fn mode_step(mode: Mode, mutual: bool) -> Result<Step, Refused> {
    let sentence = match (mode, mutual) {
        (Mode::Strict, true) => "the port takes mutual TLS only, and the caller speaks it",
        (Mode::Strict, false) => {
            let sentence = "the port takes mutual TLS only, and the caller speaks plaintext";
            return Err(Step::refused(
                "mode",
                Reason::Tls(Tls::PlaintextRefused),
                sentence,
            ));
        }
        (Mode::Permissive, true) => "the port takes both, and the caller speaks mutual TLS",
        (Mode::Permissive, false) => {
            "the port takes both, and the caller speaks plaintext: policies see no identity"
        }
        (Mode::Disable, true) => {
            let sentence =
                "the port meets no TLS (DISABLE), so the caller's handshake reaches the application as it is";
            return Err(Step::refused("mode", Reason::Tls(Tls::Handshake), sentence));
        }
        (Mode::Disable, false) => {
            "the port meets no TLS, and the caller speaks none: policies see no identity"
        }
    };
    Ok(Step::ok("mode", sentence))
}

/// Who the caller is by its chain, as a handshake would find.
fn certificate(shared: &Shared, pem: &str) -> Result<Peer, Refused> {
    let refused = |sentence: String| {
        let reason = Reason::Tls(Tls::CertificateRefused);
        Step::refused("certificate", reason, sentence)
    };
    let now = shared.clock.now();
    if shared.keys.usable(now).is_none() {
        let reason = Reason::Identity(Identity::NoneOfOurs);
        let sentence = "the proxy itself has no SVID to present";
        return Err(Step::refused("certificate", reason, sentence));
    }
    let chain = Certificate::all_from_pem(pem.as_bytes()).map_err(|fault| refused(fault.to_string()))?;
    let chain: Vec<_> = chain.iter().map(|one| one.der().clone()).collect();
    let verified = verify_peer_until(&chain, &shared.keys.bundles(), Role::Client, now);
    let verified =
        verified.map_err(|fault| refused(format!("the caller's certificate is refused: {fault}")))?;
    Ok(Peer {
        id: verified.id,
        leaf_sha256: verified.leaf_sha256,
        not_after: verified.leaf_not_after,
        proof: None,
    })
}

/// Whether the workload listens.
async fn application(shared: &Shared, port: &Port) -> Step {
    let patience = patience(&shared.config);
    let connected = tokio::time::timeout(patience, TcpStream::connect(port.upstream)).await;
    let fault = match connected {
        Ok(Ok(_)) => {
            let sentence = format!("the application listens at {}", port.upstream);
            return Step::ok("application", sentence);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let reason = Reason::Upstream(crate::access_log::Upstream::Connect);
    let sentence = format!("the application at {} cannot be reached: {fault}", port.upstream);
    let mut refused = Step::refused("application", reason, sentence);
    refused.status = (port::word(port) == "http").then_some(503);
    *refused
}
