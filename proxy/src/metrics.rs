//! Every metric of this process, registered at start.

pub mod labels;
mod tcp;

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use signet_certs::SpiffeId;
use signet_policy::program::Shadow;

use crate::access_log::Reason;
use crate::config::Local;
use crate::connection::{Accepted, Direction};
use crate::policy_source::metrics::PolicyMetrics;
use labels::Census;
pub use tcp::{TcpMetrics, TcpSeries};

/// Which way, and what came of it.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Ended {
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// A word of [`Reason`].
    pub reason: &'static str,
}

/// Which way, and how secured.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Secured {
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// A word of [`crate::connection::Security`].
    pub security: &'static str,
}

/// What came of it, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// The word.
    pub outcome: &'static str,
}

/// A question of an operator, and what came of it.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Asked {
    /// `tls_check` or `decision`.
    pub question: &'static str,
    /// A word of a fixed list.
    pub outcome: &'static str,
}

/// The metrics. Cheap to clone; clones share the values.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Connections whose kind was settled.
    pub connections: Family<Secured, Counter>,
    /// Connections open, from the accept on.
    pub connections_open: Gauge,
    /// Requests and connections that did not end well, by reason.
    pub refusals: Family<Ended, Counter>,
    /// Connections that were open when the bundles no longer vouched for their other end.
    pub trust_withdrawn: Counter,
    /// Accepts that failed.
    pub accept_failures: Counter,
    /// Secrets from the agent, by what was done with them.
    pub secrets: Family<Outcome, Counter>,
    /// Last valid second of our SVID, 0 for none.
    pub svid_not_after: Gauge,
    /// What policies that decide nothing would have said.
    pub shadows: Family<Outcome, Counter>,
    /// Questions on the admin socket.
    pub questions: Family<Asked, Counter>,
    /// Istio's TCP metrics.
    pub tcp: TcpMetrics,
    /// Whom Istio's metrics name.
    pub census: Census,
    /// Those of the source of policies.
    pub policies: PolicyMetrics,
}

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn new(registry: &mut Registry, local: &Local) -> Self {
        let census = Census::new(local);
        let all = Self {
            tcp: TcpMetrics::new(&census),
            census,
            ..Self::default()
        };
        all.tcp.register(registry);
        registry.register(
            "signet_proxy_policy_shadows",
            "What AUDIT policies and policies in dry run would have said of connections and requests",
            all.shadows.clone(),
        );
        all.policies.register(registry);
        registry.register(
            "signet_proxy_connections",
            "Connections, by direction and security",
            all.connections.clone(),
        );
        registry.register(
            "signet_proxy_connections_open",
            "Downstream connections open now",
            all.connections_open.clone(),
        );
        registry.register(
            "signet_proxy_refusals",
            "Connections and requests that were refused or failed, by direction and reason",
            all.refusals.clone(),
        );
        registry.register(
            "signet_proxy_trust_withdrawn",
            "Connections that were open when the bundles no longer vouched for their other end",
            all.trust_withdrawn.clone(),
        );
        registry.register(
            "signet_proxy_accept_failures",
            "Accepts that the system failed",
            all.accept_failures.clone(),
        );
        registry.register(
            "signet_proxy_secrets",
            "Secrets from the agent, by what was done with them",
            all.secrets.clone(),
        );
        registry.register(
            "signet_proxy_svid_not_after_timestamp_seconds",
            "Last valid second of the SVID in use, 0 for none",
            all.svid_not_after.clone(),
        );
        registry.register(
            "signet_proxy_admin_questions",
            "Questions on the admin socket, by what came of them",
            all.questions.clone(),
        );
        all
    }

    /// An operator asked.
    pub fn question(&self, question: &'static str, outcome: &'static str) {
        self.questions.get_or_create(&Asked { question, outcome }).inc();
    }

    /// Notes what policies that decide nothing would have said.
    pub fn shadow(&self, shadow: &Shadow<'_>) {
        let says = [
            ("audit", shadow.audit.is_some()),
            ("dry_run_custom", shadow.custom.is_some()),
            ("dry_run_deny", shadow.deny.is_some()),
            ("dry_run_allow", shadow.allow.is_some()),
            ("dry_run_not_allowed", shadow.not_allowed),
        ];
        for (outcome, _) in says.into_iter().filter(|(_, said)| *said) {
            self.shadows.get_or_create(&Outcome { outcome }).inc();
        }
    }

    /// The counters of a TCP connection with this peer.
    #[must_use]
    pub fn tcp_series(&self, accepted: &Accepted, peer: Option<&SpiffeId>) -> Arc<TcpSeries> {
        self.tcp.series(accepted, peer)
    }

    /// Something was done with a secret.
    pub fn secret(&self, outcome: &'static str) {
        self.secrets.get_or_create(&Outcome { outcome }).inc();
    }

    /// A request or a connection did not end well.
    pub fn ended(&self, direction: Direction, reason: Reason) {
        let labels = Ended {
            direction: direction.as_str(),
            reason: reason.as_str(),
        };
        self.refusals.get_or_create(&labels).inc();
    }
}
