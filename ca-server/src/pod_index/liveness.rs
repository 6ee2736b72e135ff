//! Whether the index is to be believed. Pure: told what happened, asked with the time.

use std::time::Duration;

use signet_certs::UnixTime;

/// How long a watch that says nothing is believed: an event, a bookmark or a listing are its words. A
/// real API server sends a bookmark about every minute.
pub const TRUSTED_FOR: Duration = Duration::from_secs(300);

/// What is known of the watch behind the index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Liveness {
    following: bool,
    last: Option<UnixTime>,
}

impl Liveness {
    /// A listing is complete.
    pub fn listed(&mut self, now: UnixTime) {
        *self = Self {
            following: true,
            last: Some(now),
        };
    }

    /// An event or a bookmark came.
    pub fn heard(&mut self, now: UnixTime) {
        self.last = Some(now);
    }

    /// A watch was opened again where the last one had ended. Its first word is still to come.
    pub fn reopened(&mut self) {
        self.following = self.last.is_some();
    }

    /// The watch broke, or cannot be opened.
    pub fn broke(&mut self) {
        self.following = false;
    }

    /// When the last word came.
    #[must_use]
    pub fn last(&self) -> Option<UnixTime> {
        self.last
    }

    /// Whether what the index holds is to be believed at `now`. After a clock was set back the age of
    /// the last word is unknown, and then it is not.
    #[must_use]
    pub fn holds(&self, now: UnixTime) -> bool {
        let age = self
            .last
            .and_then(|last| now.as_secs().checked_sub(last.as_secs()));
        self.following && age.is_some_and(|age| age <= TRUSTED_FOR.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(second))
    }

    #[test]
    fn nothing_is_believed_before_the_first_listing() {
        let mut liveness = Liveness::default();
        assert!(!liveness.holds(at(0)));
        liveness.reopened();
        assert!(!liveness.holds(at(0)));
        liveness.listed(at(1_000));
        assert!(liveness.holds(at(1_000)));
    }

    #[test]
    fn a_silent_watch_is_believed_for_five_minutes_to_the_second_and_again_once_it_speaks() {
        let mut liveness = Liveness::default();
        liveness.listed(at(1_000));
        assert!(liveness.holds(at(1_300)));
        assert!(!liveness.holds(at(1_301)));
        liveness.heard(at(1_302));
        assert!(liveness.holds(at(1_602)));
        assert!(!liveness.holds(at(1_603)));
    }

    #[test]
    fn a_broken_watch_is_not_believed_until_it_is_open_again_and_then_by_its_last_word() {
        let mut liveness = Liveness::default();
        liveness.listed(at(1_000));
        liveness.broke();
        assert!(!liveness.holds(at(1_000)));
        liveness.reopened();
        assert!(liveness.holds(at(1_300)));
        assert!(!liveness.holds(at(1_301)));
    }

    #[test]
    fn after_the_clock_was_set_back_nothing_is_believed() {
        let mut liveness = Liveness::default();
        liveness.listed(at(1_000));
        assert!(!liveness.holds(at(999)));
    }
}
