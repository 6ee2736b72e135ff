//! `MintJwtSvid` in the five steps of `CreateCertificate`: receive, authenticate, authorize, mint,
//! respond. Who may have which identity is decided by the same gate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use signet_certs::JwtSvid;
use signet_certs::jwt::{JwtError, JwtProfile};
use signet_policy::IssuancePermit;
use signet_policy::issuance::Asked;
use signet_proto::mint::{MintRequest, MintRequestError, read, respond_in_frame};
use signet_runtime::Clock;
use tokio::time::Instant;
use tonic::Status;

use crate::audit::Audit;
use crate::authn::{AuthnError, Presented};
use crate::authorizer::{AuthorizeError, Gate};
use crate::config::Config;
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::serve::MessageError;
use crate::service::{pushback, unauthenticated, unauthorized};
use crate::slots::Slots;

/// Why a request was not answered with a token: one variant per step.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unreadable(#[from] MessageError),
    #[error("not answered in time")]
    Late,
    #[error(transparent)]
    Malformed(#[from] MintRequestError),
    #[error("too many requests under way")]
    Overloaded,
    #[error(transparent)]
    Unauthenticated(#[from] AuthnError),
    #[error(transparent)]
    Unauthorized(#[from] AuthorizeError),
    #[error("no JWT authority is in force")]
    NoAuthority,
    #[error(transparent)]
    Mint(#[from] JwtError),
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
            Self::NoAuthority => "no_authority",
            Self::Mint(_) => "mint_failed",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Unreadable(e) => e.status(),
            Self::Late => Status::deadline_exceeded("the call was not finished in time"),
            Self::Malformed(e) => Status::invalid_argument(e.to_string()),
            Self::Overloaded => pushback("the CA is busy; try again shortly"),
            Self::Unauthenticated(e) => unauthenticated(e),
            Self::Unauthorized(e) => unauthorized(e),
            Self::NoAuthority => {
                Status::unavailable("the CA has no key for JWT-SVIDs in force yet; try again")
            }
            Self::Mint(_) => Status::internal("the token could not be made; the CA's log tells why"),
        }
    }

    /// Whether its caller is known, and it has its record already.
    fn is_recorded(&self) -> bool {
        !matches!(
            self,
            Self::Unreadable(_)
                | Self::Late
                | Self::Malformed(_)
                | Self::Overloaded
                | Self::Unauthenticated(_)
        )
    }
}

/// The service.
pub struct Minting {
    gate: Gate,
    slots: Slots,
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    audit: Audit,
    metrics: Metrics,
    under_way: Arc<AtomicUsize>,
}

impl Minting {
    /// Puts it together.
    #[must_use]
    pub fn new(
        gate: Gate,
        slots: Slots,
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            gate,
            slots,
            audit: Audit::new(config.logs.0, metrics.clone()),
            config,
            clock,
            metrics,
            under_way: Arc::default(),
        }
    }

    /// Answers one call, counts and records it.
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn mint(&self, headers: &HeaderMap, message: Bytes, peer: &Peer) -> Result<Bytes, Status> {
        let started = Instant::now();
        let answer = self.answer(headers, message, peer, started).await;
        let metrics = &self.metrics.trust;
        metrics.jwt_seconds.observe(started.elapsed().as_secs_f64());
        match answer {
            Ok(message) => {
                Metrics::count(&metrics.jwt_svids, "issued");
                Ok(message)
            }
            Err(refusal) => Err(self.refuse(&refusal, peer)),
        }
    }

    /// A request whose message could not be read.
    pub fn unreadable(&self, error: MessageError, peer: &Peer) -> Status {
        self.refuse(&Refusal::Unreadable(error), peer)
    }

    /// A call that was not answered in time.
    pub fn late(&self, peer: &Peer) -> Status {
        self.refuse(&Refusal::Late, peer)
    }

    /// Counts a refusal, and records it unless that is done.
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Status {
        let outcome = refusal.as_str();
        Metrics::count(&self.metrics.trust.jwt_svids, outcome);
        if !refusal.is_recorded() {
            self.audit
                .mint_stranger(outcome, refusal, peer.address, self.clock.now());
        }
        refusal.status()
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
        let caller = authenticator
            .authenticate(token.as_ref(), peer.ip(), &peer.recent)
            .await?;
        let permit = self
            .gate
            .authorizer
            .authorize(
                &caller,
                Asked {
                    impersonated: asked.impersonated.as_deref(),
                    certificate: peer.certificate.as_ref(),
                },
            )
            .await;
        let minted = permit
            .map_err(Refusal::from)
            .and_then(|permit| self.sign(&permit, asked));
        match &minted {
            Ok(svid) => self.audit.minted(&caller, svid, peer.address, started.elapsed()),
            Err(refusal) => self
                .audit
                .mint_refused(&caller, refusal.as_str(), refusal, peer.address),
        }
        minted.map(|svid| respond_in_frame(&svid))
    }

    /// The name comes from the permit alone.
    fn sign(&self, permit: &IssuancePermit, asked: MintRequest) -> Result<JwtSvid, Refusal> {
        let snapshot = self.slots.current();
        let authority = snapshot.jwt.as_ref().ok_or(Refusal::NoAuthority)?;
        let settings = &self.config.trust.jwt;
        let profile = JwtProfile {
            id: permit.id().clone(),
            audience: asked.audience,
            ttl: settings.ttl.clamp(asked.validity_seconds),
            issuer: settings.issuer.clone(),
        };
        Ok(authority.mint(&profile, self.clock.now())?)
    }

    /// A place among the bounded number of requests under way, given back on drop.
    fn place(&self) -> Result<Place, Refusal> {
        let place = Place(Arc::clone(&self.under_way));
        let before = self.under_way.fetch_add(1, Ordering::AcqRel);
        if before >= self.config.limits.requests {
            Err(Refusal::Overloaded)
        } else {
            Ok(place)
        }
    }
}

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::claims::ClaimsFault;
    use signet_policy::Denied;
    use tonic::Code;

    #[test]
    fn each_refusal_has_the_code_its_callers_act_on_and_tells_strangers_nothing() {
        let impersonation = Denied::ImpersonationDisabled {
            requested: "spiffe://cluster.local/ns/secret/sa/name".into(),
            own: "spiffe://cluster.local/ns/a/sa/b".parse().unwrap(),
        };
        let table: Vec<(Refusal, Code)> = vec![
            (MintRequestError::IdTooLong(9_000).into(), Code::InvalidArgument),
            (Refusal::Overloaded, Code::ResourceExhausted),
            (AuthnError::NoToken.into(), Code::Unauthenticated),
            (
                AuthnError::Claims(ClaimsFault::Expired(77)).into(),
                Code::Unauthenticated,
            ),
            (AuthnError::Unavailable("away".into()).into(), Code::Unavailable),
            (AuthorizeError::from(impersonation).into(), Code::Unauthenticated),
            (Refusal::NoAuthority, Code::Unavailable),
            (JwtError::Signature.into(), Code::Internal),
        ];
        for (refusal, code) in table {
            let status = refusal.status();
            assert_eq!(status.code(), code, "{refusal}");
            assert!(!status.message().contains("77") && !status.message().contains("secret"));
        }
    }
}
