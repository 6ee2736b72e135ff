//! Bounds: how long, how many, how large.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use signet_runtime::config::{Faults, HumanDuration};

use crate::http::limits::{HttpLimits, RawHttpLimits};

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
    /// Most downstream connections at once.
    pub connections: usize,
    /// Most of them from one address.
    pub connections_per_source: usize,
    /// Those of HTTP.
    pub http: HttpLimits,
}

impl RawLimits {
    pub(super) fn with_defaults(self) -> Self {
        let wait = |value: Option<HumanDuration>, millis: u64| {
            Some(value.unwrap_or(HumanDuration(Duration::from_millis(millis))))
        };
        Self {
            first_bytes: wait(self.first_bytes, 1_000),
            handshake: wait(self.handshake, 10_000),
            connect: wait(self.connect, 10_000),
            tcp_idle: wait(self.tcp_idle, 3_600_000),
            connections: Some(self.connections.unwrap_or(20_000)),
            connections_per_source: Some(self.connections_per_source.unwrap_or(20_000)),
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
        ] {
            if value == 0 {
                faults.add(key, "must be at least 1");
            }
        }
        limits
    }
}
