//! How long an SVID lives, how far it is backdated, and when its holder asks for the next one.

use std::time::Duration;

use rustls_pki_types::UnixTime;

/// Most a leaf is backdated, for clock skew between nodes. The field has seen drifts of up to half a
/// minute on healthy clusters (istio/istio#32176).
pub const MAX_BACKDATE: Duration = Duration::from_secs(120);

/// How far before `now` an SVID of this lifetime begins: two minutes, or a quarter of a short life.
#[must_use]
pub fn backdate(ttl: Duration) -> Duration {
    MAX_BACKDATE.min(ttl / 4)
}

/// The bounds a CA keeps for the lifetime of leaves. `min <= default <= max` is checked by whoever
/// builds it from configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlBounds {
    /// Shortest lifetime issued, and the least an issuer must have left.
    pub min: Duration,
    /// Lifetime when none is asked for.
    pub default: Duration,
    /// Longest lifetime issued.
    pub max: Duration,
}

impl TtlBounds {
    /// The lifetime for a request of `requested` seconds; zero or less means the default
    /// (`reference: IstioCertificateRequest.validity_duration`). Values out of bounds are clamped, and
    /// absurdly large ones saturate rather than wrap.
    #[must_use]
    pub fn clamp(&self, requested_seconds: i64) -> Duration {
        match u64::try_from(requested_seconds) {
            Ok(0) | Err(_) => self.default,
            Ok(seconds) => Duration::from_secs(seconds).clamp(self.min, self.max),
        }
    }
}

/// A share of an interval, between 0 and 1, drawn by the caller: pure code takes chance as an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// Exactly in the middle: no jitter.
    pub const NONE: Self = Self(0.5);

    /// `share` is clamped to 0..=1; not-a-number counts as the middle.
    #[must_use]
    pub fn new(share: f64) -> Self {
        if share.is_nan() {
            Self::NONE
        } else {
            Self(share.clamp(0.0, 1.0))
        }
    }

    /// The share, 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0
    }
}

/// Half-way renewal is moved by up to this share of the life to either side, so that a fleet that
/// started together does not renew together (istio/istio#52102).
const SPREAD: f64 = 0.1;

/// When to renew: half-way between `received` and `not_after`, moved by `jitter` within ±10 % of that
/// life, never sooner than `floor` after `received`. An SVID that is over, or received after its end,
/// is due at `received + floor`.
#[must_use]
pub fn renew_at(received: UnixTime, not_after: UnixTime, jitter: Jitter, floor: Duration) -> UnixTime {
    let life = not_after.as_secs().saturating_sub(received.as_secs());
    let share = 0.5 + SPREAD * (2.0 * jitter.share() - 1.0);
    let wait = Duration::from_secs(life).mul_f64(share).max(floor);
    plus(received, wait)
}

/// The least time between two successful issuances for one identity, whatever the reason to renew:
/// a tenth of the life, at least a second.
#[must_use]
pub fn renewal_floor(life: Duration) -> Duration {
    (life / 10).max(Duration::from_secs(1))
}

/// `time + by`, saturating.
#[must_use]
pub fn plus(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs()).saturating_add(by))
}

/// `time - by`, stopping at the epoch.
#[must_use]
pub fn minus(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs()).saturating_sub(by))
}

/// Time from `now` until `end`, or nothing when it is past.
#[must_use]
pub fn until(end: UnixTime, now: UnixTime) -> Duration {
    Duration::from_secs(end.as_secs().saturating_sub(now.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn short_lives_are_backdated_by_a_quarter_and_long_ones_by_two_minutes() {
        assert_eq!(backdate(Duration::from_secs(60)), Duration::from_secs(15));
        assert_eq!(backdate(Duration::from_secs(86_400)), MAX_BACKDATE);
    }

    #[test]
    fn requested_lifetimes_are_clamped_and_never_wrap() {
        let day = Duration::from_secs(86_400);
        let bounds = TtlBounds {
            min: Duration::from_secs(60),
            default: day,
            max: day,
        };
        for (asked, got) in [
            (0, 86_400),
            (-5, 86_400),
            (1, 60),
            (3_600, 3_600),
            (i64::MAX, 86_400),
            (9_300_000_000, 86_400),
        ] {
            assert_eq!(bounds.clamp(asked), Duration::from_secs(got), "asked for {asked}");
        }
    }

    #[test]
    fn renewal_is_half_way_and_moves_only_within_its_spread() {
        let floor = Duration::from_secs(1);
        assert_eq!(renew_at(at(1000), at(2000), Jitter::NONE, floor), at(1500));
        assert_eq!(renew_at(at(1000), at(2000), Jitter::new(0.0), floor), at(1400));
        assert_eq!(renew_at(at(1000), at(2000), Jitter::new(1.0), floor), at(1600));
    }

    #[test]
    fn renewal_never_comes_before_the_floor() {
        assert_eq!(
            renew_at(at(1000), at(1002), Jitter::NONE, Duration::from_secs(5)),
            at(1005)
        );
        assert_eq!(
            renew_at(at(1000), at(500), Jitter::NONE, Duration::from_secs(5)),
            at(1005)
        );
    }
}
