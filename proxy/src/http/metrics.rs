//! Istio's standard metrics for HTTP, under Istio's names and labels, so that existing dashboards fill.
//!
//! The local side is what the configuration says, the other side what its certificate says: its principal. All
//! else about it is `unknown`. Principals come from outside, so only the first thousand get series of their own.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
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
    response_code: u16,
    response_flags: &'static str,
    grpc_response_status: Arc<str>,
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

/// What of an outcome the labels tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `http` or `grpc`.
    pub protocol: &'static str,
    /// The status that the client got; 0 for none.
    pub code: u16,
    /// Envoy's response flags, `-` for none.
    pub flags: &'static str,
    /// gRPC's status, empty for none.
    pub grpc: Arc<str>,
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
            grpc_response_status: Arc::clone(&kind.grpc),
            connection_security_policy: security,
        }
    }
}

#[cfg(test)]
mod tests {
    use signet_certs::UnixTime;

    use super::*;
    use crate::connection::{Peer, Security};

    fn accepted(peer: &str) -> Accepted {
        let security = Security::Mutual(Peer {
            id: peer.parse().unwrap(),
            leaf_sha256: [0; 32],
            not_after: UnixTime::since_unix_epoch(std::time::Duration::from_secs(9)),
        });
        Accepted {
            id: 1,
            direction: Direction::Inbound,
            security,
            source: "10.0.0.1:1".parse().unwrap(),
            remote: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            port: 80,
            sni: None,
            alpn: None,
            own_not_after: None,
            own_id: Some("spiffe://cluster.local/ns/b/sa/back".parse().unwrap()),
        }
    }

    fn kind() -> Kind {
        Kind {
            protocol: "http",
            code: 200,
            flags: "-",
            grpc: "".into(),
            upstream: None,
        }
    }

    #[test]
    fn requests_count_under_istios_names_and_labels() {
        let mut registry = Registry::default();
        let local = Local {
            name: Some("back".into()),
            namespace: Some("b".into()),
            service: Some("back.b.svc.cluster.local".into()),
            ..Local::default()
        };
        let metrics = HttpMetrics::new(&mut registry, &local);
        let series = metrics.series(&accepted("spiffe://cluster.local/ns/a/sa/front"), &kind());
        series.count(3.0, 10, 20);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("istio_requests_total{"))
            .unwrap();
        for label in [
            r#"reporter="destination""#,
            r#"source_principal="spiffe://cluster.local/ns/a/sa/front""#,
            r#"source_workload="unknown""#,
            r#"destination_principal="spiffe://cluster.local/ns/b/sa/back""#,
            r#"destination_workload="back""#,
            r#"destination_service="back.b.svc.cluster.local""#,
            r#"response_code="200""#,
            r#"connection_security_policy="mutual_tls""#,
        ] {
            assert!(line.contains(label), "{label} in {line}");
        }
        for name in [
            "istio_request_duration_milliseconds_bucket",
            "istio_request_bytes_sum",
            "istio_response_bytes_count",
        ] {
            assert!(text.contains(name), "{name}");
        }
    }

    #[test]
    fn the_peer_after_the_thousandth_is_another() {
        let metrics = HttpMetrics::new(&mut Registry::default(), &Local::default());
        for number in 0..MAX_PEERS + 5 {
            let peer = format!("spiffe://cluster.local/ns/a/sa/s{number}");
            metrics.series(&accepted(&peer), &kind()).count(1.0, 0, 0);
            let labels = metrics.labels(&accepted(&peer), &kind());
            let own = &*labels.source_principal == peer.as_str();
            assert_eq!(own, number < MAX_PEERS, "{peer}");
        }
        assert_eq!(metrics.other_peers.get(), 5);
        let known = metrics.labels(&accepted("spiffe://cluster.local/ns/a/sa/s0"), &kind());
        assert_eq!(&*known.source_principal, "spiffe://cluster.local/ns/a/sa/s0");
    }
}
