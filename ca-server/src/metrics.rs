//! Every metric of this process, registered at start. Labels come from enums and fixed words only.

mod pods;
mod trust;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use pods::PodMetrics;
pub use trust::{PhaseLabel, TrustMetrics};

/// What came of it, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// The word.
    pub outcome: &'static str,
}

/// Which authority, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Role {
    /// `root`, `issuing` or `serving`.
    pub role: &'static str,
}

/// Counters by outcome.
pub type Outcomes = Family<Outcome, Counter>;

/// What nearly every call counts, found once.
#[derive(Clone, Debug)]
pub struct Usual {
    /// Of `csrs`: `issued`.
    pub issued: Counter,
    /// Of `authentications`: `ok`.
    pub authenticated: Counter,
    /// Of `token_cache`: `hit`.
    pub known_token: Counter,
}

impl Usual {
    fn of(csrs: &Outcomes, authentications: &Outcomes, token_cache: &Outcomes) -> Self {
        let find = |family: &Outcomes, outcome| family.get_or_create(&Outcome { outcome }).clone();
        Self {
            issued: find(csrs, "issued"),
            authenticated: find(authentications, "ok"),
            known_token: find(token_cache, "hit"),
        }
    }
}

/// The metrics. Cheap to clone; clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// `CreateCertificate` calls by outcome.
    pub csrs: Outcomes,
    /// Time from request to answer, in seconds.
    pub csr_seconds: Histogram,
    /// Calls under way or waiting.
    pub requests_in_flight: Gauge,
    /// Authentications by outcome.
    pub authentications: Outcomes,
    /// TokenReviews made, by outcome.
    pub reviews: Outcomes,
    /// Answers from the token cache: `hit`, `negative_hit`, `miss`; answers it had no room for: `evicted`.
    pub token_cache: Outcomes,
    /// Fetches of the API server's signing keys, by outcome.
    pub jwks: Outcomes,
    /// Connections open.
    pub connections: Gauge,
    /// Connections refused or ended early, by reason.
    pub connection_faults: Outcomes,
    /// Connections told to dial again for their age.
    pub connections_retired: Counter,
    /// Calls refused since too many wait for the rest of their message, by outcome.
    pub unfinished_calls: Outcomes,
    /// Agents following the bundle.
    pub bundle_watchers: Gauge,
    /// Agents that may not follow it, since too many do.
    pub bundle_watch_refusals: Outcomes,
    /// End of each authority and of the serving certificate, seconds since the epoch.
    pub not_after: Family<Role, Gauge>,
    /// Sequence of the bundle in force.
    pub bundle_sequence: Gauge,
    /// Renewals and root changes, by outcome.
    pub rotations: Outcomes,
    /// ConfigMap writes by outcome.
    pub publishes: Outcomes,
    /// Audit records left out because too many came before authentication.
    pub audit_suppressed: Counter,
    /// Some of the above.
    pub usual: Usual,
    /// Of the node rule's view of the cluster.
    pub pods: PodMetrics,
    /// Of JWT-SVIDs and of trust between trust domains.
    pub trust: TrustMetrics,
}

