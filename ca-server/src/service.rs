//! `CreateCertificate` in five steps, each handing one typed value to the next: receive, authenticate,
//! authorize, issue, respond.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signet_certs::csr::CsrError;
use signet_certs::issue::IssueError;
use signet_certs::lifetime::TtlBounds;
use signet_certs::{Authority, Csr, LeafProfile, SpiffeId, SvidChain, issue};
use signet_policy::issuance::Asked;
use signet_policy::{Caller, Denied, IssuancePermit};
use signet_proto::issue::{IssueRequest, IssueRequestError, parse, respond};
use signet_proto::wire::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use signet_proto::wire::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use signet_runtime::Clock;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

use crate::audit::Audit;
use crate::authn::{AuthnError, BearerToken};
use crate::authorizer::{AuthorizeError, Gate};
use crate::config::Config;
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::pod_lookup::LookupError;
use crate::slots::Slots;

/// Callers that are told to come back are told to wait this long, spread by their own backoff.
const PUSHBACK: Duration = Duration::from_millis(500);

/// Why a request was not answered with a chain: one variant per step.
#[derive(Debug, thiserror::Error)]
enum Refusal {
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

    /// What a stranger is told: a code, and a sentence that helps its owner without telling secrets.
    fn status(&self) -> Status {
        match self {
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
    audit: Audit,
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
        let audit = Audit::new(metrics.clone());
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

    async fn answer(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<IstioCertificateResponse, Refusal> {
        let started = Instant::now();
        let _place = self.place()?;
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let token = BearerToken::from_metadata(request.metadata());
        let asked = parse(request.into_inner())?;
        let caller = self
            .gate
            .authenticator
            .authenticate(token.as_ref(), peer.ip())
            .await?;
        let permit = self.authorize(&caller, &asked, peer.certificate.as_ref()).await;
        // The roots answered are those that this issuing authority was verified against (I6).
        let snapshot = self.slots.current();
        let issued = permit.and_then(|permit| self.issue(&permit, &asked, &snapshot.issuing));
        match issued {
            Ok((csr, chain)) => {
                self.audit
                    .issued(&caller, &chain, csr.hash(), peer.address, started.elapsed());
                Ok(respond(&chain, &snapshot.bundle))
            }
            Err(refusal) => {
                self.audit
                    .refused(&caller, refusal.as_str(), &refusal, peer.address);
                Err(refusal)
            }
        }
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
            metrics: self.metrics.clone(),
        };
        let before = self.under_way.fetch_add(1, Ordering::AcqRel);
        self.metrics.requests_in_flight.inc();
        if before >= self.config.limits.requests {
            Err(Refusal::Overloaded)
        } else {
            Ok(place)
        }
    }
}

struct Place {
    under_way: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        self.metrics.requests_in_flight.dec();
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

#[tonic::async_trait]
impl IstioCertificateService for Issuing {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let started = Instant::now();
        let peer: Option<SocketAddr> = request.extensions().get::<Peer>().and_then(|p| p.address);
        let answer = self.answer(request).await;
        self.metrics.csr_seconds.observe(started.elapsed().as_secs_f64());
        let outcome = answer.as_ref().map_or_else(Refusal::as_str, |_| "issued");
        Metrics::count(&self.metrics.csrs, outcome);
        answer.map(Response::new).map_err(|refusal| {
            // Refusals of authenticated callers have their record already.
            if matches!(
                refusal,
                Refusal::Malformed(_) | Refusal::Overloaded | Refusal::Unauthenticated(_)
            ) {
                self.audit
                    .stranger(refusal.as_str(), &refusal, peer, self.clock.now());
            }
            refusal.status()
        })
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
