//! Who the caller is. A service-account token passes, in this order and cheapest first: its shape and
//! claims, its signature by the API server's published keys, the cache, a TokenReview.
//!
//! Only here does a [`Caller`] come into being.

pub mod cache;
pub mod claims;
pub mod jwks;
pub mod recent;
pub mod review;
pub mod token;

use std::net::IpAddr;
use std::sync::Arc;

use signet_certs::UnixTime;
use signet_policy::Caller;
use signet_runtime::Clock;

use crate::metrics::Metrics;
use cache::TokenCache;
use claims::ClaimsFault;
use jwks::{Jwks, Signature};
pub use recent::Recent;
use review::{ReviewFault, Reviewer};
pub use token::{BearerToken, Presented};

/// Why a caller is not authenticated. The text is for audit and log; strangers are told less.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthnError {
    /// No `authorization: Bearer` header.
    #[error("no bearer token; send the projected service-account token as \"authorization: Bearer <token>\"")]
    NoToken,
    /// The token cannot pass, by what it says itself.
    #[error("token {0}")]
    Claims(#[from] ClaimsFault),
    /// The signature is not by a key the API server publishes.
    #[error("token is not signed by a key of this cluster's API server")]
    Signature,
    /// The API server said no.
    #[error("token review: {0}")]
    Refused(ReviewFault),
    /// The API server could not be asked.
    #[error("token review is unavailable: {0}")]
    Unavailable(String),
    /// Too many reviews under way, in all or for this peer.
    #[error("too many token reviews under way")]
    Overloaded,
}

impl AuthnError {
    /// A stable word for metrics and audit.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Claims(fault) => fault.as_str(),
            Self::Signature => "bad_signature",
            Self::Refused(fault) => fault.as_str(),
            Self::Unavailable(_) => "review_unavailable",
            Self::Overloaded => "overloaded",
        }
    }

    /// Whether the same token may pass later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Overloaded)
    }
}

/// Authenticates callers. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    audiences: Arc<[String]>,
    jwks: Jwks,
    cache: TokenCache,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Authenticator {
    /// Puts the steps together.
    #[must_use]
    pub fn new(
        audiences: &[String],
        jwks: Jwks,
        reviewer: Reviewer,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            audiences: audiences.into(),
            jwks,
            cache: TokenCache::new(reviewer, Arc::clone(&clock), metrics.clone()),
            clock,
            metrics,
        }
    }

    /// Says who holds `token`. `peer` shares the reviews fairly; it proves nothing. `recent` belongs to the connection
    /// that the token came by.
    ///
    /// # Errors
    /// An [`AuthnError`], counted.
    pub async fn authenticate(
        &self,
        token: Option<&Presented<'_>>,
        peer: Option<IpAddr>,
        recent: &Recent,
    ) -> Result<Caller, AuthnError> {
        let answer = match token {
            Some(token) => self.known_or_new(token, peer, recent).await,
            None => Err(AuthnError::NoToken),
        };
        match &answer {
            Ok(_) => {
                self.metrics.usual.authenticated.inc();
            }
            Err(error) => Metrics::count(&self.metrics.authentications, error.as_str()),
        }
        answer
    }

    async fn known_or_new(
        &self,
        token: &Presented<'_>,
        peer: Option<IpAddr>,
        recent: &Recent,
    ) -> Result<Caller, AuthnError> {
        let now = self.clock.now();
        // A kept answer has passed every step of a new one, and ends no later than its token.
        if let Some(caller) = recent.get(token, now) {
            self.cache.count_hit();
            return Ok(caller);
        }
        if let Some(answer) = self.cache.get(token.hash(), now).await {
            let (caller, until) = answer?;
            recent.keep(token, &caller, until);
            return Ok(caller);
        }
        let token = token.to_token().ok_or(AuthnError::NoToken)?;
        // Few calls come here: the rest of them need not carry its state along.
        Box::pin(self.review_anew(&token, peer, now)).await
    }

    async fn review_anew(
        &self,
        token: &BearerToken,
        peer: Option<IpAddr>,
        now: UnixTime,
    ) -> Result<Caller, AuthnError> {
        let claims = claims::check(token, &self.audiences, now)?;
        if self.jwks.verify(token, &claims, now).await == Signature::Bad {
            return Err(AuthnError::Signature);
        }
        // Others, who did not wait for the keys, may have had it reviewed meanwhile.
        if let Some(answer) = self.cache.get(token.hash(), now).await {
            return answer.map(|(caller, _)| caller);
        }
        self.cache.review(token, &claims, peer).await
    }

    /// What [`Authenticator::authenticate`] says, with the token's own claims for explaining.
    pub async fn explain(&self, token: &BearerToken) -> (Option<claims::Claims>, Result<Caller, AuthnError>) {
        let now = self.clock.now();
        let answer = match self.cache.get(token.hash(), now).await {
            Some(answer) => answer.map(|(caller, _)| caller),
            None => self.review_anew(token, None, now).await,
        };
        (claims::read(token).ok(), answer)
    }

    /// Whether the API server answers reviews at all: the condition of readiness.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn probe(&self) -> Result<(), AuthnError> {
        self.cache.reviewer().probe().await
    }

    /// The audiences accepted.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Now, by the clock that judges tokens.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }
}
