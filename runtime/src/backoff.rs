//! Capped exponential waits with full jitter: `share` of `min(cap, base × 2^attempt)`.

use std::time::Duration;

/// How long to wait before trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub base: Duration,
    /// Bound of every wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `attempt` failures (0 for the first), by a `share` drawn from 0 to 1. Never less
    /// than a tenth of the bound, so that unlucky draws do not become a storm.
    #[must_use]
    pub fn delay(&self, attempt: u32, share: f64) -> Duration {
        let bound = self
            .base
            .saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX))
            .min(self.cap);
        bound.mul_f64(if share.is_nan() {
            1.0
        } else {
            share.clamp(0.1, 1.0)
        })
    }
}

/// A share of 1, from the system's random source; one half where that fails.
#[must_use]
pub fn random_share() -> f64 {
    let mut bytes = [0u8; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        _ => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_keep_a_tenth() {
        let backoff = Backoff {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(30),
        };
        assert_eq!(backoff.delay(0, 1.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(3, 1.0), Duration::from_secs(8));
        assert_eq!(backoff.delay(200, 1.0), Duration::from_secs(30));
        assert_eq!(backoff.delay(200, 0.0), Duration::from_secs(3));
    }
}
