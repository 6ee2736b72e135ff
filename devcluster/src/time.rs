//! Wall-clock instants as Kubernetes writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// RFC 3339 in UTC with whole seconds, as `metav1.Time` prints it. An instant no calendar holds prints as 1970.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let stamp = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whole seconds since 1970; earlier instants count as 1970.
pub(crate) fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The wall clock, used when a cluster is started without a clock of its own.
pub(crate) fn wall_clock() -> SystemTime {
    #[expect(
        clippy::disallowed_methods,
        reason = "the default clock of a crate that may import no other"
    )]
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_print_with_whole_seconds() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_700);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20Z");
        assert_eq!(unix(at), 1_700_000_000);
    }
}
