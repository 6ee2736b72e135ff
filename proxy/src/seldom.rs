//! Words for the log that a stranger could have us say as often as they like: the first of each kind is said, and then
//! one in each minute, with how many were left out. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long is said nothing of a kind after something was.
const EVERY: Duration = Duration::from_secs(60);

/// What was said last, by kind.
#[derive(Debug, Default)]
pub struct Seldom(Vec<Said>);

#[derive(Debug)]
struct Said {
    /// Of a fixed list, so that they are few.
    kind: &'static str,
    at: Instant,
    left_out: u64,
}

impl Seldom {
    /// Whether something of this kind is to be said, and how often it was not since it last was.
    pub fn ask(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let Some(known) = self.0.iter_mut().find(|known| known.kind == kind) else {
            self.0.push(Said {
                kind,
                at: now,
                left_out: 0,
            });
            return Some(0);
        };
        if now.saturating_duration_since(known.at) < EVERY {
            known.left_out += 1;
            return None;
        }
        known.at = now;
        Some(std::mem::take(&mut known.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_is_said_and_then_one_in_a_minute_with_how_many_were_not() {
        let (mut seldom, begin) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.ask("one", begin), Some(0));
        for second in 0..60 {
            assert_eq!(seldom.ask("one", begin + Duration::from_secs(second)), None);
        }
        assert_eq!(seldom.ask("other", begin + EVERY / 2), Some(0), "of another kind");
        assert_eq!(seldom.ask("one", begin + EVERY), Some(60));
        assert_eq!(seldom.ask("one", begin + EVERY * 3), Some(0));
    }
}
