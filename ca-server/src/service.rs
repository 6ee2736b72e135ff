//! `CreateCertificate` in five steps, each handing one typed value to the next: receive, authenticate,
//! authorize, issue, respond.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use prometheus_client::metrics::gauge::Gauge;
use signet_certs::csr::CsrError;
use signet_certs::issue::IssueError;
use signet_certs::lifetime::TtlBounds;
use signet_certs::{Authority, Csr, LeafProfile, SpiffeId, SvidChain, issue};
use signet_policy::issuance::Asked;
use signet_policy::{Caller, Denied, IssuancePermit};
use signet_proto::issue::{IssueRequest, IssueRequestError, read, respond_in_frame};
use signet_runtime::Clock;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::audit::{Audit, Record};
use crate::authn::{AuthnError, Presented};
use crate::authorizer::{AuthorizeError, Gate};
use crate::config::Config;
use crate::gather::Records;
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::pod_lookup::LookupError;
use crate::serve::MessageError;
use crate::slots::Slots;

/// Callers that are told to come back are told to wait this long, spread by their own backoff.
const PUSHBACK: Duration = Duration::from_millis(500);

/// Why a request was not answered with a chain: one variant per step.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unreadable(#[from] MessageError),
    #[error("not answered in time")]
    Late,
    #[error(transparent)]
    Malformed(#[from] IssueRequestError),
    #[error("too many requests under way")]
    Overloaded,
    #[error(transparent)]
    Unauthenticated(#[from] AuthnError),
    #[error(transparent)]
    Unauthorized(#[from] AuthorizeError),
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Refusal {
    /// A stable word for metrics and audit.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Unreadable(e) => e.as_str(),
            Self::Late => "deadline",
            Self::Malformed(_) => "malformed",
            Self::Overloaded => "overloaded",
            Self::Unauthenticated(e) => e.as_str(),
            Self::Unauthorized(e) => e.as_str(),
            Self::Csr(CsrError::OtherName { .. }) => "csr_other_name",
            Self::Csr(_) => "csr_malformed",
            Self::Issue(e) if e.is_transient() => "issuer_ending",
            Self::Issue(_) => "issue_failed",
        }
    }

    /// Whether it came before the caller was known.
    fn is_of_a_stranger(&self) -> bool {
        matches!(
            self,
            Self::Unreadable(_)
                | Self::Late
                | Self::Malformed(_)
                | Self::Overloaded
                | Self::Unauthenticated(_)
        )
    }

    /// What a stranger is told: a code, and a sentence that helps its owner without telling secrets.
    fn status(&self) -> Status {
        match self {
            Self::Unreadable(e) => e.status(),
            Self::Late => Status::deadline_exceeded("the call was not finished in time"),
            Self::Malformed(e) => Status::invalid_argument(e.to_string()),
            Self::Csr(e) => Status::invalid_argument(e.to_string()),
            Self::Overloaded => pushback("the CA is busy; try again shortly"),
            Self::Unauthenticated(e) => unauthenticated(e),
            Self::Unauthorized(e) => unauthorized(e),
            Self::Issue(e) if e.is_transient() => {
                Status::unavailable("the issuing authority is about to be replaced; try again")
            }
            Self::Issue(_) => Status::internal("the certificate could not be made; the CA's log tells why"),
        }
    }
}

/// What somebody who did not authenticate is told: nothing of why the token failed.
pub(crate) fn unauthenticated(error: &AuthnError) -> Status {
    match error {
        AuthnError::Overloaded => pushback("the CA is busy; try again shortly"),
        AuthnError::Unavailable(_) => {
            Status::unavailable("the API server cannot be asked about the token; try again")
        }
        _ => Status::unauthenticated(
            "request authenticate failure: the token was not accepted; `signet token check` tells why",
        ),
    }
}

/// A node that is refused learns that it was, not why: the reasons tell what runs elsewhere.
pub(crate) fn unauthorized(error: &AuthorizeError) -> Status {
    match error {
        AuthorizeError::Denied(Denied::ImpersonationDisabled { .. }) => {
            Status::unauthenticated("impersonation is not enabled on this CA; ask for your own identity")
        }
        AuthorizeError::Denied(Denied::CertificateDisagrees { .. }) => {
            Status::unauthenticated("client certificate and token name different identities")
        }
        AuthorizeError::Denied(_) => Status::unauthenticated(
            "request impersonation authentication failure: not an identity for this node; the CA's log tells why",
        ),
        AuthorizeError::Lookup(LookupError::Unavailable(_)) => {
            Status::unavailable("the API server cannot be asked what runs on this node; try again")
        }
        AuthorizeError::Lookup(_) => pushback("the CA has asked too much about this node; try again shortly"),
    }
}

/// `RESOURCE_EXHAUSTED` with the hint gRPC clients honour (gRFC A6).
pub(crate) fn pushback(text: &str) -> Status {
    let mut status = Status::new(Code::ResourceExhausted, text);
    let hint = MetadataValue::from(u64::try_from(PUSHBACK.as_millis()).unwrap_or(1_000));
    status.metadata_mut().insert("grpc-retry-pushback-ms", hint);
    status
}

/// The service.
pub struct Issuing {
    gate: Gate,
    slots: Slots,
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    audit: Arc<Audit>,
    metrics: Metrics,
    under_way: Arc<AtomicUsize>,
}

impl Issuing {
    /// Puts it together.
    #[must_use]
    pub fn new(
        gate: Gate,
        slots: Slots,
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let audit = Arc::new(Audit::new(config.logs.0, metrics.clone()));
        Self {
            gate,
            slots,
            config,
            clock,
            audit,
            metrics,
            under_way: Arc::default(),
        }
    }

    /// One call of `CreateCertificate`: the message that answers, which may leave once
    /// [`Issuing::records`] are written.
    ///
    /// # Errors
    /// What the caller is told; it is counted and recorded.
    pub async fn create(&self, headers: &HeaderMap, message: Bytes, peer: &Peer) -> Result<Bytes, Status> {
        let started = Instant::now();
        let answer = self.answer(headers, message, peer, started).await;
        self.metrics.csr_seconds.observe(started.elapsed().as_secs_f64());
        match answer {
            Ok(message) => {
                Metrics::count(&self.metrics.csrs, "issued");
                Ok(message)
            }
            Err(refusal) => Err(self.refuse(&refusal, peer)),
        }
    }

    async fn answer(
        &self,
        headers: &HeaderMap,
        message: Bytes,
        peer: &Peer,
        started: Instant,
    ) -> Result<Bytes, Refusal> {
        let _place = self.place()?;
        let token = Presented::from_headers(headers);
        let asked = read(message)?;
        let authenticator = &self.gate.authenticator;
        let caller = authenticator.authenticate(token.as_ref(), peer.ip()).await?;
        let permit = self.authorize(&caller, &asked, peer.certificate.as_ref()).await;
        // The roots answered are those that this issuing authority was verified against (I6).
        let snapshot = self.slots.current();
        let issued = permit.and_then(|permit| self.issue(&permit, &asked, &snapshot.issuing));
        match issued {
            Ok((csr, chain)) => {
                let answer = respond_in_frame(&chain, &snapshot.bundle);
                self.audit.issued(&Record {
                    caller,
                    chain,
                    csr_hash: csr.into_hash(),
                    peer: peer.address,
                    elapsed: started.elapsed(),
                });
                Ok(answer)
            }
            Err(refusal) => {
                self.audit
                    .refused(&caller, refusal.as_str(), &refusal, peer.address);
                Err(refusal)
            }
        }
    }

    /// The records of what was issued, to be written before any answer leaves.
    #[must_use]
    pub fn records(&self) -> Arc<dyn Records> {
        Arc::clone(&self.audit) as Arc<dyn Records>
    }

    /// A request whose message could not be read.
    pub fn unreadable(&self, error: MessageError, peer: &Peer) -> Status {
        self.refuse(&Refusal::Unreadable(error), peer)
    }

    /// A call that was not answered in time.
    pub fn late(&self, peer: &Peer) -> Status {
        self.refuse(&Refusal::Late, peer)
    }

    /// Counts a refusal, and records it unless that is done: refusals of authenticated callers are
    /// recorded where the caller is known.
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Status {
        Metrics::count(&self.metrics.csrs, refusal.as_str());
        if refusal.is_of_a_stranger() {
            self.audit
                .stranger(refusal.as_str(), refusal, peer.address, self.clock.now());
        }
        refusal.status()
    }

    /// Step 3. Only impersonation may have to wait, for a lookup.
    async fn authorize(
        &self,
        caller: &Caller,
        asked: &IssueRequest,
        certificate: Option<&SpiffeId>,
    ) -> Result<IssuancePermit, Refusal> {
        let asked = Asked {
            impersonated: asked.impersonated.as_deref(),
            certificate,
        };
        Ok(self.gate.authorizer.authorize(caller, asked).await?)
    }

    /// Step 4. The CSR is read only now: proving possession costs more than anything before it.
    fn issue(
        &self,
        permit: &IssuancePermit,
        asked: &IssueRequest,
        issuing: &Authority,
    ) -> Result<(Csr, SvidChain), Refusal> {
        let csr = Csr::from_pem(&asked.csr)?;
        csr.check_names(permit.id())?;
        let bounds = self.config.lifetimes.svid;
        let dns = self.config.extra_dns.get(permit.account());
        let profile = profile(permit, asked.validity_seconds, bounds, dns);
        let chain = issue(&profile, csr.public_key(), issuing, self.clock.now())?;
        Ok((csr, chain))
    }

    /// A place among the bounded number of requests under way, given back on drop.
    fn place(&self) -> Result<Place, Refusal> {
        let place = Place {
            under_way: Arc::clone(&self.under_way),
            gauge: self.metrics.requests_in_flight.clone(),
        };
        let before = self.under_way.fetch_add(1, Ordering::AcqRel);
        place.gauge.inc();
        if before >= self.config.limits.requests {
            Err(Refusal::Overloaded)
        } else {
            Ok(place)
        }
    }
}

struct Place {
    under_way: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        self.gauge.dec();
    }
}

