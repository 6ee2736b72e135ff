//! Bounds of HTTP: how long, how many, how large. `limits.http` of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use signet_runtime::config::{Faults, HumanDuration};

/// `limits.http` as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawHttpLimits {
    request_head: Option<HumanDuration>,
    request_body: Option<HumanDuration>,
    response_head: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<HumanDuration>,
    idle: Option<HumanDuration>,
    write_stall: Option<HumanDuration>,
    stream_idle: Option<HumanDuration>,
    header_count: Option<usize>,
    header_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes: Option<u64>,
    streams: Option<u32>,
    upstream_requests: Option<usize>,
    upstream_requests_per_source: Option<usize>,
    upstream_idle: Option<HumanDuration>,
}

/// Bounds in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// How long a request's head may take to arrive, and a new connection to bring its first.
    pub request_head: Duration,
    /// How long the client may be waited for, for each piece of a request's body, before it is answered.
    pub request_body: Duration,
    /// How long the upstream may take to go on with a request, up to the head of its answer. Waits for the client do
    /// not count.
    pub response_head: Duration,
    /// How long a request may take in all; nothing for as long as it takes.
    pub total: Option<Duration>,
    /// How long a connection may wait for its next request.
    pub idle: Duration,
    /// How long the client may be waited for to take each piece of what is sent to it.
    pub write_stall: Duration,
    /// How long nothing may be said either way once an answer has begun, or in a call of gRPC.
    pub stream_idle: Duration,
    /// Most headers of a message.
    pub header_count: usize,
    /// Most bytes of a head.
    pub header_bytes: usize,
    /// Most bytes of a request's body; nothing for no bound, since bodies are never kept.
    pub body_bytes: Option<u64>,
    /// Most requests at once on an HTTP/2 connection.
    pub streams: u32,
    /// Most requests at once to one upstream.
    pub upstream_requests: usize,
    /// Most of them from one address.
    pub upstream_requests_per_source: usize,
    /// How long a connection to an upstream is kept for the next request.
    pub upstream_idle: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            request_head: Duration::from_secs(30),
            request_body: Duration::from_secs(60),
            response_head: Duration::from_secs(300),
            total: None,
            idle: Duration::from_secs(3600),
            write_stall: Duration::from_secs(60),
            stream_idle: Duration::from_secs(3600),
            header_count: 100,
            header_bytes: 60 * 1024,
            body_bytes: None,
            streams: 128,
            upstream_requests: 1024,
            upstream_requests_per_source: 512,
            upstream_idle: Duration::from_secs(60),
        }
    }
}

impl RawHttpLimits {
    /// With what is not written.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        let defaults = HttpLimits::default();
        let wait = |value: Option<HumanDuration>, default| Some(value.unwrap_or(HumanDuration(default)));
        let upstream_requests = self.upstream_requests.unwrap_or(defaults.upstream_requests);
        let half = upstream_requests.div_ceil(2);
        let per_source = self.upstream_requests_per_source.unwrap_or(half);
        Self {
            request_head: wait(self.request_head, defaults.request_head),
            request_body: wait(self.request_body, defaults.request_body),
            response_head: wait(self.response_head, defaults.response_head),
            total: self.total,
            idle: wait(self.idle, defaults.idle),
            write_stall: wait(self.write_stall, defaults.write_stall),
            stream_idle: wait(self.stream_idle, defaults.stream_idle),
            header_count: self.header_count.or(Some(defaults.header_count)),
            header_bytes: self.header_bytes.or(Some(defaults.header_bytes)),
            body_bytes: self.body_bytes,
            streams: self.streams.or(Some(defaults.streams)),
            upstream_requests: Some(upstream_requests),
            upstream_requests_per_source: Some(per_source),
            upstream_idle: wait(self.upstream_idle, defaults.upstream_idle),
        }
    }

    /// Checked. Every fault is noted.
    pub fn check(&self, faults: &mut Faults) -> HttpLimits {
        let defaults = HttpLimits::default();
        let mut wait = |key: &str, value: Option<HumanDuration>, default: Duration| {
            let found = value.map_or(default, |wait| wait.0);
            let (least, most) = (Duration::from_millis(50), Duration::from_secs(7 * 86_400));
            if !(least..=most).contains(&found) {
                let key = format!("limits.http.{key}");
                faults.add(&key, "must be between 50ms and 168h");
            }
            found
        };
        let mut limits = HttpLimits {
            request_head: wait("request_head", self.request_head, defaults.request_head),
            request_body: wait("request_body", self.request_body, defaults.request_body),
            response_head: wait("response_head", self.response_head, defaults.response_head),
            total: self.total.map(|total| wait("total", Some(total), Duration::MAX)),
            idle: wait("idle", self.idle, defaults.idle),
            write_stall: wait("write_stall", self.write_stall, defaults.write_stall),
            stream_idle: wait("stream_idle", self.stream_idle, defaults.stream_idle),
            upstream_idle: wait("upstream_idle", self.upstream_idle, defaults.upstream_idle),
            body_bytes: self.body_bytes,
            ..defaults
        };
        self.check_numbers(&mut limits, faults);
        limits
    }

    fn check_numbers(&self, limits: &mut HttpLimits, faults: &mut Faults) {
        let mut number =
            |key: &str, value: Option<usize>, range: std::ops::RangeInclusive<usize>, place: &mut usize| {
                if let Some(value) = value {
                    if !range.contains(&value) {
                        let text = format!("must be between {} and {}", range.start(), range.end());
                        faults.add(&format!("limits.http.{key}"), text);
                    }
                    *place = value;
                }
            };
        number(
            "header_count",
            self.header_count,
            8..=1000,
            &mut limits.header_count,
        );
        number(
            "header_bytes",
            self.header_bytes,
            1024..=1024 * 1024,
            &mut limits.header_bytes,
        );
        number(
            "upstream_requests",
            self.upstream_requests,
            1..=1_000_000,
            &mut limits.upstream_requests,
        );
        let all = limits.upstream_requests.max(1);
        number(
            "upstream_requests_per_source",
            self.upstream_requests_per_source,
            1..=all,
            &mut limits.upstream_requests_per_source,
        );
        let mut streams = usize::try_from(limits.streams).unwrap_or(usize::MAX);
        let written = self.streams.and_then(|streams| usize::try_from(streams).ok());
        number("streams", written, 1..=100_000, &mut streams);
        limits.streams = u32::try_from(streams).unwrap_or(limits.streams);
    }
}
