//! Places at an upstream: so many in all, and so many of them for the clients of one address, so that none of them
//! keeps the others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shares that are kept before those without connections are looked for.
const FEW: usize = 64;

/// What an upstream has to share out.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_source: usize,
    shares: Mutex<Shares>,
}

#[derive(Debug, Default)]
struct Shares {
    of: HashMap<IpAddr, Weak<Semaphore>>,
    /// So many that those which nobody holds are looked for.
    many: usize,
}

/// The share of one address; nothing for whom there is no bound but the upstream's.
#[derive(Clone, Debug)]
pub struct Share(Option<Arc<Semaphore>>);

/// A place that is taken, as long as it is held.
#[derive(Debug)]
pub struct Permit {
    _all: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(all: usize, per_source: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            per_source,
            shares: Mutex::default(),
        }
    }

    /// The share of the clients at `source`; those of the own host have no bound but the upstream's.
    pub(super) fn share(&self, source: IpAddr) -> Share {
        if source.is_loopback() {
            return Share(None);
        }
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.of.get(&source).and_then(Weak::upgrade) {
            return Share(Some(share));
        }
        if shares.of.len() >= shares.many.max(FEW) {
            shares.of.retain(|_, share| share.strong_count() > 0);
            let kept = shares.of.len() * 2;
            shares.of.shrink_to(kept);
            shares.many = kept;
        }
        let share = Arc::new(Semaphore::new(self.per_source));
        shares.of.insert(source, Arc::downgrade(&share));
        Share(Some(share))
    }

    /// Whether nobody else could have one either.
    pub(super) fn are_used_up(&self) -> bool {
        self.all.available_permits() == 0
    }

    /// A place, if there is one now.
    pub(super) fn try_take(&self, share: &Share) -> Option<Permit> {
        let of_share = match &share.0 {
            Some(share) => Some(Arc::clone(share).try_acquire_owned().ok()?),
            None => None,
        };
        Some(Permit {
            _all: Arc::clone(&self.all).try_acquire_owned().ok()?,
            _share: of_share,
        })
    }

    /// A place, as soon as there is one.
    pub(super) async fn take(&self, share: &Share) -> Option<Permit> {
        let of_share = match &share.0 {
            Some(share) => Some(Arc::clone(share).acquire_owned().await.ok()?),
            None => None,
        };
        Some(Permit {
            _all: Arc::clone(&self.all).acquire_owned().await.ok()?,
            _share: of_share,
        })
    }
}

impl Share {
    /// Whether nothing of it is left.
    pub(super) fn is_used_up(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|share| share.available_permits() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_leaves_places_for_the_others_whatever_its_connections() {
        let places = Places::new(4, 2);
        let (one, again) = (places.share(from(1)), places.share(from(1)));
        let held = [places.try_take(&one).unwrap(), places.try_take(&again).unwrap()];
        assert!(places.try_take(&one).is_none() && one.is_used_up() && !places.are_used_up());
        let other = places.share(from(2));
        let _two = [places.try_take(&other).unwrap(), places.try_take(&other).unwrap()];
        let own = places.share(IpAddr::from([127, 0, 0, 1]));
        assert!(places.try_take(&own).is_none() && !own.is_used_up() && places.are_used_up());
        drop(held);
        assert!(places.try_take(&own).is_some());
        assert!(places.try_take(&one).is_some());
    }

    #[test]
    fn a_place_that_is_not_had_takes_nothing_of_the_share() {
        let places = Places::new(1, 1);
        let (one, other) = (places.share(from(1)), places.share(from(2)));
        let held = places.try_take(&one).unwrap();
        assert!(places.try_take(&other).is_none());
        assert!(!other.is_used_up());
        drop(held);
        assert!(places.try_take(&other).is_some());
    }

    #[test]
    fn the_shares_of_those_who_left_are_forgotten() {
        let places = Places::new(4, 2);
        let stays = places.share(from(1));
        for number in 0..10_000_u32 {
            places.share(IpAddr::from(number.to_be_bytes()));
        }
        let shares = places.shares.lock().unwrap();
        assert!(shares.of.len() <= FEW && shares.of.contains_key(&from(1)));
        drop((shares, stays));
    }
}
