//! CSRs to chains over real TLS and gRPC with warm connections and cached authentication: certificates
//! per second of the CA's CPU time, and latency at half load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use signet_certs::{SigningKey, SpiffeId, csr};
use signet_proto::wire::istio::v1::auth::IstioCertificateRequest;
use signet_proto::wire::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::process;

/// One caller: its channel, token and request, all made before the clock starts.
#[derive(Clone)]
pub(crate) struct Caller {
    client: IstioCertificateServiceClient<Channel>,
    authorization: tonic::metadata::AsciiMetadataValue,
    request: IstioCertificateRequest,
}

impl Caller {
    /// A caller with a key of its own.
    pub(crate) fn new(channel: Channel, token: &str, id: &SpiffeId) -> Self {
        let key = Arc::new(SigningKey::generate().expect("a key"));
        let csr = csr::request(&key, Some(id)).expect("a request");
        let mut authorization: tonic::metadata::AsciiMetadataValue =
            format!("Bearer {token}").parse().expect("a header");
        authorization.set_sensitive(true);
        Self {
            client: IstioCertificateServiceClient::new(channel),
            authorization,
            request: signet_proto::issue::request(csr, 0),
        }
    }

    /// A node with a key of its own for `id`, which its token is not of.
    pub(crate) fn impersonating(channel: Channel, token: &str, id: &SpiffeId) -> Self {
        let mut caller = Self::new(channel, token, id);
        let name = prost_types::value::Kind::StringValue(id.to_string());
        let fields = &mut caller.request.metadata.get_or_insert_default().fields;
        fields.insert(
            "ImpersonatedIdentity".into(),
            prost_types::Value { kind: Some(name) },
        );
        caller
    }

    /// One call.
    pub(crate) async fn call(&mut self) -> Result<(), tonic::Status> {
        let mut request = Request::new(self.request.clone());
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        self.client.create_certificate(request).await.map(drop)
    }
}

/// What a run of load did.
pub(crate) struct Run {
    /// Certificates issued.
    pub(crate) issued: u64,
    /// CPU time the CA spent.
    pub(crate) cpu: Duration,
    /// Wall time.
    pub(crate) wall: Duration,
}

impl Run {
    /// Certificates per second of CA CPU time.
    pub(crate) fn per_core(&self) -> f64 {
        as_f64(self.issued) / self.cpu.as_secs_f64()
    }
}

/// Calls as fast as answers come, `in_flight` at once spread over `callers`, for `time`.
pub(crate) async fn saturate(callers: &[Caller], in_flight: usize, time: Duration, pid: u32) -> Run {
    let stop = Arc::new(AtomicBool::new(false));
    let issued = Arc::new(AtomicU64::new(0));
    let (started, before) = (Instant::now(), process::cpu(pid));
    let tasks: Vec<_> = (0..in_flight)
        .map(|n| {
            let (mut caller, stop, issued) = (
                callers[n % callers.len()].clone(),
                Arc::clone(&stop),
                Arc::clone(&issued),
            );
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    caller.call().await.expect("the CA answers");
                    issued.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    let (issued, cpu, wall) = (
        issued.load(Ordering::Relaxed),
        process::cpu(pid) - before,
        started.elapsed(),
    );
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("a caller");
    }
    Run { issued, cpu, wall }
}

/// Calls at a fixed rate, whether or not answers come; latency counts from when a call was due.
pub(crate) async fn at_rate(callers: &[Caller], per_second: f64, time: Duration) -> Histogram<u64> {
    let gap = Duration::from_secs_f64(1.0 / per_second);
    let mut tick = tokio::time::interval(gap);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let end = Instant::now() + time;
    let mut tasks = Vec::new();
    let mut next = 0;
    while Instant::now() < end {
        let due = tick.tick().await;
        let mut caller = callers[next % callers.len()].clone();
        next += 1;
        tasks.push(tokio::spawn(async move {
            caller.call().await.expect("the CA answers");
            micros(due.elapsed())
        }));
    }
    let mut latency = new_histogram();
    for task in tasks {
        latency.saturating_record(task.await.expect("a caller"));
    }
    latency
}

/// What a herd did to the CA.
pub(crate) struct Herd {
    /// Until the last one was served.
    pub(crate) wall: Duration,
    /// Refusals with a hint, all of them retried.
    pub(crate) refused: u64,
    /// Calls made in all.
    pub(crate) calls: u64,
}

/// Everyone asks at once; whoever is refused waits as told, with jitter, and asks again. None may be
/// lost.
pub(crate) async fn herd(callers: Vec<Caller>) -> Herd {
    let (refused, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            let (refused, calls) = (Arc::clone(&refused), Arc::clone(&calls));
            tokio::spawn(async move {
                for attempt in 0.. {
                    calls.fetch_add(1, Ordering::Relaxed);
                    let Err(status) = caller.call().await else { return };
                    let transient = matches!(status.code(), Code::ResourceExhausted | Code::Unavailable);
                    assert!(transient, "a member of the herd was lost: {status}");
                    refused.fetch_add(1, Ordering::Relaxed);
                    let hint = status
                        .metadata()
                        .get("grpc-retry-pushback-ms")
                        .and_then(|v| v.to_str().ok());
                    let base = hint.and_then(|h| h.parse().ok()).unwrap_or(500u64);
                    let spread =
                        signet_runtime::backoff::random_share() * f64::from(1u32 << u32::min(attempt, 5));
                    tokio::time::sleep(Duration::from_millis(base).mul_f64(0.5 + spread)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a member of the herd");
    }
    Herd {
        wall: started.elapsed(),
        refused: refused.load(Ordering::Relaxed),
        calls: calls.load(Ordering::Relaxed),
    }
}

/// From a microsecond to a minute, three digits.
fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds in order")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Counts here are far below the precision of an f64.
pub(crate) fn as_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
