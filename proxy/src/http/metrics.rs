//! Istio's standard metrics for HTTP, under Istio's names and labels, so that existing dashboards fill.
//!
//! What becomes of requests is up to the application, which may let its clients choose: where there is no room for
//! another kind of outcome, statuses count by their class, and then the peer as one of many.

use std::fmt::Write as _;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use signet_certs::SpiffeId;

use crate::connection::{Accepted, Direction};
use crate::metrics::labels::{Census, Ends, MAX_COARSE, MAX_FINE, OTHER};

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
    #[prometheus(flatten)]
    ends: Ends,
    request_protocol: &'static str,
    response_code: Code,
    response_flags: &'static str,
    grpc_response_status: &'static str,
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
    /// Requests whose status is told by its class, since there were too many kinds of outcomes.
    coarse: Counter,
    /// Requests that were sent again, since the first upstream connection had surely not taken them.
    pub retries: Counter,
    /// Connections of clients whose upstream has no pool of its own, since there were too many.
    pub beyond_pools: Counter,
    census: Census,
}

/// The series of one kind of outcome.
#[derive(Clone, Debug)]
pub struct Series {
    requests: Counter,
    durations: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    /// What else counts requests that have no series of their own.
    shared: [Option<Counter>; 2],
}

impl Series {
    /// One more request.
    pub fn count(&self, millis: f64, received: u64, sent: u64) {
        for shared in self.shared.iter().flatten() {
            shared.inc();
        }
        self.requests.inc();
        self.durations.observe(millis);
        self.request_bytes.observe(float(received));
        self.response_bytes.observe(float(sent));
    }
}

/// Histograms take floats, which are exact for all bytes that a message can have.
#[expect(
    clippy::cast_precision_loss,
    reason = "above 2^53 bytes the last ones do not matter"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// A status as a label: an upstream may answer with any of 900, and does not choose how many series there are.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Code(Shown);

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Shown {
    Exact(u16),
    /// By its first digit.
    Class(u16),
    Other,
}

impl Default for Code {
    fn default() -> Self {
        Self::of(0)
    }
}

impl Code {
    /// Of this status; 0 for none.
    #[must_use]
    pub fn of(status: u16) -> Self {
        Self(match status {
            0 | 100..=599 => Shown::Exact(status),
            _ => Shown::Other,
        })
    }

    /// The class alone.
    fn coarse(self) -> Self {
        Self(match self.0 {
            Shown::Exact(status @ 100..) => Shown::Class(status / 100),
            shown => shown,
        })
    }
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            Shown::Exact(status) => status.encode(encoder),
            Shown::Class(digit) => write!(encoder, "{digit}xx"),
            Shown::Other => OTHER.encode(encoder),
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

impl Kind {
    /// The same, with all together that only dashboards of few peers can tell apart.
    fn coarse(&self) -> Self {
        Self {
            code: self.code.coarse(),
            grpc: if matches!(self.grpc, "" | "0") {
                self.grpc
            } else {
                OTHER
            },
            ..self.clone()
        }
    }
}

impl HttpMetrics {
    /// Registers everything. Its peers are among those of the others.
    #[must_use]
    pub fn new(registry: &mut Registry, census: &Census) -> Self {
        let all = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(Buckets),
            request_bytes: Family::new_with_constructor(Buckets),
            response_bytes: Family::new_with_constructor(Buckets),
            other_peers: Counter::default(),
            coarse: Counter::default(),
            retries: Counter::default(),
            beyond_pools: Counter::default(),
            census: census.clone(),
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
            "signet_proxy_requests_of_coarse_status",
            "Requests whose status is told by its class, since there were too many kinds of outcomes",
            all.coarse.clone(),
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
        let (labels, shared) = self.settle(accepted, kind);
        Series {
            shared,
            requests: self.requests.get_or_create_owned(&labels),
            durations: self.durations.get_or_create_owned(&labels),
            request_bytes: self.request_bytes.get_or_create_owned(&labels),
            response_bytes: self.response_bytes.get_or_create_owned(&labels),
        }
    }

    /// The finest labels for which there is room, and what counts how coarse they are.
    fn settle(&self, accepted: &Accepted, kind: &Kind) -> (Labels, [Option<Counter>; 2]) {
        let peer = match accepted.direction {
            Direction::Inbound => accepted.peer(),
            Direction::Outbound => kind.upstream.as_ref(),
        };
        let principal = self.census.principal(peer);
        let other = (&*principal == OTHER).then(|| self.other_peers.clone());
        let coarse_kind = kind.coarse();
        for (kind, most, coarse) in [(kind, MAX_FINE, false), (&coarse_kind, MAX_COARSE, true)] {
            let labels = self.labels(accepted, &principal, kind);
            if self.requests.get(&labels).is_some() || self.census.admits(&principal, most) {
                return (labels, [other, coarse.then(|| self.coarse.clone())]);
            }
        }
        let shared = [&self.other_peers, &self.coarse].map(|counter| Some(counter.clone()));
        (self.labels(accepted, &OTHER.into(), &coarse_kind), shared)
    }

    fn labels(&self, accepted: &Accepted, principal: &Arc<str>, kind: &Kind) -> Labels {
        Labels {
            ends: self.census.ends(accepted, Arc::clone(principal)),
            request_protocol: kind.protocol,
            response_code: kind.code,
            response_flags: kind.flags,
            grpc_response_status: kind.grpc,
        }
    }
}

#[cfg(test)]
mod tests;
