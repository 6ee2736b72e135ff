//! Calls that wait for the rest of their message. What they hold meanwhile is a stranger's, so there are
//! only so many places for them: in all, and of one address. A message that comes at once needs none.
//!
//! Who comes when all are taken gets the place of whoever has waited longest, of its own address or of all:
//! honest callers wait for as long as a packet takes, and only those who send nothing grow old.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures::task::AtomicWaker;

use crate::metrics::{Metrics, Outcomes};
use crate::shares::{Full, Share, Shares, Taken};

/// Most such calls. Each holds one list of headers and one message, at their longest about a hundred
/// kilobytes together.
const MOST: usize = 512;
/// Most of one address: more than one connection has calls.
const MOST_OF_ONE: usize = 128;

/// There is no place to wait any longer.
#[derive(Debug)]
pub(super) struct NoPlace;

/// The places of this process.
#[derive(Clone)]
pub(super) struct Waiting(Arc<Places>);

struct Places {
    shares: Shares,
    table: Mutex<Table>,
    refused: Outcomes,
}

/// Who waits, by age.
#[derive(Default)]
struct Table {
    held: BTreeMap<u64, Held>,
    next: u64,
}

struct Held {
    share: Share,
    peer: Option<SocketAddr>,
    end: Arc<End>,
}

/// How one that waits hears that its place is another's.
#[derive(Default)]
struct End {
    lost: AtomicBool,
    waker: AtomicWaker,
}

impl Waiting {
    pub(super) fn new(refused: Outcomes) -> Self {
        Self::with(Shares::new(MOST, MOST_OF_ONE), refused)
    }

    fn with(shares: Shares, refused: Outcomes) -> Self {
        let table = Mutex::default();
        Self(Arc::new(Places {
            shares,
            table,
            refused,
        }))
    }

    /// For one call, which has not waited yet.
    pub(super) fn call(&self, peer: Option<SocketAddr>) -> Wait {
        Wait {
            places: Arc::clone(&self.0),
            peer,
            place: None,
        }
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the youngest, by the end of the oldest where there is none.
    fn take(self: &Arc<Self>, peer: Option<SocketAddr>) -> Result<Place, NoPlace> {
        let address = peer.map(|peer| peer.ip());
        let mut table = self.lock();
        let mut ended = None;
        let share = match self.shares.take(address) {
            Ok(share) => share,
            Err(taken) => {
                let Held { share, peer, end } = table.oldest(taken.full, address).ok_or(NoPlace)?;
                drop(share);
                ended = Some((taken, peer, end));
                self.shares.take(address).map_err(|_| NoPlace)?
            }
        };
        let place = Place {
            places: Arc::clone(self),
            number: table.next,
            end: Arc::default(),
        };
        table.next += 1;
        let end = Arc::clone(&place.end);
        table.held.insert(place.number, Held { share, peer, end });
        drop(table);
        if let Some((taken, peer, end)) = ended {
            end.come();
            self.tell(taken, peer);
        }
        Ok(place)
    }

    fn tell(&self, taken: Taken, peer: Option<SocketAddr>) {
        let reason = taken.full.as_str();
        Metrics::count(&self.refused, reason);
        if taken.tell {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(
                peer.addr = peer,
                reason,
                "calls refused: too many wait for the rest of their message"
            );
        }
    }
}

impl Table {
    /// Takes out whoever has waited longest: of `address`, or of all.
    fn oldest(&mut self, full: Full, address: Option<IpAddr>) -> Option<Held> {
        let mut by_age = self.held.iter();
        let (number, _) = by_age.find(|(_, held)| full == Full::All || held.share.is_of(address))?;
        let number = *number;
        self.held.remove(&number)
    }
}

impl End {
    fn come(&self) {
        self.lost.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// A place, given back on drop.
struct Place {
    places: Arc<Places>,
    number: u64,
    end: Arc<End>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().held.remove(&self.number);
    }
}

/// One call's place, once it had to wait.
pub(super) struct Wait {
    places: Arc<Places>,
    peer: Option<SocketAddr>,
    place: Option<Place>,
}

impl Wait {
    /// The rest is not there yet. The task is woken when the place is lost.
    pub(super) fn begin(&mut self, cx: &Context<'_>) -> Result<(), NoPlace> {
        let place = match &self.place {
            Some(place) => place,
            None => self.place.insert(self.places.take(self.peer)?),
        };
        // In this order: an end in between wakes.
        place.end.waker.register(cx.waker());
        match place.end.lost.load(Ordering::Acquire) {
            true => Err(NoPlace),
            false => Ok(()),
        }
    }