/// The leaf a permit stands for. Every name in it comes from the permit or the configuration.
fn profile(
    permit: &IssuancePermit,
    seconds: i64,
    bounds: TtlBounds,
    dns: Option<&Vec<String>>,
) -> LeafProfile {
    LeafProfile {
        id: permit.id().clone(),
        ttl: bounds.clamp(seconds),
        min_left: bounds.min,
        dns: dns.cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::claims::ClaimsFault;
    use signet_policy::NodeDenied;

    #[test]
    fn each_refusal_has_the_code_its_callers_act_on() {
        let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        let other = CsrError::OtherName {
            asked: "spiffe://cluster.local/ns/a/sa/c".into(),
            permitted: id.clone(),
        };
        let ending = IssueError::IssuerEnding {
            authority: "aa".into(),
            left_seconds: 3,
        };
        let impersonation = Denied::ImpersonationDisabled {
            requested: "x".into(),
            own: id,
        };
        let table: Vec<(Refusal, Code)> = vec![
            (IssueRequestError::NoCsr.into(), Code::InvalidArgument),
            (CsrError::UnprovenKey.into(), Code::InvalidArgument),
            (other.into(), Code::InvalidArgument),
            (AuthnError::NoToken.into(), Code::Unauthenticated),
            (
                AuthnError::Claims(ClaimsFault::Expired(1)).into(),
                Code::Unauthenticated,
            ),
            (AuthnError::Unavailable("away".into()).into(), Code::Unavailable),
            (AuthnError::Overloaded.into(), Code::ResourceExhausted),
            (Refusal::Overloaded, Code::ResourceExhausted),
            (MessageError::NotOne.into(), Code::InvalidArgument),
            (MessageError::TooLarge(1).into(), Code::OutOfRange),
            (MessageError::Compressed.into(), Code::Unimplemented),
            (Refusal::Late, Code::DeadlineExceeded),
            (AuthorizeError::from(impersonation).into(), Code::Unauthenticated),
            (
                AuthorizeError::from(LookupError::Unavailable("away".into())).into(),
                Code::Unavailable,
            ),
            (
                AuthorizeError::from(LookupError::CallerShare).into(),
                Code::ResourceExhausted,
            ),
            (ending.into(), Code::Unavailable),
            (IssueError::Profile("id".into()).into(), Code::Internal),
        ];
        for (refusal, code) in table {
            assert_eq!(refusal.status().code(), code, "{refusal}");
        }
    }

    #[test]
    fn an_overloaded_ca_says_when_to_come_back() {
        let status = Refusal::Overloaded.status();
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "500");
    }

    #[test]
    fn a_node_is_not_told_what_runs_elsewhere() {
        let denied = Denied::from(NodeDenied::PodReplaced {
            pod: "signet-system/agent".into(),
            token: "u1".into(),
            now: "u2".into(),
        });
        let status = Refusal::from(AuthorizeError::from(denied)).status();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(!status.message().contains("u2"), "{status}");
    }

    #[test]
    fn strangers_are_not_told_why_their_token_failed() {
        let text = Refusal::from(AuthnError::Claims(ClaimsFault::Expired(77)))
            .status()
            .message()
            .to_owned();
        assert!(!text.contains("77") && !text.contains("expired"), "{text}");
    }
}
