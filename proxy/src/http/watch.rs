//! What a connection's driver waits for besides its bytes: the time, the end of our SVID, the end of the process.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use signet_certs::UnixTime;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFuture;

use super::docket::Fate;
use super::gate::Overdue;
use super::limits::HttpLimits;
use super::ticket::Account;
use crate::connection::Direction;

/// The end of an SVID is by the wall clock, which may be set: it is looked at again at least this often.
const LONGEST_NAP: Duration = Duration::from_secs(30);
/// A connection that is idle for so long gives back what a parser of HTTP needs: memory is for those who speak.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// How a connection ended, where not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// By time.
    Overdue(Overdue),
    /// Because hyper gave it up.
    Broken,
    /// It is idle, and may be parked.
    Quiet,
    /// What permitted it does so no longer. Its record is written.
    Withdrawn,
}

/// What a connection's driver waits for besides its bytes.
pub(super) struct Watch<'a> {
    tick: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFuture<'a>>>,
    draining: bool,
    /// Whether an idle connection is to be told of.
    parks: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(account: &'a Account, limits: &HttpLimits, parks: bool) -> Self {
        Self {
            tick: Box::pin(tokio::time::sleep_until(account.gate.due(limits))),
            stop: Box::pin(account.shared.drain.cancelled()),
            draining: false,
            parks,
        }
    }

    /// Ready with why to cut the connection, or with nothing when it should take no more requests.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        account: &Account,
        limits: &HttpLimits,
    ) -> Poll<Option<Cut>> {
        match account.docket.fate() {
            Some(Fate::Over) => return Poll::Ready(Some(Cut::Withdrawn)),
            // Nothing is under way that would have to be told.
            Some(Fate::Ending) if self.parks && !account.gate.is_busy() => {
                return Poll::Ready(Some(Cut::Withdrawn));
            }
            Some(Fate::Ending) if !self.draining => {
                self.draining = true;
                return Poll::Ready(None);
            }
            Some(Fate::Ending) | None => {}
        }
        if !self.draining && self.stop.as_mut().poll(cx).is_ready() {
            self.draining = true;
            return Poll::Ready(None);
        }
        let due = self.due(account, limits);
        // A deadline that moved away is found out when the old one comes: that is cheaper than moving it each time.
        if due < self.tick.deadline() {
            self.tick.as_mut().reset(due);
        }
        while self.tick.as_mut().poll(cx).is_ready() {
            if let Some(overdue) = account.gate.overdue(limits) {
                return Poll::Ready(Some(Cut::Overdue(overdue)));
            }
            if self.parks
                && !self.draining
                && account
                    .gate
                    .quiet(PARK_AFTER)
                    .is_some_and(|at| at <= Instant::now())
            {
                return Poll::Ready(Some(Cut::Quiet));
            }
            if !self.draining && has_expired(account) {
                self.draining = true;
                return Poll::Ready(None);
            }
            let due = self.due(account, limits);
            self.tick.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn due(&self, account: &Account, limits: &HttpLimits) -> Instant {
        let due = account.gate.due(limits);
        let quiet = account
            .gate
            .quiet(PARK_AFTER)
            .filter(|_| self.parks && !self.draining);
        let due = quiet.map_or(due, |at| at.min(due));
        match presented_until(account) {
            Some(end) if !self.draining => {
                let left = end.as_secs().saturating_sub(account.shared.clock.now().as_secs()) + 1;
                due.min(Instant::now() + Duration::from_secs(left).min(LONGEST_NAP))
            }
            _ => due,
        }
    }
}

/// The end of the SVID that this very connection was opened with. The workload's own connections to us have none:
/// those to upstreams retire on their own.
fn presented_until(account: &Account) -> Option<UnixTime> {
    let inbound = account.accepted.direction == Direction::Inbound;
    account.accepted.own_not_after.filter(|_| inbound)
}

/// Whether the SVID that the connection was opened with has ended.
fn has_expired(account: &Account) -> bool {
    let end = presented_until(account);
    end.is_some_and(|end| end < account.shared.clock.now())
}
