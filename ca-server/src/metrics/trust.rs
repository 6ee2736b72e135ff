//! Metrics of JWT-SVIDs, of what this CA shows to other trust domains and of what it learns from them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Outcome, Outcomes};

/// A phase of JWT authorities, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PhaseLabel {
    /// `prepared`, `active` or `old`.
    pub phase: &'static str,
}

/// The metrics. Clones share the values.
#[derive(Clone, Debug)]
pub struct TrustMetrics {
    /// `MintJwtSvid` calls by outcome.
    pub jwt_svids: Outcomes,
    /// Time from request to answer, in seconds.
    pub jwt_seconds: Histogram,
    /// Changes of the JWT authorities, by outcome.
    pub jwt_rotations: Outcomes,
    /// JWT authorities by phase.
    pub jwt_keys: Family<PhaseLabel, Gauge>,
    /// Requests to the OIDC pages, by outcome.
    pub oidc_requests: Outcomes,
    /// Requests to the bundle endpoint, by outcome.
    pub bundle_requests: Outcomes,
    /// Connections to either that were refused or ended early, by reason.
    pub endpoint_faults: Outcomes,
    /// Readings of the bundle endpoint's certificate, by outcome.
    pub endpoint_certificates: Outcomes,
    /// Polls of foreign bundles by outcome.
    pub federation_polls: Outcomes,
    /// Writes of foreign bundles to the store, by outcome.
    pub federation_stores: Outcomes,
    /// Foreign bundles in force.
    pub federated_domains: Gauge,
    /// Trust domains whose last poll failed.
    pub federation_failing: Gauge,
}

impl TrustMetrics {
    /// Makes and registers all of them under the prefix of `r`.
    #[must_use]
    pub fn registered(r: &mut Registry) -> Self {
        let buckets = [
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let metrics = Self {
            jwt_svids: Family::default(),
            jwt_seconds: Histogram::new(buckets),
            jwt_rotations: Family::default(),
            jwt_keys: Family::default(),
            oidc_requests: Family::default(),
            bundle_requests: Family::default(),
            endpoint_faults: Family::default(),
            endpoint_certificates: Family::default(),
            federation_polls: Family::default(),
            federation_stores: Family::default(),
            federated_domains: Gauge::default(),
            federation_failing: Gauge::default(),
        };
        let m = &metrics;
        for (name, help, family) in [
            ("jwt_svids", "MintJwtSvid calls by outcome", &m.jwt_svids),
            (
                "jwt_rotations",
                "Changes of the JWT authorities",
                &m.jwt_rotations,
            ),
            ("oidc_requests", "Requests to the OIDC pages", &m.oidc_requests),
            (
                "bundle_requests",
                "Requests to the bundle endpoint",
                &m.bundle_requests,
            ),
            (
                "endpoint_connection_faults",
                "Connections to the OIDC pages and the bundle endpoint refused or ended early",
                &m.endpoint_faults,
            ),
            (
                "endpoint_certificates",
                "Readings of the bundle endpoint's certificate",
                &m.endpoint_certificates,
            ),
            (
                "federation_polls",
                "Polls of foreign bundles",
                &m.federation_polls,
            ),
            (
                "federation_stores",
                "Writes of foreign bundles to the store",
                &m.federation_stores,
            ),
        ] {
            r.register(name, help, family.clone());
        }
        r.register(
            "jwt_svid_seconds",
            "Time from request to answer",
            m.jwt_seconds.clone(),
        );
        r.register("jwt_keys", "JWT authorities by phase", m.jwt_keys.clone());
        r.register(
            "federated_domains",
            "Foreign bundles in force",
            m.federated_domains.clone(),
        );
        r.register(
            "federation_failing",
            "Trust domains whose last poll failed",
            m.federation_failing.clone(),
        );
        metrics.start_at_zero();
        metrics
    }

    /// An alert on an increase sees an event that happens once only if its counter was there before.
    fn start_at_zero(&self) {
        for (family, outcomes) in [
            (
                &self.jwt_svids,
                &["issued", "overloaded", "deadline", "no_authority", "mint_failed"][..],
            ),
            (
                &self.jwt_rotations,
                &[
                    "prepared",
                    "activated",
                    "retired",
                    "conflict",
                    "failed",
                    "key_file",
                    "not_held",
                ],
            ),
            (
                &self.endpoint_faults,
                &["accept", "too_many", "handshake_deadline", "tls"],
            ),
            (&self.endpoint_certificates, &["read", "unreadable"]),
            (
                &self.federation_polls,
                &["updated", "unchanged", "older", "conflicting", "failed"],
            ),
            (&self.federation_stores, &["stored", "superseded", "failed"]),
        ] {
            for outcome in outcomes {
                drop(family.get_or_create(&Outcome { outcome }));
            }
        }
    }
}
