//! Wall time as a value that comes in from outside, and waiting that notices when it jumps.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::UnixTime;

/// Longest uninterrupted sleep of [`sleep_until`]. A machine that was suspended, or whose clock was
/// set, is noticed within this time of running again.
pub const LONGEST_NAP: Duration = Duration::from_secs(2);

/// Where the time comes from. Decisions are made by wall time, since certificates are.
pub trait Clock: Send + Sync {
    /// Seconds since the epoch, now.
    fn now(&self) -> UnixTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(wall())
    }
}

/// The wall clock, since the epoch; more finely than a [`Clock`] tells it, for the times of log lines.
pub(crate) fn wall() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// rustls asks our clock, so that what it accepts and what we decide agree.
#[derive(Clone)]
pub struct TlsTime(pub Arc<dyn Clock>);

impl std::fmt::Debug for TlsTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsTime")
    }
}

impl rustls::time_provider::TimeProvider for TlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0.now())
    }
}

/// Sleeps until the wall clock reads `when`, in naps of at most [`LONGEST_NAP`], so that a clock that
/// was set or a machine that slept ends the wait within seconds. Naps are monotonic.
pub async fn sleep_until(clock: &dyn Clock, when: UnixTime) {
    loop {
        let left = when.as_secs().saturating_sub(clock.now().as_secs());
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(left).min(LONGEST_NAP)).await;
    }
}

/// RFC 3339 in UTC, as people read it.
#[must_use]
pub fn rfc3339(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("@{seconds}"), |t| t.to_string())
}
