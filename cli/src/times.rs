//! Times for people and for scripts.

use std::time::Duration;

use serde::{Serialize, Serializer};
use signet_runtime::UnixTime;
use signet_runtime::clock::rfc3339;

/// A moment: RFC 3339 in UTC for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub UnixTime);

impl Moment {
    /// Reads RFC 3339, as in `2027-01-15T08:00:00Z`. Fractions of a second are cut off.
    ///
    /// # Errors
    /// A sentence with the text and an example.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no time; write one like 2027-01-15T08:00:00Z");
        let parsed: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        let seconds = u64::try_from(parsed.as_second()).map_err(|_| wrong())?;
        Ok(Self(UnixTime::since_unix_epoch(Duration::from_secs(seconds))))
    }

    /// `2027-01-15T08:00:00Z (in 11h 58m)`, or `(3m 20s ago)`.
    #[must_use]
    pub fn words(self, now: UnixTime) -> String {
        format!("{} ({})", rfc3339(self.0), relative(self.0, now))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

impl<'de> serde::Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// `in 11h 58m`, `3m 20s ago`, `now`.
#[must_use]
pub fn relative(time: UnixTime, now: UnixTime) -> String {
    let (time, now) = (time.as_secs(), now.as_secs());
    match time.cmp(&now) {
        std::cmp::Ordering::Greater => format!("in {}", span(time - now)),
        std::cmp::Ordering::Less => format!("{} ago", span(now - time)),
        std::cmp::Ordering::Equal => "now".into(),
    }
}

/// A length of time in its two largest units, as in `11h 58m`.
#[must_use]
pub fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::with_capacity(2);
    for (size, unit) in UNITS {
        let count = left / size;
        left %= size;
        match (count, parts.is_empty()) {
            (0, true) => {}
            (0, false) => break,
            (count, first) => {
                parts.push(format!("{count}{unit}"));
                if !first {
                    break;
                }
            }
        }
    }
    if parts.is_empty() {
        "0s".into()
    } else {
        parts.join(" ")
    }
}

/// Seconds from `now` to `time`; negative when it is past.
#[must_use]
pub fn seconds_until(time: UnixTime, now: UnixTime) -> i64 {
    let signed = |t: UnixTime| i64::try_from(t.as_secs()).unwrap_or(i64::MAX);
    signed(time).saturating_sub(signed(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (200, "3m 20s"),
            (3_600, "1h"),
            (3_601, "1h"),
            (43_080, "11h 58m"),
            (86_400 * 3650, "3650d"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn moments_are_read_and_printed_alike() {
        let moment = Moment::parse("2027-01-15T08:00:00Z").unwrap();
        assert_eq!(moment, Moment(at(1_800_000_000)));
        assert_eq!(
            moment.words(at(1_800_000_000 - 43_080)),
            "2027-01-15T08:00:00Z (in 11h 58m)"
        );
        assert_eq!(
            moment.words(at(1_800_000_200)),
            "2027-01-15T08:00:00Z (3m 20s ago)"
        );
        assert_eq!(moment.words(at(1_800_000_000)), "2027-01-15T08:00:00Z (now)");
        assert_eq!(Moment::parse("2027-01-15T09:00:00+01:00").unwrap(), moment);
        let wrong = Moment::parse("yesterday").unwrap_err();
        assert_eq!(
            wrong,
            "\"yesterday\" is no time; write one like 2027-01-15T08:00:00Z"
        );
        assert!(Moment::parse("1815-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn times_past_and_to_come_have_a_sign() {
        assert_eq!(seconds_until(at(10), at(4)), 6);
        assert_eq!(seconds_until(at(4), at(10)), -6);
    }
}
