//! One record per issuance and per refusal, as a log event with target `audit`.
//!
//! Refusals before authentication can be caused by anyone who reaches the port, so their records are
//! written at a bounded rate; the metrics count every one of them.

mod jwt;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use signet_certs::{SvidChain, UnixTime};
use signet_policy::Caller;
use signet_runtime::clock::rfc3339;

use crate::metrics::Metrics;

/// Records per second about callers that did not authenticate.
const STRANGERS_PER_SECOND: u64 = 20;

/// Writes the audit trail.
#[derive(Debug)]
pub struct Audit {
    metrics: Metrics,
    window: Mutex<(UnixTime, u64)>,
}

impl Audit {
    /// An empty trail.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            window: Mutex::new((UnixTime::since_unix_epoch(Duration::ZERO), 0)),
        }
    }

    /// A chain was issued.
    pub fn issued(
        &self,
        caller: &Caller,
        chain: &SvidChain,
        csr_hash: &str,
        peer: Option<SocketAddr>,
        elapsed: Duration,
    ) {
        let leaf = chain.leaf();
        tracing::info!(
            target: "audit",
            outcome = "issued",
            spiffe_id = %chain.id(),
            %caller,
            serial = %chain.serial(),
            authority_id = leaf.authority_key_id().unwrap_or_default(),
            not_after = rfc3339(leaf.not_after()),
            csr_sha256 = csr_hash,
            peer.addr = peer.map(tracing::field::display),
            elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "csr answered"
        );
    }

    /// An authenticated caller was refused.
    pub fn refused(
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
            "csr answered"
        );
    }

    /// Somebody who did not authenticate was refused.
    pub fn stranger(
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
            "csr answered"
        );
    }

    fn admit(&self, now: UnixTime) -> bool {
        let mut window = self
            .window
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if window.0 != now {
            *window = (now, 0);
        }
        window.1 += 1;
        window.1 <= STRANGERS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[test]
    fn strangers_are_recorded_at_a_bounded_rate_and_the_rest_is_counted() {
        let metrics = Metrics::new(&mut Registry::default());
        let audit = Audit::new(metrics.clone());
        let at = |second: u64| UnixTime::since_unix_epoch(Duration::from_secs(second));
        for second in [1_000, 1_001, 1_060, 1_059] {
            let before = metrics.audit_suppressed.get();
            for number in 0..100 {
                audit.stranger("no_token", &"no token", None, at(second));
                let suppressed = metrics.audit_suppressed.get() - before;
                assert_eq!(
                    suppressed,
                    (number + 1_u64).saturating_sub(STRANGERS_PER_SECOND),
                    "after {number} in second {second}"
                );
            }
        }
        assert_eq!(metrics.audit_suppressed.get(), 4 * (100 - STRANGERS_PER_SECOND));
    }
}
