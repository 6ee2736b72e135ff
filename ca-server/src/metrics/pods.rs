//! What the node rule's view of the cluster counts. All of it stays at zero while no node account is
//! trusted.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Outcome, Outcomes};

/// The metrics. Cheap to clone; clones share the values.
#[derive(Clone, Debug, Default)]
pub struct PodMetrics {
    /// Live pods in the index.
    pub indexed: Gauge,
    /// Memory the index holds, as of the last listing or bookmark.
    pub bytes: Gauge,
    /// When the watch last said something, seconds since the epoch.
    pub heard: Gauge,
    /// Pods for which the index had no room.
    pub left_out: Counter,
    /// Listings and watches, by how they went.
    pub watches: Outcomes,
    /// Direct lookups, by what came of them.
    pub lookups: Outcomes,
}

impl PodMetrics {
    /// Makes and registers all of them.
    #[must_use]
    pub fn registered(r: &mut Registry) -> Self {
        let metrics = Self {
            watches: Family::default(),
            lookups: Family::default(),
            ..Self::default()
        };
        r.register("pods_indexed", "Live pods in the index", metrics.indexed.clone());
        r.register(
            "pod_index_bytes",
            "Memory the index of pods holds, as of the last listing or bookmark",
            metrics.bytes.clone(),
        );
        r.register(
            "pod_watch_heard_timestamp_seconds",
            "When the watch of pods last said something",
            metrics.heard.clone(),
        );
        r.register(
            "pods_left_out",
            "Pods for which the index had no room",
            metrics.left_out.clone(),
        );
        r.register(
            "pod_watches",
            "Listings and watches of pods, by outcome",
            metrics.watches.clone(),
        );
        r.register(
            "pod_lookups",
            "Direct lookups of pods, by outcome",
            metrics.lookups.clone(),
        );
        for outcome in ["listed", "not_listed", "ended", "broke", "expired"] {
            drop(metrics.watches.get_or_create(&Outcome { outcome }));
        }
        for outcome in [
            "found",
            "none",
            "kept",
            "failed",
            "caller_share",
            "overloaded",
            "evicted",
        ] {
            drop(metrics.lookups.get_or_create(&Outcome { outcome }));
        }
        metrics
    }
}
