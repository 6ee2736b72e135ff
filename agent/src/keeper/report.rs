//! What the keeper tells: metrics, log, status, readiness.

use signet_certs::{TrustBundle, UnixTime};
use signet_runtime::clock::rfc3339;
use signet_runtime::http::Readiness;
use tokio::time::Instant;

use super::READY;
use crate::ca_client::Failure;
use crate::metrics::{IdentityState, Metrics, gauge};
use crate::quiet::Quiet;
use crate::roster::Counts;
use crate::status::LastFailure;
use crate::svids::{Keeping, Verified, Whose};

/// Tells, and remembers what was told.
pub(super) struct Report {
    metrics: Metrics,
    /// Of an agent that is ready when it serves its own SVID.
    readiness: Option<Readiness>,
    roots_differ: bool,
    refused: usize,
    quiet: Quiet<(Whose, &'static str)>,
}

impl Report {
    pub(super) fn new(metrics: Metrics, readiness: Option<Readiness>) -> Self {
        Self {
            metrics,
            readiness,
            roots_differ: false,
            refused: 0,
            quiet: Quiet::default(),
        }
    }

    pub(super) fn succeeded(&self, shelves: &Keeping, whose: &Whose, verified: &Verified, now: UnixTime) {
        self.metrics.svid_issued.inc();
        self.metrics.svid_last_success.set(gauge(now.as_secs()));
        let chain = verified.svid().chain();
        tracing::info!(
            spiffe_id = %chain.id(), serial = chain.serial(), not_after = rfc3339(chain.not_after()),
            authority_id = chain.leaf().authority_key_id().unwrap_or("unknown"), outcome = "issued",
            "svid received"
        );
        shelves.tell(whose, |status| {
            status.renewals += u64::from(status.last_success.is_some());
            status.last_success = Some(now);
        });
    }

    /// `attempt` since the last success, with so many seconds left of what is served.
    pub(super) fn failed(
        &mut self,
        shelves: &Keeping,
        whose: &Whose,
        failure: &Failure,
        (attempt, left, now): (u32, Option<u64>, UnixTime),
    ) {
        let reason = failure.kind.code();
        Metrics::blame(&self.metrics.svid_failures, reason);
        let id = match whose {
            Whose::Own => None,
            Whose::Of(id) => Some(tracing::field::display(id)),
        };
        if *whose == Whose::Own || self.quiet.may_log((whose.clone(), reason), Instant::now()) {
            tracing::warn!(
                spiffe_id = id, reason, error = %failure, attempt, seconds_left = left,
                "svid not renewed; trying again"
            );
        } else {
            tracing::debug!(
                spiffe_id = id, reason, error = %failure, attempt, seconds_left = left,
                "svid not renewed; trying again"
            );
        }
        if let (None, Some(readiness)) = (left, &self.readiness) {
            readiness.lacks(READY, format!("no SVID yet: {failure}"));
        }
        let last = LastFailure {
            at: now,
            kind: failure.kind,
            text: failure.to_string(),
        };
        shelves.tell(whose, |status| status.last_failure = Some(last));
    }

    pub(super) fn does_not_verify(&self, held: &Verified, error: &signet_certs::verify::VerifyError) {
        tracing::warn!(
            spiffe_id = %held.svid().id(), serial = held.svid().chain().serial(), %error,
            "svid does not verify under the new bundle; asking for another"
        );
    }

    pub(super) fn serves(&self) {
        if let Some(readiness) = &self.readiness {
            readiness.holds(READY);
        }
    }

    pub(super) fn withdrawn(&self, shelves: &Keeping, whose: &Whose) {
        self.metrics.svid_withdrawn.inc();
        let place = shelves.shelves().all().into_iter().find(|p| p.whose == *whose);
        let (id, cause) = place.map_or((None, String::new()), |p| (p.id, p.status.cause()));
        let id = id.as_ref().map(tracing::field::display);
        tracing::error!(
            spiffe_id = id, reason = "withdrawn", error = %cause,
            "no svid is served until the next is issued"
        );
        if let Some(readiness) = &self.readiness {
            let why = format!("the last SVID is over or no longer verifies; {cause}");
            readiness.lacks(READY, why);
        }
    }

    pub(super) fn dropped(&self, whose: &Whose) {
        if let Whose::Of(id) = whose {
            self.metrics.svids_dropped.inc();
            tracing::info!(spiffe_id = %id, "svid dropped: no workload of it is left");
        }
    }

    pub(super) fn no_room(&mut self, refused: usize) {
        if refused > 0 && self.refused == 0 {
            tracing::error!(
                most = crate::roster::MAX_KEPT,
                "more identities are in use on this node than are kept; some get no svid"
            );
        }
        self.refused = refused;
    }

    /// Roots in an answer are compared with the bundle, never added to it.
    pub(super) fn compare_roots(&mut self, pem: &str, bundle: &TrustBundle) {
        let differ = match TrustBundle::from_pem(bundle.trust_domain().clone(), pem.as_bytes(), 0) {
            Ok(roots) => !roots.same_roots(bundle),
            Err(_) => true,
        };
        Metrics::count(
            &self.metrics.answer_roots,
            if differ { "different" } else { "same" },
        );
        if differ && !self.roots_differ {
            tracing::warn!(
                sequence = bundle.sequence(),
                "the roots that came with the svid are not those of the bundle; the bundle is what is served"
            );
        }
        self.roots_differ = differ;
    }

    /// `ends`: of the SVID served that ends first; `due`: when the next request is.
    pub(super) fn gauges(
        &self,
        counts: &Counts,
        ends: Option<UnixTime>,
        due: Option<UnixTime>,
        now: UnixTime,
    ) {
        let m = &self.metrics;
        m.svid_not_after.set(ends.map_or(0, |at| gauge(at.as_secs())));
        m.svid_renews_at.set(due.map_or(0, |at| gauge(at.as_secs())));
        let left = due.map_or(0, |at| gauge(at.as_secs()).saturating_sub(gauge(now.as_secs())));
        m.svid_next_renewal.set(left);
        m.identities(IdentityState::Served).set(count(counts.served));
        m.identities(IdentityState::Waiting).set(count(counts.waiting));
        m.identities(IdentityState::Lingering)
            .set(count(counts.lingering));
        m.identities(IdentityState::NoRoom).set(count(self.refused));
        m.ca_requests_in_flight.set(count(counts.in_flight));
        m.ca_requests_queued.set(count(counts.queued));
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
