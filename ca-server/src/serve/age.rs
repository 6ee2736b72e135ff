//! The age of a connection. Who has one long enough is told to dial again, so that callers spread over
//! replicas that came later and leave one that cannot serve them.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Calls end long before this; what is left is a peer that does not take its answer.
const GRACE: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Take no more calls; those under way go on.
    Retire,
    /// Close.
    Close,
}

/// Goes off twice.
pub(super) struct Age {
    timer: Pin<Box<Sleep>>,
    next: Option<Stage>,
}

impl Age {
    /// Around `age`, by a tenth sooner or later as `share` (0 to 1) says: connections that began together
    /// do not end together.
    pub(super) fn new(age: Duration, share: f64) -> Self {
        Self {
            timer: Box::pin(sleep(age.mul_f64(0.9 + share.clamp(0.0, 1.0) * 0.2))),
            next: Some(Stage::Retire),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stage> {
        let Some(stage) = self.next else {
            return Poll::Pending;
        };
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.next = match stage {
            Stage::Retire => Some(Stage::Close),
            Stage::Close => None,
        };
        self.timer.as_mut().reset(Instant::now() + GRACE);
        // Registers the timer anew; it cannot have gone off yet.
        let _ = self.timer.as_mut().poll(cx);
        Poll::Ready(stage)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_retires_around_its_age_and_is_closed_a_minute_later() {
        for (share, seconds) in [(0.0, 1_620), (0.5, 1_800), (1.0, 1_980)] {
            let began = Instant::now();
            let mut age = Age::new(Duration::from_secs(1_800), share);
            assert_eq!(poll_fn(|cx| age.poll(cx)).await, Stage::Retire);
            assert_eq!(began.elapsed().as_secs(), seconds);
            assert_eq!(poll_fn(|cx| age.poll(cx)).await, Stage::Close);
            assert_eq!(began.elapsed().as_secs(), seconds + 60);
        }
    }
}