    /// Everything is there.
    pub(super) fn end(&mut self) {
        self.place = None;
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;
    use crate::metrics::Outcome;

    /// Places for three, two of one address.
    fn places() -> (Waiting, Outcomes) {
        let refused = Outcomes::default();
        (Waiting::with(Shares::new(3, 2), refused.clone()), refused)
    }

    fn from(waiting: &Waiting, address: &str) -> Wait {
        let mut wait = waiting.call(Some(SocketAddr::new(address.parse().unwrap(), 1)));
        assert!(waits(&mut wait), "the newcomer has a place at once");
        wait
    }

    fn waits(wait: &mut Wait) -> bool {
        wait.begin(&Context::from_waker(noop_waker_ref())).is_ok()
    }

    fn counted(refused: &Outcomes, full: Full) -> u64 {
        let outcome = full.as_str();
        refused.get_or_create(&Outcome { outcome }).get()
    }

    #[test]
    fn at_the_share_of_an_address_its_oldest_ends() {
        let (waiting, refused) = places();
        let mut other = from(&waiting, "10.0.0.2");
        let mut held = [from(&waiting, "10.0.0.1"), from(&waiting, "10.0.0.1")];
        let mut third = from(&waiting, "10.0.0.1");
        assert_eq!(held.each_mut().map(waits), [false, true]);
        assert!(waits(&mut other) && waits(&mut third));
        assert_eq!(counted(&refused, Full::One), 1);
        assert!(!waits(&mut held[0]), "and does not come in again");
        assert_eq!(counted(&refused, Full::All), 0);
    }

    #[test]
    fn when_all_are_taken_the_oldest_of_all_ends() {
        let (waiting, refused) = places();
        let mut held = ["10.0.0.1", "10.0.0.1", "10.0.0.2"].map(|address| from(&waiting, address));
        let mut fourth = from(&waiting, "10.0.0.3");
        assert_eq!(held.each_mut().map(waits), [false, true, true]);
        assert!(waits(&mut fourth));
        assert_eq!(counted(&refused, Full::All), 1);
    }

    #[test]
    fn who_has_all_of_its_message_or_leaves_makes_room() {
        let (waiting, refused) = places();
        let mut served = from(&waiting, "10.0.0.1");
        let left = from(&waiting, "10.0.0.1");
        served.end();
        drop(left);
        let mut held = [from(&waiting, "10.0.0.1"), from(&waiting, "10.0.0.1")];
        assert_eq!(held.each_mut().map(waits), [true, true]);
        assert_eq!(counted(&refused, Full::One), 0);
        drop((served, held));
        assert!(waiting.0.lock().held.is_empty());
    }

    #[tokio::test]
    async fn one_that_waits_is_woken_when_its_place_is_lost() {
        let (waiting, _) = places();
        let mut first = waiting.call(None);
        let lost = std::future::poll_fn(|cx| match first.begin(cx) {
            Ok(()) => std::task::Poll::Pending,
            Err(none) => std::task::Poll::Ready(none),
        });
        let others = async {
            let mut others = [waiting.call(None), waiting.call(None)];
            others.each_mut().map(waits)
        };
        let (NoPlace, others) = tokio::join!(lost, others);
        assert_eq!(others, [true, true]);
    }
}
