//! Every metric of this process, registered at start. Labels come from enums and fixed words only.

mod labels;
mod register;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::ca_client::FailureKind;
use crate::sds::streams::{StreamKind, Surface};
pub use labels::{IdentityState, InState, Kind, Outcome, Reason};

/// Counters by outcome.
pub type Outcomes = Family<Outcome, Counter>;
/// Counters by reason.
pub type Reasons = Family<Reason, Counter>;

/// The metrics. Cheap to clone; clones share the values. Times are seconds since the epoch, 0 for never.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Last second in which the SVID served is valid; of several, the one that ends first.
    pub svid_not_after: Gauge,
    /// When the CA last answered with an SVID that was put in use.
    pub svid_last_success: Gauge,
    /// When the next renewal, or the next attempt after a failure, is due; of several, the first.
    pub svid_renews_at: Gauge,
    /// Seconds until then; negative when it is overdue.
    pub svid_next_renewal: Gauge,
    /// SVIDs put in use.
    pub svid_issued: Counter,
    /// Renewals that failed, by reason.
    pub svid_failures: Reasons,
    /// Times a bundle or a clock took a served SVID out of service.
    pub svid_withdrawn: Counter,
    /// SVIDs dropped because no workload of theirs is left.
    pub svids_dropped: Counter,
    /// Identities in use on this node, by state.
    pub identities: Family<InState, Gauge>,
    /// Requests for SVIDs under way.
    pub ca_requests_in_flight: Gauge,
    /// Requests for SVIDs that wait for their turn.
    pub ca_requests_queued: Gauge,
    /// Sequence of the bundle served.
    pub bundle_sequence: Gauge,
    /// Bundles received, by what was done with them.
    pub bundles: Outcomes,
    /// Bundles of other trust domains received, by what was done with them.
    pub foreign_bundles: Outcomes,
    /// Trust domains federated with.
    pub federated_domains: Gauge,
    /// Failures of the bundle watch, by reason.
    pub bundle_watch_failures: Reasons,
    /// Connections to the CA left for another because calls over them kept failing, by the last reason.
    pub ca_connections_left: Reasons,
    /// Roots in certificate answers, compared with the bundle.
    pub answer_roots: Outcomes,
    /// Readings of the root file, by outcome.
    pub root_file: Outcomes,
    /// Connections of workloads, by what was done with them.
    pub connections: Outcomes,
    /// Connections of workloads open.
    pub connections_open: Gauge,
    /// Calls turned away because too many are under way.
    pub calls_turned_away: Counter,
    /// Bytes that messages of calls under way hold.
    pub message_bytes: Gauge,
    /// Calls ended because messages hold as much as they may.
    pub messages_turned_away: Counter,
    /// SDS streams open.
    pub streams: Family<Kind, Gauge>,
    /// SDS responses sent.
    pub sds_pushes: Family<Kind, Counter>,
    /// Answers of clients: `ack`, `nack`, `stale`.
    pub sds_answers: Outcomes,
    /// Names and streams refused, by reason.
    pub sds_refusals: Reasons,
    /// Workload API streams open.
    pub workload_streams: Family<Kind, Gauge>,
    /// Workload API messages sent, on streams and as single answers.
    pub workload_messages: Family<Kind, Counter>,
    /// Workload API calls refused, and streams ended, by reason.
    pub workload_refusals: Reasons,
    /// Tokens asked of the cache, by outcome.
    pub jwt_cache: Outcomes,
    /// Writes of the output files, by outcome.
    pub output_writes: Outcomes,
    /// Hooks run after a change of the files, by outcome.
    pub output_hooks: Outcomes,
    /// Connections to the admin socket, by what was done with them.
    pub admin_connections: Outcomes,
    /// Attestations, by what came of them.
    pub attestations: Outcomes,
    /// Attested workloads that are none any more, by reason.
    pub attestation_ends: Reasons,
    /// Pods of this node.
    pub pods: Gauge,
    /// Events of the pod watch, by what was done with them.
    pub pod_events: Outcomes,
    /// When the last of them came.
    pub pod_last_event: Gauge,
    /// Failures of the pod watch, by reason.
    pub pod_watch_failures: Reasons,
    /// Policies known, by what is in force of them.
    pub policies: Family<InState, Gauge>,
    /// When that changed last.
    pub policies_changed: Gauge,
    /// Events of the sources of policies, by what was done with them.
    pub policy_events: Outcomes,
    /// Failures of these sources, by reason.
    pub policy_watch_failures: Reasons,
    /// Services known.
    pub services: Gauge,
    /// Fetches of key sets of token issuers, by outcome.
    pub key_fetches: Outcomes,
    /// Calls of proxies that miss a key, by what came of them.
    pub key_refreshes: Outcomes,
    /// Policy streams open.
    pub policy_streams: Family<Kind, Gauge>,
    /// Snapshots of policies sent.
    pub policy_snapshots: Family<Kind, Counter>,
    /// Answers of proxies: `ack`, `nack`, `stale`.
    pub policy_answers: Outcomes,
    /// Policy streams refused or ended, by reason.
    pub policy_refusals: Reasons,
}

