//! The records of JWT-SVIDs. The token itself is never in one.

use std::net::SocketAddr;
use std::time::Duration;

use signet_certs::{JwtSvid, UnixTime};
use signet_policy::Caller;
use signet_runtime::clock::rfc3339;

use super::Audit;

impl Audit {
    /// A token was minted.
    pub fn minted(&self, caller: &Caller, svid: &JwtSvid, peer: Option<SocketAddr>, elapsed: Duration) {
        tracing::info!(
            target: "audit",
            outcome = "issued",
            spiffe_id = %svid.id(),
            %caller,
            audience = ?svid.audience(),
            kid = svid.kid(),
            not_after = rfc3339(svid.expires_at()),
            peer.addr = peer.map(tracing::field::display),
            elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "jwt request answered"
        );
    }

    /// An authenticated caller was refused a token.
    pub fn mint_refused(
        &self,
        caller: &Caller,
        reason: &str,
        error: &dyn std::fmt::Display,
        peer: Option<SocketAddr>,
    ) {
        tracing::warn!(
            target: "audit",
            outcome = "refused",
            %caller,
            reason,
            %error,
            peer.addr = peer.map(tracing::field::display),
            "jwt request answered"
        );
    }

    /// Somebody who did not authenticate was refused a token; within the bound of [`Audit::stranger`].
    pub fn mint_stranger(
        &self,
        reason: &str,
        error: &dyn std::fmt::Display,
        peer: Option<SocketAddr>,
        now: UnixTime,
    ) {
        if !self.admit(now) {
            self.metrics.audit_suppressed.inc();
            return;
        }
        tracing::warn!(
            target: "audit",
            outcome = "refused",
            reason,
            %error,
            peer.addr = peer.map(tracing::field::display),
            "jwt request answered"
        );
    }
}
