//! How slow the other end may be: it is waited for so long for each piece, and a little now and then does not count
//! as one. Pure.

use std::time::Duration;

/// What counts as a piece: with the minute that is allowed by default, fewer than 280 bytes a second are too slow.
pub const PIECE: usize = 16 * 1024;

/// How long the other end was waited for since it last moved a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// It was waited for so long.
    pub fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// It moved so many bytes. A whole piece makes up for all waits before.
    pub fn moved(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= u64::try_from(PIECE).unwrap_or(u64::MAX) {
            *self = Self::default();
        }
    }

    /// What is left of `allowance` for this piece.
    #[must_use]
    pub fn left(&self, allowance: Duration) -> Duration {
        allowance.saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_byte_now_and_then_is_no_piece_and_a_piece_makes_up_for_all_waits() {
        let mut pace = Pace::default();
        for second in 0..59 {
            pace.waited(Duration::from_secs(1));
            pace.moved(1);
            assert_eq!(pace.left(MINUTE), Duration::from_secs(59 - second));
        }
        pace.waited(Duration::from_secs(9));
        assert_eq!(pace.left(MINUTE), Duration::ZERO);
        pace.moved(16 * 1024);
        assert_eq!(pace.left(MINUTE), MINUTE);
    }

    #[test]
    fn who_moves_300_bytes_a_second_goes_on_for_ever() {
        let mut pace = Pace::default();
        for _ in 0..100_000 {
            pace.waited(Duration::from_secs(1));
            assert!(!pace.left(MINUTE).is_zero());
            pace.moved(300);
        }
    }
}
