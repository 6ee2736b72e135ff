//! What the CA answered, taken in.

use std::sync::Arc;

use signet_certs::UnixTime;
use signet_certs::lifetime::until;

use super::ask::AskError;
use super::request::Fresh;
use super::{Keeper, draw};
use crate::ca_client::{Failure, FailureKind};
use crate::rotation::Event;
use crate::svids::{Verified, Whose};

impl Keeper {
    /// The machine has the last word on an answer: what it does not accept is not held, and what was held
    /// stays (I7).
    pub(super) fn take_answer(&mut self, whose: &Whose, outcome: Result<Fresh, Failure>) {
        let now = self.parts.clock.now();
        let verified = outcome.and_then(|fresh| self.check_again(fresh, now));
        let event = match &verified {
            Ok(verified) => Event::Issued(verified.facts()),
            Err(failure) => Event::Failed {
                retry_after: failure.retry_after,
            },
        };
        self.roster.tell(whose, event, now, draw());
        let accepted = verified.and_then(|verified| {
            let accepted = self.roster.holds(whose, verified.facts());
            accepted.then_some(verified).ok_or_else(out_of_time)
        });
        match accepted {
            Ok(verified) => self.hold(whose, verified, now),
            Err(failure) => {
                let left = self.served(whose).map(|v| until(v.usable_until(), now).as_secs());
                let attempt = self.roster.failures(whose);
                self.report
                    .failed(&self.parts.shelves, whose, &failure, (attempt, left, now));
                self.reply(whose, &Err(AskError::Failed(failure)));
            }
        }
        self.show(whose, now);
    }

    fn hold(&mut self, whose: &Whose, verified: Verified, now: UnixTime) {
        self.report.succeeded(&self.parts.shelves, whose, &verified, now);
        self.parts.shelves.name(whose, verified.svid().id());
        if let Some(kept) = self.kept.get_mut(whose) {
            kept.held = Some(verified);
            kept.owes_success = true;
        }
    }

    /// The bundle may have changed since the request verified its answer.
    fn check_again(&mut self, fresh: Fresh, now: UnixTime) -> Result<Verified, Failure> {
        let Some(bundle) = self.trust.as_ref().and_then(|trust| trust.own()) else {
            return Err(Failure::new(
                FailureKind::NoBundle,
                "there is no bundle to verify the svid under",
            ));
        };
        self.report.compare_roots(&fresh.roots_pem, bundle);
        Verified::check(fresh.svid, Arc::clone(bundle), now, now)
            .map_err(|error| Failure::new(FailureKind::NotVerified, error.to_string()))
    }
}

/// An answer that came too late for the clock, or from before it was set back.
fn out_of_time() -> Failure {
    Failure::new(
        FailureKind::NotVerified,
        "the svid was over, or older than the one in use, when it was to be put in use; the clock was set meanwhile",
    )
}
