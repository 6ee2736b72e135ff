//! The metrics of the source of policies.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use signet_runtime::UnixTime;

use super::held::Outstanding;

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

/// What is in force instead, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct State {
    /// The word.
    pub state: &'static str,
}

/// What objects that cannot be read count as.
const STATES: [&str; 6] = [
    "last_good",
    "allows_nothing",
    "denies_all",
    "strict",
    "refuses_tokens",
    "nothing",
];

/// The metrics. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct PolicyMetrics {
    snapshots: Family<Outcome, Counter>,
    failures: Family<Reason, Counter>,
    policies: Gauge,
    faulty: Family<State, Gauge>,
    unenforceable: Gauge,
    changed: Gauge,
    refreshes: Family<Outcome, Counter>,
}

impl PolicyMetrics {
    /// Registers all of them.
    pub fn register(&self, r: &mut Registry) {
        r.register(
            "signet_proxy_policy_snapshots",
            "Snapshots of policies received, by what was done with them",
            self.snapshots.clone(),
        );
        r.register(
            "signet_proxy_policy_source_failures",
            "Failures of the source of policies, by reason",
            self.failures.clone(),
        );
        r.register(
            "signet_proxy_policies",
            "AuthorizationPolicies in force for the workload",
            self.policies.clone(),
        );
        r.register(
            "signet_proxy_policies_faulty",
            "Policies that cannot be read, by what is in force instead",
            self.faulty.clone(),
        );
        r.register(
            "signet_proxy_policy_fields_unenforceable",
            "Fields and rules for tokens that cannot be enforced on some listener of ours",
            self.unenforceable.clone(),
        );
        r.register(
            "signet_proxy_policies_changed_timestamp_seconds",
            "When the policies in force came",
            self.changed.clone(),
        );
        r.register(
            "signet_proxy_policy_key_refreshes",
            "Questions to the agent for keys that tokens name and that are missing, by outcome",
            self.refreshes.clone(),
        );
        for state in STATES {
            let _ = self.faulty.get_or_create(&State { state });
        }
        for outcome in ["in_force", "unchanged", "refused"] {
            let _ = self.snapshots.get_or_create(&Outcome { outcome });
        }
    }

    pub(super) fn snapshot(&self, outcome: &'static str) {
        self.snapshots.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn refreshed(&self, outcome: &'static str) {
        self.refreshes.get_or_create(&Outcome { outcome }).inc();
    }

    /// Questions for keys so far with this outcome.
    #[must_use]
    pub fn refreshes(&self, outcome: &'static str) -> u64 {
        self.refreshes.get_or_create(&Outcome { outcome }).get()
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn in_force(&self, policies: usize, unenforceable: usize, outstanding: &[Outstanding]) {
        self.snapshot("in_force");
        self.policies.set(gauge(policies));
        self.unenforceable.set(gauge(unenforceable));
        for state in STATES {
            let count = outstanding.iter().filter(|found| found.state() == state).count();
            self.faulty.get_or_create(&State { state }).set(gauge(count));
        }
    }

    pub(super) fn changed_at(&self, now: UnixTime) {
        self.changed.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// Failures so far of this reason.
    #[must_use]
    pub fn failures(&self, reason: &'static str) -> u64 {
        self.failures.get_or_create(&Reason { reason }).get()
    }

    /// Snapshots so far with this outcome.
    #[must_use]
    pub fn snapshots(&self, outcome: &'static str) -> u64 {
        self.snapshots.get_or_create(&Outcome { outcome }).get()
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
