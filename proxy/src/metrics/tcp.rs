//! Istio's standard metrics for TCP, under Istio's names and labels, so that existing dashboards fill.
//!
//! The local side is what the configuration says, the other side what its certificate says: its principal. All else
//! about it is `unknown`. Principals come from outside, so only the first thousand get series of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use signet_certs::SpiffeId;

use crate::config::Local;
use crate::connection::{Accepted, Direction};

/// Peers with series of their own; the others share one.
pub const MAX_PEERS: usize = 1_000;
const UNKNOWN: &str = "unknown";

/// The labels of Istio's TCP metrics.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct TcpLabels {
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
    response_flags: &'static str,
    connection_security_policy: &'static str,
}

/// The counters of one peer.
#[derive(Debug)]
pub struct TcpSeries {
    /// Connections opened.
    pub opened: Counter,
    /// Connections closed.
    pub closed: Counter,
    /// Bytes to the downstream.
    pub sent: Counter,
    /// Bytes from the downstream.
    pub received: Counter,
}

type Key = (Direction, &'static str, Option<SpiffeId>, Option<SpiffeId>);

/// The metrics. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct TcpMetrics {
    opened: Family<TcpLabels, Counter>,
    closed: Family<TcpLabels, Counter>,
    sent: Family<TcpLabels, Counter>,
    received: Family<TcpLabels, Counter>,
    other_peers: Counter,
    known: Arc<Mutex<HashMap<Key, Arc<TcpSeries>>>>,
}

impl TcpMetrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "istio_tcp_connections_opened",
            "TCP connections opened, under Istio's labels",
            self.opened.clone(),
        );
        registry.register(
            "istio_tcp_connections_closed",
            "TCP connections closed, under Istio's labels",
            self.closed.clone(),
        );
        registry.register(
            "istio_tcp_sent_bytes",
            "Bytes to the downstream of TCP connections, counted when they end, under Istio's labels",
            self.sent.clone(),
        );
        registry.register(
            "istio_tcp_received_bytes",
            "Bytes from the downstream of TCP connections, counted when they end, under Istio's labels",
            self.received.clone(),
        );
        registry.register(
            "signet_proxy_tcp_other_peers",
            "TCP connections of peers that share a series, since there were too many",
            self.other_peers.clone(),
        );
    }

    /// The counters of a connection with this peer, which is the source inbound and the destination outbound.
    #[must_use]
    pub fn series(&self, local: &Local, accepted: &Accepted, peer: Option<&SpiffeId>) -> Arc<TcpSeries> {
        let security = if peer.is_some() { "mutual_tls" } else { "none" };
        let key = (
            accepted.direction,
            security,
            accepted.own_id.clone(),
            peer.cloned(),
        );
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&key) {
            return Arc::clone(series);
        }
        let room = known.len() < MAX_PEERS || peer.is_none();
        let principal: Arc<str> = match peer {
            Some(peer) if room => peer.as_str().into(),
            Some(_) => {
                self.other_peers.inc();
                "other".into()
            }
            None => UNKNOWN.into(),
        };
        let labels = labels(local, accepted, principal, security);
        let series = Arc::new(TcpSeries {
            opened: self.opened.get_or_create_owned(&labels),
            closed: self.closed.get_or_create_owned(&labels),
            sent: self.sent.get_or_create_owned(&labels),
            received: self.received.get_or_create_owned(&labels),
        });
        if room {
            known.insert(key, Arc::clone(&series));
        }
        series
    }
}

/// One side of the labels.
struct Side {
    workload: Arc<str>,
    namespace: Arc<str>,
    principal: Arc<str>,
    app: Arc<str>,
    version: Arc<str>,
    cluster: Arc<str>,
    service: Arc<str>,
    canonical: Arc<str>,
}

impl Side {
    fn local(local: &Local, own: Option<&SpiffeId>) -> Self {
        let text = |value: &Option<String>| -> Arc<str> { value.as_deref().unwrap_or(UNKNOWN).into() };
        let canonical = local.app.as_ref().or(local.name.as_ref()).cloned();
        Self {
            workload: text(&local.name),
            namespace: text(&local.namespace),
            principal: own.map_or(UNKNOWN, SpiffeId::as_str).into(),
            app: text(&local.app),
            version: text(&local.version),
            cluster: text(&local.cluster),
            service: text(&local.service),
            canonical: text(&canonical),
        }
    }

    fn remote(principal: Arc<str>) -> Self {
        let unknown: Arc<str> = UNKNOWN.into();
        Self {
            workload: unknown.clone(),
            namespace: unknown.clone(),
            principal,
            app: unknown.clone(),
            version: unknown.clone(),
            cluster: unknown.clone(),
            service: unknown.clone(),
            canonical: unknown,
        }
    }
}

fn labels(local: &Local, accepted: &Accepted, principal: Arc<str>, security: &'static str) -> TcpLabels {
    let own = Side::local(local, accepted.own_id.as_ref());
    let peer = Side::remote(principal);
    let (reporter, source, destination) = match accepted.direction {
        Direction::Inbound => ("destination", peer, own),
        Direction::Outbound => ("source", own, peer),
    };
    TcpLabels {
        reporter,
        source_workload: source.workload,
        source_workload_namespace: source.namespace,
        source_principal: source.principal,
        source_app: source.app,
        source_canonical_revision: source.version.clone(),
        source_version: source.version,
        source_cluster: source.cluster,
        source_canonical_service: source.canonical,
        destination_workload: destination.workload,
        destination_service_namespace: destination.namespace.clone(),
        destination_workload_namespace: destination.namespace,
        destination_principal: destination.principal,
        destination_app: destination.app,
        destination_canonical_revision: destination.version.clone(),
        destination_version: destination.version,
        destination_cluster: destination.cluster,
        destination_service_name: destination.service.clone(),
        destination_service: destination.service,
        destination_canonical_service: destination.canonical,
        request_protocol: "tcp",
        response_flags: "-",
        connection_security_policy: security,
    }
}
