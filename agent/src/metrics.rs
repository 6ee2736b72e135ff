//! Every metric of this process, registered at start. Labels come from enums and fixed words only.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::ca_client::FailureKind;

/// What came of it, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// The word.
    pub outcome: &'static str,
}

/// Why it failed, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// The word.
    pub reason: &'static str,
}

/// Which of the two protocols, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Kind {
    /// `sotw` or `delta`.
    pub kind: &'static str,
}

/// Counters by outcome.
pub type Outcomes = Family<Outcome, Counter>;
/// Counters by reason.
pub type Reasons = Family<Reason, Counter>;

/// The metrics. Cheap to clone; clones share the values. Times are seconds since the epoch, 0 for never.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Last second in which the SVID served is valid.
    pub svid_not_after: Gauge,
    /// When the CA last answered with an SVID that was put in use.
    pub svid_last_success: Gauge,
    /// When the next renewal, or the next attempt after a failure, is due.
    pub svid_renews_at: Gauge,
    /// Seconds until then; negative when it is overdue.
    pub svid_next_renewal: Gauge,
    /// SVIDs put in use.
    pub svid_issued: Counter,
    /// Renewals that failed, by reason.
    pub svid_failures: Reasons,
    /// Times a bundle or a clock took a served SVID out of service.
    pub svid_withdrawn: Counter,
    /// Sequence of the bundle served.
    pub bundle_sequence: Gauge,
    /// Bundles received, by what was done with them.
    pub bundles: Outcomes,
    /// Failures of the bundle watch, by reason.
    pub bundle_watch_failures: Reasons,
    /// Roots in certificate answers, compared with the bundle.
    pub answer_roots: Outcomes,
    /// Readings of the root file, by outcome.
    pub root_file: Outcomes,
    /// Connections of workloads, by what was done with them.
    pub connections: Outcomes,
    /// Connections of workloads open.
    pub connections_open: Gauge,
    /// SDS streams open.
    pub streams: Family<Kind, Gauge>,
    /// SDS responses sent.
    pub sds_pushes: Family<Kind, Counter>,
    /// Answers of clients: `ack`, `nack`, `stale`.
    pub sds_answers: Outcomes,
    /// Names and streams refused, by reason.
    pub sds_refusals: Reasons,
    /// Writes of the output files, by outcome.
    pub output_writes: Outcomes,
    /// Hooks run after a change of the files, by outcome.
    pub output_hooks: Outcomes,
    /// Connections to the admin socket, by what was done with them.
    pub admin_connections: Outcomes,
}

impl Metrics {
    /// Makes and registers all of them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        let r = registry.sub_registry_with_prefix("signet_agent");
        r.register(
            "svid_not_after_timestamp_seconds",
            "End of the SVID served",
            m.svid_not_after.clone(),
        );
        r.register(
            "svid_last_success_timestamp_seconds",
            "When the last SVID came",
            m.svid_last_success.clone(),
        );
        r.register(
            "svid_renews_at_timestamp_seconds",
            "When the next attempt is due",
            m.svid_renews_at.clone(),
        );
        r.register(
            "svid_next_renewal_seconds",
            "Seconds until the next attempt",
            m.svid_next_renewal.clone(),
        );
        r.register("svids_issued", "SVIDs put in use", m.svid_issued.clone());
        r.register(
            "svid_renewal_failures",
            "Renewals that failed, by reason",
            m.svid_failures.clone(),
        );
        r.register(
            "svids_withdrawn",
            "Times a served SVID went out of service",
            m.svid_withdrawn.clone(),
        );
        r.register(
            "bundle_sequence",
            "Sequence of the bundle served",
            m.bundle_sequence.clone(),
        );
        r.register(
            "bundles",
            "Bundles received, by what was done with them",
            m.bundles.clone(),
        );
        r.register(
            "bundle_watch_failures",
            "Failures of the bundle watch",
            m.bundle_watch_failures.clone(),
        );
        r.register(
            "answer_roots",
            "Roots in answers, compared with the bundle",
            m.answer_roots.clone(),
        );
        r.register(
            "root_file_readings",
            "Readings of the root file",
            m.root_file.clone(),
        );
        r.register(
            "workload_connections",
            "Connections of workloads, by outcome",
            m.connections.clone(),
        );
        r.register(
            "workload_connections_open",
            "Connections of workloads open",
            m.connections_open.clone(),
        );
        r.register("sds_streams", "SDS streams open", m.streams.clone());
        r.register("sds_pushes", "SDS responses sent", m.sds_pushes.clone());
        r.register("sds_answers", "Answers of SDS clients", m.sds_answers.clone());
        r.register(
            "sds_refusals",
            "SDS names and streams refused, by reason",
            m.sds_refusals.clone(),
        );
        r.register(
            "output_writes",
            "Writes of the output files",
            m.output_writes.clone(),
        );
        r.register(
            "output_hooks",
            "Hooks run after a change of the files",
            m.output_hooks.clone(),
        );
        r.register(
            "admin_connections",
            "Connections to the admin socket",
            m.admin_connections.clone(),
        );
        m.start_at_zero();
        m
    }

    /// Counts one outcome.
    pub fn count(family: &Outcomes, outcome: &'static str) {
        family.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts one reason.
    pub fn blame(family: &Reasons, reason: &'static str) {
        family.get_or_create(&Reason { reason }).inc();
    }

    /// An alert on a rate needs the series to be there before the first failure.
    fn start_at_zero(&self) {
        for kind in FailureKind::ALL {
            let _ = self.svid_failures.get_or_create(&Reason { reason: kind.code() });
        }
        for outcome in ["ack", "nack", "stale"] {
            let _ = self.sds_answers.get_or_create(&Outcome { outcome });
        }
        for kind in ["sotw", "delta"] {
            let _ = self.streams.get_or_create(&Kind { kind });
            let _ = self.sds_pushes.get_or_create(&Kind { kind });
        }
    }
}

/// A gauge's value of an unsigned count, saturating.
#[must_use]
pub fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
