//! Istio's standard metrics for HTTP, under Istio's names and labels, so that existing dashboards fill.
//!
//! The local side is what the configuration says, the other side what its certificate says: its principal. All
//! else about it is `unknown`. Principals come from outside, so only the first thousand get series of their own.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use signet_certs::SpiffeId;

use crate::config::Local;
use crate::connection::{Accepted, Direction};

/// Peers with series of their own; the others share one.
const MAX_PEERS: usize = 1000;
/// What they are called then.
const OTHER: &str = "other";
/// Milliseconds and bytes, as Envoy's histograms are cut.
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The labels of Istio's request metrics.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Labels {
    reporter: &'static str,
    source_workload: Arc<str>,
    source_workload_namespace: Arc<str>,
    source_principal: Arc<str>,
    source_app: Arc<str>,
    source_version: Arc<str>,
    source_cluster: Arc<str>,
    source_canonical_service: Arc<str>,
    source_canonical_revision: Arc<str>,
    destination_workload: Arc<str>,
    destination_workload_namespace: Arc<str>,
    destination_principal: Arc<str>,
    destination_app: Arc<str>,
    destination_version: Arc<str>,
    destination_cluster: Arc<str>,
    destination_service: Arc<str>,
    destination_service_name: Arc<str>,
    destination_service_namespace: Arc<str>,
    destination_canonical_service: Arc<str>,
    destination_canonical_revision: Arc<str>,
    request_protocol: &'static str,
    response_code: Code,
    response_flags: &'static str,
    grpc_response_status: &'static str,
    connection_security_policy: &'static str,
}

#[derive(Clone, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BOUNDS)
    }
}

/// The metrics. Clones share the values.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Histogram, Buckets>,
    request_bytes: Family<Labels, Histogram, Buckets>,
    response_bytes: Family<Labels, Histogram, Buckets>,
    /// Requests of peers that share series, since there were too many.
    other_peers: Counter,
    /// Requests that were sent again, since the first upstream connection had surely not taken them.
    pub retries: Counter,
    /// Connections of clients whose upstream has no pool of its own, since there were too many.
    pub beyond_pools: Counter,
    peers: Arc<Mutex<HashSet<SpiffeId>>>,
    local: Arc<Side>,
}

/// One side's labels.
#[derive(Debug)]
struct Side {
    workload: Arc<str>,
    namespace: Arc<str>,
    app: Arc<str>,
    version: Arc<str>,
    cluster: Arc<str>,
    service: Arc<str>,
    canonical: Arc<str>,
}

impl Side {
    fn new(local: &Local) -> Self {
        let text = |value: &Option<String>| -> Arc<str> { value.as_deref().unwrap_or("unknown").into() };
        let canonical = local.app.as_ref().or(local.name.as_ref()).cloned();
        Self {
            workload: text(&local.name),
            namespace: text(&local.namespace),
            app: text(&local.app),
            version: text(&local.version),
            cluster: text(&local.cluster),
            service: text(&local.service),
            canonical: text(&canonical),
        }
    }
}

/// The series of one kind of outcome.
#[derive(Clone, Debug)]
pub struct Series {
    requests: Counter,
    durations: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    /// Where the peer has no series of its own.
    other_peers: Option<Counter>,
}

impl Series {
    /// One more request.
    pub fn count(&self, millis: f64, received: u64, sent: u64) {
        if let Some(others) = &self.other_peers {
            others.inc();
        }
        self.requests.inc();
        self.durations.observe(millis);
        self.request_bytes.observe(float(received));
        self.response_bytes.observe(float(sent));
    }
}

/// Histograms take floats; bytes of one message are far below 2^52.
fn float(bytes: u64) -> f64 {
    u32::try_from(bytes).map_or_else(|_| f64::from(u32::MAX), f64::from)
}

/// A status as a label: an upstream may answer with any of 900, and does not choose how many series there are.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct Code(u16);

impl Code {
    /// Of this status; 0 for none.
    #[must_use]
    pub fn of(status: u16) -> Self {
        Self(if matches!(status, 0 | 100..=599) {
            status
        } else {
            u16::MAX
        })
    }
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            u16::MAX => OTHER.encode(encoder),
            status => status.encode(encoder),
        }
    }
}

/// A status of gRPC as a label: those that gRPC has, or `other`.
#[must_use]
pub fn grpc_status(text: &[u8]) -> &'static str {
    const KNOWN: [&str; 17] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    ];
    let known = KNOWN.into_iter().find(|status| status.as_bytes() == text);
    known.unwrap_or(OTHER)
}

/// What of an outcome the labels tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `http` or `grpc`.
    pub protocol: &'static str,
    /// The status that the client got.
    pub code: Code,
    /// Envoy's response flags, `-` for none.
    pub flags: &'static str,
    /// gRPC's status, empty for none; see [`grpc_status`].
    pub grpc: &'static str,
    /// The identity at the other end of an outbound connection.
    pub upstream: Option<SpiffeId>,
}

