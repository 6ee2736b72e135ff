//! One record per issuance and per refusal, as a log event with target `audit`. Records of issuances are
//! written several at a time, each before its answer leaves.
//!
//! Refusals before authentication can be caused by anyone who reaches the port, so their records are
//! written at a bounded rate; the metrics count every one of them.

mod jwt;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use signet_certs::{SvidChain, UnixTime};
use signet_policy::Caller;
use signet_runtime::clock::rfc3339;
use signet_runtime::logs::LogFormat;
use signet_runtime::logs::lines::Lines;
use tracing::Level;

use crate::gather::Records;
use crate::metrics::Metrics;

/// Records per second about callers that did not authenticate.
const STRANGERS_PER_SECOND: u64 = 20;

/// The target of every record.
const TARGET: &str = "audit";

/// `filter`, under which records are written unless it names their target itself: a filter that is to make
/// the log quieter does not turn the audit trail off by the way.
#[must_use]
pub fn with_records(filter: &str) -> String {
    let named = filter
        .split(',')
        .any(|part| part.split('=').next() == Some(TARGET));
    match (named, filter.trim().is_empty()) {
        (true, _) => filter.to_owned(),
        (false, true) => format!("{TARGET}=info"),
        (false, false) => format!("{filter},{TARGET}=info"),
    }
}

/// What is recorded of an issuance.
#[derive(Debug)]
pub struct Record {
    /// Who asked.
    pub caller: Caller,
    /// What was issued.
    pub chain: SvidChain,
    /// The CSR, by its hash.
    pub csr_hash: String,
    /// Where it came from.
    pub peer: Option<SocketAddr>,
    /// From request to answer.
    pub elapsed: Duration,
}

/// Writes the audit trail.
#[derive(Debug)]
pub struct Audit {
    metrics: Metrics,
    window: Mutex<(UnixTime, u64)>,
    format: LogFormat,
    lines: Mutex<Lines>,
    /// How many records came into `lines`, and how many of them are written. Changed under its lock.
    made: AtomicU64,
    written: AtomicU64,
}

impl Audit {
    /// An empty trail.
    #[must_use]
    pub fn new(format: LogFormat, metrics: Metrics) -> Self {
        Self {
            metrics,
            window: Mutex::new((UnixTime::since_unix_epoch(Duration::ZERO), 0)),
            format,
            lines: Mutex::default(),
            made: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// A chain was issued. Its record may wait for others, but not longer than its answer: see
    /// [`Records`].
    pub fn issued(&self, record: &Record) {
        if self.format == LogFormat::Text {
            return event(record);
        }
        if tracing::enabled!(target: TARGET, Level::INFO) {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            line(&mut lines, record);
            self.made.fetch_add(1, Ordering::Release);
        }
    }

    /// An authenticated caller was refused.
    pub fn refused(
        &self,
        caller: &Caller,
        reason: &str,
        error: &dyn std::fmt::Display,
        peer: Option<SocketAddr>,
    ) {
        tracing::warn!(
            target: TARGET,
            outcome = "refused",
            %caller,
            reason,
            %error,
            peer.addr = peer.map(tracing::field::display),
            "csr answered"
        );
    }

    /// Somebody who did not authenticate was refused.
    pub fn stranger(
        &self,
        reason: &str,
        error: &dyn std::fmt::Display,
        peer: Option<SocketAddr>,
        now: UnixTime,
    ) {
        if !self.admit(now) {
            self.metrics.audit_suppressed.inc();
            return;
        }
        tracing::warn!(
            target: TARGET,
            outcome = "refused",
            reason,
            %error,
            peer.addr = peer.map(tracing::field::display),
            "csr answered"
        );
    }

    fn admit(&self, now: UnixTime) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0 != now {
            *window = (now, 0);
        }
        window.1 += 1;
        window.1 <= STRANGERS_PER_SECOND
    }
}

/// Records that wait are written all together, in one call.
impl Records for Audit {
    fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    fn write(&self, made: u64) {
        if self.written.load(Ordering::Acquire) < made {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.write();
            self.written.store(self.made(), Ordering::Release);
        }
    }
}

/// A record as an event of its own, in whatever form the log has.
fn event(record: &Record) {
    let leaf = record.chain.leaf();
    tracing::info!(
        target: TARGET,
        outcome = "issued",
        spiffe_id = %record.chain.id(),
        caller = %record.caller,
        serial = %record.chain.serial(),
        authority_id = leaf.authority_key_id().unwrap_or_default(),
        not_after = rfc3339(leaf.not_after()),
        csr_sha256 = record.csr_hash,
        peer.addr = record.peer.map(tracing::field::display),
        elapsed_ms = milliseconds(record.elapsed),
        "csr answered"
    );
}

/// The same in JSON, many times faster.
fn line(lines: &mut Lines, record: &Record) {
    let leaf = record.chain.leaf();
    let line = lines
        .begin(Level::INFO, "csr answered")
        .text("outcome", "issued")
        .text("spiffe_id", record.chain.id().as_str())
        .shown("caller", &record.caller)
        .text("serial", &record.chain.serial())
        .text("authority_id", leaf.authority_key_id().unwrap_or_default())
        .time("not_after", leaf.not_after())
        .text("csr_sha256", &record.csr_hash);
    let line = match record.peer {
        Some(peer) => line.shown("peer.addr", &peer),
        None => line,
    };
    line.number("elapsed_ms", milliseconds(record.elapsed))
        .end(TARGET);
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[test]
    fn records_are_written_under_every_filter_that_does_not_name_them() {
        for (filter, level) in [
            ("info", Some(Level::INFO)),
            ("warn", Some(Level::INFO)),
            ("off", Some(Level::INFO)),
            ("", Some(Level::INFO)),
            ("error,signet_ca=debug", Some(Level::INFO)),
            ("auditor=off", Some(Level::INFO)),
            ("info,audit=warn", Some(Level::WARN)),
            ("info,audit=off", None),
            ("audit", Some(Level::TRACE)),
        ] {
            let targets: tracing_subscriber::filter::Targets = with_records(filter).parse().unwrap();
            let most = [Level::TRACE, Level::INFO, Level::WARN]
                .into_iter()
                .find(|level| targets.would_enable(TARGET, level));
            assert_eq!(most, level, "{filter:?}");
        }
    }

    #[test]
    fn strangers_are_recorded_at_a_bounded_rate_and_the_rest_is_counted() {
        let metrics = Metrics::new(&mut Registry::default());
        let audit = Audit::new(LogFormat::Json, metrics.clone());
        let at = |second: u64| UnixTime::since_unix_epoch(Duration::from_secs(second));
        for second in [1_000, 1_001, 1_060, 1_059] {
            let before = metrics.audit_suppressed.get();
            for number in 0..100 {
                audit.stranger("no_token", &"no token", None, at(second));
                let suppressed = metrics.audit_suppressed.get() - before;
                assert_eq!(
                    suppressed,
                    (number + 1_u64).saturating_sub(STRANGERS_PER_SECOND),
                    "after {number} in second {second}"
                );
            }
        }
        assert_eq!(metrics.audit_suppressed.get(), 4 * (100 - STRANGERS_PER_SECOND));
    }
}
