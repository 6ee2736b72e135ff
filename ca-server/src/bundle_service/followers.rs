//! Who follows the bundle: so many in all, so many from one address. No token is asked of them, so the
//! address is all that tells one from another.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::Metrics;

/// Most agents following at once; each holds one stream.
const MOST: usize = 10_000;
/// Most from one address. An agent of a node has one of its own; the machines of a whole site may share
/// that of their gateway.
const MOST_OF_ONE: usize = 512;

/// Where a follower is: an IPv4 address, or the /64 that an IPv6 host chooses its addresses from.
type Origin = Option<IpAddr>;

/// The bound. Clones share it.
#[derive(Clone)]
pub(super) struct Followers {
    most: usize,
    most_of_one: usize,
    table: Arc<Mutex<Table>>,
    metrics: Metrics,
}

#[derive(Default)]
struct Table {
    all: usize,
    of_one: BTreeMap<Origin, Count>,
    told: bool,
}

#[derive(Default)]
struct Count {
    streams: usize,
    /// Whether a refusal was logged since it had none.
    told: bool,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// That of all.
    All,
    /// That of the one address.
    One,
}

impl Full {
    fn as_str(self) -> &'static str {
        match self {
            Self::All => "too_many",
            Self::One => "too_many_of_one",
        }
    }

    /// What the caller is told.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::All => "too many agents follow the bundle here; try another replica",
            Self::One => "too many agents follow the bundle here from your address",
        }
    }
}

impl Followers {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self::bounded(MOST, MOST_OF_ONE, metrics)
    }

    fn bounded(most: usize, most_of_one: usize, metrics: Metrics) -> Self {
        Self {
            most,
            most_of_one,
            table: Arc::default(),
            metrics,
        }
    }

    /// A place for one at `address`, given back on drop; a refusal is counted, and logged once until there
    /// was room again.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Result<Follower, Full> {
        let origin = address.map(origin);
        let mut table = self.lock();
        let table = &mut *table;
        let streams = table.of_one.get(&origin).map_or(0, |count| count.streams);
        if streams >= self.most_of_one {
            let told = table.of_one.get_mut(&origin).map(|count| &mut count.told);
            let told = told.is_none_or(|told| std::mem::replace(told, true));
            return Err(self.refuse(Full::One, address, told));
        }
        if table.all >= self.most {
            let told = std::mem::replace(&mut table.told, true);
            return Err(self.refuse(Full::All, address, told));
        }
        let count = table.of_one.entry(origin).or_default();
        count.streams += 1;
        table.all += 1;
        self.metrics.bundle_watchers.inc();
        Ok(Follower {
            followers: self.clone(),
            origin,
        })
    }

    fn refuse(&self, full: Full, address: Option<IpAddr>, told: bool) -> Full {
        let reason = full.as_str();
        Metrics::count(&self.metrics.bundle_watch_refusals, reason);
        if !told {
            let address = address.map(tracing::field::display);
            tracing::warn!(
                peer.addr = address,
                reason,
                "bundle watch refused: too many follow it"
            );
        }
        full
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One follower's place.
pub(super) struct Follower {
    followers: Followers,
    origin: Origin,
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut table = self.followers.lock();
        table.all = table.all.saturating_sub(1);
        table.told = false;
        if let Some(count) = table.of_one.get_mut(&self.origin) {
            count.streams = count.streams.saturating_sub(1);
            if count.streams == 0 {
                table.of_one.remove(&self.origin);
            }
        }
        drop(table);
        self.followers.metrics.bundle_watchers.dec();
    }
}

fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64))),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Outcome;

    fn followers(most: usize, most_of_one: usize) -> Followers {
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        Followers::bounded(most, most_of_one, metrics)
    }

    fn refusals(followers: &Followers, outcome: &'static str) -> u64 {
        let refusals = &followers.metrics.bundle_watch_refusals;
        refusals.get_or_create(&Outcome { outcome }).get()
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others_and_places_come_back() {
        let followers = followers(5, 2);
        let admit = |address: &str| followers.admit(Some(address.parse().unwrap()));
        let first = admit("10.0.0.1").ok().unwrap();
        let _second = admit("10.0.0.1").ok().unwrap();
        assert_eq!(admit("10.0.0.1").err(), Some(Full::One));
        let _others = [admit("10.0.0.2").ok().unwrap(), admit("10.0.0.3").ok().unwrap()];
        drop(first);
        let _again = admit("10.0.0.1").ok().unwrap();
        let _fifth = admit("10.0.0.4").ok().unwrap();
        assert_eq!(admit("10.0.0.5").err(), Some(Full::All));
        assert_eq!(admit("10.0.0.2").err(), Some(Full::All));
        assert_eq!(followers.metrics.bundle_watchers.get(), 5);
        assert_eq!(
            (
                refusals(&followers, "too_many"),
                refusals(&followers, "too_many_of_one")
            ),
            (2, 1)
        );
    }

    #[test]
    fn the_addresses_of_one_host_are_one() {
        let followers = followers(9, 2);
        let admit = |address: &str| followers.admit(Some(address.parse().unwrap()));
        let _six = [
            admit("2001:db8::1").ok().unwrap(),
            admit("2001:db8::2").ok().unwrap(),
        ];
        assert_eq!(admit("2001:db8::ffff:3").err(), Some(Full::One));
        let _other = admit("2001:db8:0:1::1").ok().unwrap();
        let _four = [
            admit("10.0.0.1").ok().unwrap(),
            admit("::ffff:10.0.0.1").ok().unwrap(),
        ];
        assert_eq!(admit("10.0.0.1").err(), Some(Full::One));
    }

    #[test]
    fn nothing_is_remembered_of_those_who_left_or_were_refused() {
        let followers = followers(1, 1);
        let held = followers.admit("10.0.0.1".parse().ok()).ok().unwrap();
        for last in 2..=255 {
            let address = IpAddr::from([10, 0, 0, last]);
            assert_eq!(followers.admit(Some(address)).err(), Some(Full::All));
        }
        assert_eq!(followers.lock().of_one.len(), 1);
        drop(held);
        assert!(followers.lock().of_one.is_empty() && followers.metrics.bundle_watchers.get() == 0);
    }
}