impl HttpMetrics {
    /// Registers everything.
    #[must_use]
    pub fn new(registry: &mut Registry, local: &Local) -> Self {
        let all = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(Buckets),
            request_bytes: Family::new_with_constructor(Buckets),
            response_bytes: Family::new_with_constructor(Buckets),
            other_peers: Counter::default(),
            retries: Counter::default(),
            beyond_pools: Counter::default(),
            peers: Arc::default(),
            local: Arc::new(Side::new(local)),
        };
        registry.register(
            "istio_requests",
            "Requests, as Istio counts them",
            all.requests.clone(),
        );
        registry.register(
            "istio_request_duration_milliseconds",
            "Duration of requests",
            all.durations.clone(),
        );
        registry.register(
            "istio_request_bytes",
            "Bytes of request bodies",
            all.request_bytes.clone(),
        );
        registry.register(
            "istio_response_bytes",
            "Bytes of response bodies",
            all.response_bytes.clone(),
        );
        registry.register(
            "signet_proxy_requests_of_other_peers",
            "Requests of peers beyond those with series of their own",
            all.other_peers.clone(),
        );
        registry.register(
            "signet_proxy_upstream_retries",
            "Requests sent again because the first connection had not taken them",
            all.retries.clone(),
        );
        registry.register(
            "signet_proxy_upstreams_beyond_pools",
            "Connections of clients whose upstream had no pool of its own, since there were too many in use",
            all.beyond_pools.clone(),
        );
        all
    }

    /// The series of a kind of outcome on a connection.
    #[must_use]
    pub fn series(&self, accepted: &Accepted, kind: &Kind) -> Series {
        let labels = self.labels(accepted, kind);
        let other = [&labels.source_principal, &labels.destination_principal].contains(&&Arc::from(OTHER));
        Series {
            other_peers: other.then(|| self.other_peers.clone()),
            requests: self.requests.get_or_create_owned(&labels),
            durations: self.durations.get_or_create_owned(&labels),
            request_bytes: self.request_bytes.get_or_create_owned(&labels),
            response_bytes: self.response_bytes.get_or_create_owned(&labels),
        }
    }

    /// The principal as a label: without a scheme Istio's dashboards do not find it, so it is written whole.
    fn principal(&self, peer: Option<&SpiffeId>) -> Arc<str> {
        let Some(peer) = peer else {
            return "unknown".into();
        };
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.contains(peer) {
            return peer.as_str().into();
        }
        if peers.len() >= MAX_PEERS {
            return OTHER.into();
        }
        peers.insert(peer.clone());
        peer.as_str().into()
    }

    fn labels(&self, accepted: &Accepted, kind: &Kind) -> Labels {
        let unknown: Arc<str> = "unknown".into();
        let nobody = Side::new(&Local::default());
        let own: Arc<str> = accepted
            .own_id
            .as_ref()
            .map_or_else(|| Arc::clone(&unknown), |id| id.as_str().into());
        let inbound = accepted.direction == Direction::Inbound;
        let (source, destination) = if inbound {
            (&nobody, &*self.local)
        } else {
            (&*self.local, &nobody)
        };
        let (source_principal, destination_principal, security) = if inbound {
            (self.principal(accepted.peer()), own, accepted.security_policy())
        } else {
            // Of the source's view Istio says `unknown`: only the destination knows.
            (own, self.principal(kind.upstream.as_ref()), "unknown")
        };
        Labels {
            reporter: if inbound { "destination" } else { "source" },
            source_workload: Arc::clone(&source.workload),
            source_workload_namespace: Arc::clone(&source.namespace),
            source_principal,
            source_app: Arc::clone(&source.app),
            source_version: Arc::clone(&source.version),
            source_cluster: Arc::clone(&source.cluster),
            source_canonical_service: Arc::clone(&source.canonical),
            source_canonical_revision: Arc::clone(&source.version),
            destination_workload: Arc::clone(&destination.workload),
            destination_workload_namespace: Arc::clone(&destination.namespace),
            destination_principal,
            destination_app: Arc::clone(&destination.app),
            destination_version: Arc::clone(&destination.version),
            destination_cluster: Arc::clone(&destination.cluster),
            destination_service: Arc::clone(&destination.service),
            destination_service_name: Arc::clone(&destination.service),
            destination_service_namespace: Arc::clone(&destination.namespace),
            destination_canonical_service: Arc::clone(&destination.canonical),
            destination_canonical_revision: Arc::clone(&destination.version),
            request_protocol: kind.protocol,
            response_code: kind.code,
            response_flags: kind.flags,
            grpc_response_status: kind.grpc,
            connection_security_policy: security,
        }
    }
}

#[cfg(test)]
mod tests;
