//! Istio's standard metrics for TCP, under Istio's names and labels, so that existing dashboards fill.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use signet_certs::SpiffeId;

use super::labels::{Census, Ends, MAX_FINE, OTHER};
use crate::connection::{Accepted, Direction};

/// The labels of Istio's TCP metrics.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct TcpLabels {
    #[prometheus(flatten)]
    ends: Ends,
    request_protocol: &'static str,
    response_flags: &'static str,
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

/// Which series: all that labels tell of a connection.
type Key = (Direction, &'static str, Option<SpiffeId>, Option<SpiffeId>);

/// The metrics. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct TcpMetrics {
    opened: Family<TcpLabels, Counter>,
    closed: Family<TcpLabels, Counter>,
    sent: Family<TcpLabels, Counter>,
    received: Family<TcpLabels, Counter>,
    other_peers: Counter,
    census: Census,
    known: Arc<Mutex<HashMap<Key, Arc<TcpSeries>>>>,
}

impl TcpMetrics {
    /// With its peers among those of the others.
    #[must_use]
    pub fn new(census: &Census) -> Self {
        Self {
            census: census.clone(),
            ..Self::default()
        }
    }

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
    pub fn series(&self, accepted: &Accepted, peer: Option<&SpiffeId>) -> Arc<TcpSeries> {
        let key = (
            accepted.direction,
            accepted.security_policy(),
            accepted.own_id.clone(),
            peer.cloned(),
        );
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&key) {
            return Arc::clone(series);
        }
        let principal = self.census.principal(peer);
        let mut labels = self.labels(accepted, &principal);
        let mut shared = &*principal == OTHER;
        if !shared && self.opened.get(&labels).is_none() && !self.census.admits(&principal, MAX_FINE) {
            (labels, shared) = (self.labels(accepted, &OTHER.into()), true);
        }
        if shared {
            self.other_peers.inc();
        }
        let series = Arc::new(TcpSeries {
            opened: self.opened.get_or_create_owned(&labels),
            closed: self.closed.get_or_create_owned(&labels),
            sent: self.sent.get_or_create_owned(&labels),
            received: self.received.get_or_create_owned(&labels),
        });
        if !shared {
            known.insert(key, Arc::clone(&series));
        }
        series
    }
    fn labels(&self, accepted: &Accepted, principal: &Arc<str>) -> TcpLabels {
        TcpLabels {
            ends: self.census.ends(accepted, Arc::clone(principal)),
            request_protocol: "tcp",
            response_flags: "-",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Local;
    use crate::metrics::labels::tests::accepted;
    use crate::metrics::labels::{MAX_PEERS, MAX_SETS};

    fn text(metrics: &TcpMetrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn connections_count_under_istios_names_and_labels() {
        let local = Local {
            name: Some("back".into()),
            namespace: Some("b".into()),
            service: Some("back.b.svc.cluster.local".into()),
            ..Local::default()
        };
        let peer: SpiffeId = "spiffe://cluster.local/ns/a/sa/front".parse().unwrap();
        let metrics = TcpMetrics::new(&Census::new(&local));
        for (direction, labels) in [
            (
                Direction::Inbound,
                [
                    r#"reporter="destination""#,
                    r#"source_principal="spiffe://cluster.local/ns/a/sa/front""#,
                    r#"destination_workload="back""#,
                    r#"destination_service="back.b.svc.cluster.local""#,
                    r#"destination_service_name="back""#,
                    r#"destination_service_namespace="b""#,
                    r#"connection_security_policy="mutual_tls""#,
                ],
            ),
            (
                Direction::Outbound,
                [
                    r#"reporter="source""#,
                    r#"destination_principal="spiffe://cluster.local/ns/a/sa/front""#,
                    r#"source_workload="back""#,
                    r#"destination_service="unknown""#,
                    r#"destination_service_name="unknown""#,
                    r#"request_protocol="tcp""#,
                    r#"connection_security_policy="unknown""#,
                ],
            ),
        ] {
            let mut accepted = accepted(peer.as_str());
            accepted.direction = direction;
            metrics.series(&accepted, Some(&peer)).opened.inc();
            let text = text(&metrics);
            let mut lines = text.lines();
            let reporter = labels[0];
            let line = lines
                .find(|line| {
                    line.starts_with("istio_tcp_connections_opened_total{") && line.contains(reporter)
                })
                .unwrap();
            for label in labels {
                assert!(line.contains(label), "{label} in {line}");
            }
        }
    }

    #[test]
    fn peers_without_room_share_a_series_and_are_counted() {
        let census = Census::default();
        let metrics = TcpMetrics::new(&census);
        let connect = |name: &str| {
            let peer: SpiffeId = format!("spiffe://cluster.local/ns/a/sa/{name}").parse().unwrap();
            metrics.series(&accepted(peer.as_str()), Some(&peer)).opened.inc();
        };
        for number in 0..MAX_PEERS + 5 {
            connect(&format!("s{number}"));
        }
        assert_eq!(metrics.other_peers.get(), 5);
        connect("s7");
        assert_eq!(metrics.other_peers.get(), 5, "it has a series");
        let lines = |text: &str| {
            let opened = |line: &&str| line.starts_with("istio_tcp_connections_opened_total{");
            text.lines().filter(opened).count()
        };
        assert_eq!(lines(&text(&metrics)), MAX_PEERS + 1);
        for number in 0..MAX_SETS {
            let _ = census.admits("unknown", number + 1);
        }
        let mut plain = accepted("spiffe://cluster.local/ns/a/sa/s7");
        plain.security = crate::connection::Security::Plaintext;
        metrics.series(&plain, None).opened.inc();
        assert_eq!(metrics.other_peers.get(), 6, "nor is there room for the nameless");
    }
}