impl Metrics {
    /// Makes and registers all of them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let buckets = [
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let [csrs, authentications, token_cache] = [(); 3].map(|()| Outcomes::default());
        let metrics = Self {
            usual: Usual::of(&csrs, &authentications, &token_cache),
            csrs,
            csr_seconds: Histogram::new(buckets),
            requests_in_flight: Gauge::default(),
            authentications,
            reviews: Family::default(),
            token_cache,
            jwks: Family::default(),
            connections: Gauge::default(),
            connection_faults: Family::default(),
            connections_retired: Counter::default(),
            unfinished_calls: Family::default(),
            bundle_watchers: Gauge::default(),
            bundle_watch_refusals: Family::default(),
            not_after: Family::default(),
            bundle_sequence: Gauge::default(),
            rotations: Family::default(),
            publishes: Family::default(),
            audit_suppressed: Counter::default(),
            pods: PodMetrics::registered(registry.sub_registry_with_prefix("signet_ca")),
            trust: TrustMetrics::registered(registry.sub_registry_with_prefix("signet_ca")),
        };
        let r = registry.sub_registry_with_prefix("signet_ca");
        r.register("csrs", "CreateCertificate calls by outcome", metrics.csrs.clone());
        r.register(
            "csr_seconds",
            "Time from request to answer",
            metrics.csr_seconds.clone(),
        );
        r.register(
            "requests_in_flight",
            "Calls under way or waiting",
            metrics.requests_in_flight.clone(),
        );
        r.register(
            "authentications",
            "Authentications by outcome",
            metrics.authentications.clone(),
        );
        r.register(
            "token_reviews",
            "TokenReviews made, by outcome",
            metrics.reviews.clone(),
        );
        r.register(
            "token_cache",
            "Answers of the token cache",
            metrics.token_cache.clone(),
        );
        r.register(
            "jwks_fetches",
            "Fetches of the API server's signing keys",
            metrics.jwks.clone(),
        );
        r.register("connections", "Connections open", metrics.connections.clone());
        r.register(
            "connection_faults",
            "Connections refused or ended early, by reason",
            metrics.connection_faults.clone(),
        );
        r.register(
            "connections_retired",
            "Connections told to dial again for their age",
            metrics.connections_retired.clone(),
        );
        r.register(
            "unfinished_calls_refused",
            "Calls refused since too many wait for the rest of their message",
            metrics.unfinished_calls.clone(),
        );
        r.register(
            "bundle_watchers",
            "Agents following the bundle",
            metrics.bundle_watchers.clone(),
        );
        r.register(
            "bundle_watch_refusals",
            "Agents that may not follow the bundle since too many do, by outcome",
            metrics.bundle_watch_refusals.clone(),
        );
        r.register(
            "not_after_timestamp_seconds",
            "End of each authority and of the serving certificate",
            metrics.not_after.clone(),
        );
        r.register(
            "bundle_sequence",
            "Sequence of the bundle in force",
            metrics.bundle_sequence.clone(),
        );
        r.register(
            "rotations",
            "Renewals and root changes, by outcome",
            metrics.rotations.clone(),
        );
        r.register(
            "configmap_writes",
            "ConfigMap writes by outcome",
            metrics.publishes.clone(),
        );
        r.register(
            "audit_suppressed",
            "Audit records left out because too many callers failed to authenticate",
            metrics.audit_suppressed.clone(),
        );
        metrics.start_at_zero();
        metrics
    }

    /// An alert on an increase sees an event that happens once only if its counter was there before.
    fn start_at_zero(&self) {
        for (family, outcomes) in [
            (
                &self.csrs,
                &["issued", "overloaded", "issue_failed", "issuer_ending"][..],
            ),
            (&self.authentications, &["ok", "review_unavailable", "overloaded"]),
            (
                &self.reviews,
                &["authenticated", "refused", "overloaded", "failed"],
            ),
            (&self.jwks, &["fetched", "failed", "skipped"]),
            (
                &self.connection_faults,
                &[
                    "accept",
                    "too_many",
                    "too_many_of_one",
                    "handshake_deadline",
                    "tls",
                ],
            ),
            (&self.unfinished_calls, &["too_many", "too_many_of_one"]),
            (
                &self.rotations,
                &["renewed", "failed", "older", "state_gone", "state_fault"],
            ),
            (
                &self.publishes,
                &["created", "updated", "raced", "newer_kept", "failed"],
            ),
        ] {
            for outcome in outcomes {
                drop(family.get_or_create(&Outcome { outcome }));
            }
        }
    }

    /// Counts one outcome.
    pub fn count(family: &Outcomes, outcome: &'static str) {
        family.get_or_create(&Outcome { outcome }).inc();
    }
}