impl Metrics {
    /// Makes and registers all of them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        let r = registry.sub_registry_with_prefix("signet_agent");
        m.register(r);
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

    /// Open streams of this kind.
    #[must_use]
    pub fn streams_of(&self, kind: StreamKind) -> Gauge {
        let family = match kind.surface() {
            Surface::Sds => &self.streams,
            Surface::WorkloadApi => &self.workload_streams,
            Surface::Policies => &self.policy_streams,
        };
        let kind = kind.as_str();
        family.get_or_create(&Kind { kind }).clone()
    }

    /// Messages sent on streams of this kind.
    #[must_use]
    pub fn pushes_of(&self, kind: StreamKind) -> Counter {
        let family = match kind.surface() {
            Surface::Sds => &self.sds_pushes,
            Surface::WorkloadApi => &self.workload_messages,
            Surface::Policies => &self.policy_snapshots,
        };
        let kind = kind.as_str();
        family.get_or_create(&Kind { kind }).clone()
    }

    /// Where refusals of streams of this kind are counted.
    #[must_use]
    pub fn refusals_of(&self, kind: StreamKind) -> &Reasons {
        match kind.surface() {
            Surface::Sds => &self.sds_refusals,
            Surface::WorkloadApi => &self.workload_refusals,
            Surface::Policies => &self.policy_refusals,
        }
    }

    /// Identities in this state.
    #[must_use]
    pub fn identities(&self, state: IdentityState) -> Gauge {
        let state = state.code();
        self.identities.get_or_create(&InState { state }).clone()
    }

    /// An alert on a rate needs the series to be there before the first failure.
    fn start_at_zero(&self) {
        for kind in FailureKind::ALL {
            let _ = self.svid_failures.get_or_create(&Reason { reason: kind.code() });
        }
        for reason in ["list", "start", "status", "stream", "version"] {
            let _ = self.pod_watch_failures.get_or_create(&Reason { reason });
        }
        for outcome in ["ack", "nack", "stale"] {
            let _ = self.sds_answers.get_or_create(&Outcome { outcome });
            let _ = self.policy_answers.get_or_create(&Outcome { outcome });
        }
        for reason in [
            "list",
            "start",
            "status",
            "stream",
            "version",
            "not_ready",
            "directory",
            "directory_empty",
        ] {
            let _ = self.policy_watch_failures.get_or_create(&Reason { reason });
        }
        for state in crate::policy::keeper::STATES {
            let _ = self.policies.get_or_create(&InState { state });
        }
        for kind in StreamKind::ALL {
            let _ = self.streams_of(kind);
            let _ = self.pushes_of(kind);
        }
        for state in IdentityState::ALL {
            let _ = self.identities(state);
        }
    }
}

/// A gauge's value of an unsigned count, saturating.
#[must_use]
pub fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
