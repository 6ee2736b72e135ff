//! Bounds: how long, how many, how large.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use signet_runtime::config::{Faults, HumanDuration};

use crate::http::limits::{HttpLimits, RawHttpLimits};

/// Several of the largest heads.
const LEAST_WAITING: usize = 1024 * 1024;

/// `limits` as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawLimits {
    first_bytes: Option<HumanDuration>,
    handshake: Option<HumanDuration>,
    connect: Option<HumanDuration>,
    tcp_idle: Option<HumanDuration>,
    connections: Option<usize>,
    connections_per_source: Option<usize>,
    unsettled_connections: Option<usize>,
    outbound_connections: Option<usize>,
    waiting_bytes: Option<usize>,
    http: Option<RawHttpLimits>,
}

/// Bounds in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a PERMISSIVE port waits for a first byte before the connection counts as plaintext.
    pub first_bytes: Duration,
    /// How long a handshake may take, from the accept on.
    pub handshake: Duration,
    /// How long an upstream may take to be connected, its handshake included.
    pub connect: Duration,
    /// How long a TCP connection may be silent in both directions.
    pub tcp_idle: Duration,
    /// Most connections to the workload at once, of those whose kind is settled.
    pub connections: usize,
    /// Most connections to the workload from one address, settled or not; those of the own host do not count.
    pub connections_per_source: usize,
    /// Most connections to the workload that have not said yet what they are. One more, and the oldest has to go.
    pub unsettled_connections: usize,
    /// Most connections of the workload to others.
    pub outbound_connections: usize,
    /// Most bytes, of all connections together, that came and cannot be acted upon yet.
    pub waiting_bytes: usize,
    /// Those of HTTP.
    pub http: HttpLimits,
}

impl RawLimits {
    pub(super) fn with_defaults(self) -> Self {
        let wait = |value: Option<HumanDuration>, millis: u64| {
            Some(value.unwrap_or(HumanDuration(Duration::from_millis(millis))))
        };
        let connections = self.connections.unwrap_or(20_000);
        Self {
            first_bytes: wait(self.first_bytes, 1_000),
            handshake: wait(self.handshake, 10_000),
            connect: wait(self.connect, 10_000),
            tcp_idle: wait(self.tcp_idle, 3_600_000),
            connections: Some(connections),
            connections_per_source: Some(self.connections_per_source.unwrap_or(connections.div_ceil(4))),
            unsettled_connections: Some(self.unsettled_connections.unwrap_or(15_000)),
            outbound_connections: Some(self.outbound_connections.unwrap_or(20_000)),
            waiting_bytes: Some(self.waiting_bytes.unwrap_or(32 * 1024 * 1024)),
            http: Some(self.http.unwrap_or_default().with_defaults()),
        }
    }

    pub(super) fn check(&self, faults: &mut Faults) -> Limits {
        let mut bounded = |key: &str, value: Option<HumanDuration>, least: u64, most: u64| {
            let found = value.map_or(Duration::ZERO, |wait| wait.0);
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
            if !(least..=most).contains(&found) {
                let text = format!(
                    "must be between {} and {}",
                    HumanDuration(least),
                    HumanDuration(most)
                );
                faults.add(key, text);
            }
            found
        };
        let mut limits = Limits {
            first_bytes: bounded("limits.first_bytes", self.first_bytes, 10, 60_000),
            handshake: bounded("limits.handshake", self.handshake, 100, 300_000),
            connect: bounded("limits.connect", self.connect, 100, 300_000),
            tcp_idle: bounded("limits.tcp_idle", self.tcp_idle, 1_000, 30 * 86_400_000),
            connections: self.connections.unwrap_or_default(),
            connections_per_source: self.connections_per_source.unwrap_or_default(),
            unsettled_connections: self.unsettled_connections.unwrap_or_default(),
            outbound_connections: self.outbound_connections.unwrap_or_default(),
            waiting_bytes: self.waiting_bytes.unwrap_or_default(),
            http: HttpLimits::default(),
        };
        if let Some(http) = &self.http {
            limits.http = http.check(faults);
        }
        if limits.first_bytes > limits.handshake {
            faults.add("limits.first_bytes", "must not be longer than limits.handshake");
        }
        for (key, value) in [
            ("limits.connections", limits.connections),
            ("limits.connections_per_source", limits.connections_per_source),
            ("limits.unsettled_connections", limits.unsettled_connections),
            ("limits.outbound_connections", limits.outbound_connections),
        ] {
            if value == 0 {
                faults.add(key, "must be at least 1");
            }
        }
        if limits.waiting_bytes < LEAST_WAITING {
            faults.add(
                "limits.waiting_bytes",
                format!("must be at least {LEAST_WAITING}"),
            );
        }
        limits
    }
}
