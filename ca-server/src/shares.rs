//! Places for strangers: so many in all, so many of one address. No token is known yet of those who take
//! them, so the address is all that tells one from another.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where somebody is: an IPv4 address, or the /64 that an IPv6 host chooses its addresses from.
type Origin = Option<IpAddr>;

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub struct Shares {
    most: usize,
    most_of_one: usize,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    all: usize,
    of_one: BTreeMap<Origin, Count>,
    told: bool,
}

#[derive(Debug, Default)]
struct Count {
    taken: usize,
    /// Whether a refusal was told since it had none.
    told: bool,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// That of all.
    All,
    /// That of the one address.
    One,
}

impl Full {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "too_many",
            Self::One => "too_many_of_one",
        }
    }
}

/// There is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// For want of which.
    pub full: Full,
    /// Whether it is the first such refusal since there was room: worth a line in the log.
    pub first: bool,
}

impl Shares {
    /// So many in all, and of one address.
    #[must_use]
    pub fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            most,
            most_of_one,
            table: Arc::default(),
        }
    }

    /// A place for one at `address`, given back on drop.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(&self, address: Option<IpAddr>) -> Result<Share, Taken> {
        let origin = address.map(origin);
        let mut table = self.lock();
        let table = &mut *table;
        let of_one = table.of_one.get_mut(&origin);
        if of_one.as_ref().map_or(0, |count| count.taken) >= self.most_of_one {
            let first = of_one.is_some_and(|count| !std::mem::replace(&mut count.told, true));
            let full = Full::One;
            return Err(Taken { full, first });
        }
        if table.all >= self.most {
            let first = !std::mem::replace(&mut table.told, true);
            let full = Full::All;
            return Err(Taken { full, first });
        }
        table.of_one.entry(origin).or_default().taken += 1;
        table.all += 1;
        Ok(Share {
            shares: self.clone(),
            origin,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    origin: Origin,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut table = self.shares.lock();
        table.all = table.all.saturating_sub(1);
        table.told = false;
        if let Some(count) = table.of_one.get_mut(&self.origin) {
            count.taken = count.taken.saturating_sub(1);
            if count.taken == 0 {
                table.of_one.remove(&self.origin);
            }
        }
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

    fn full(shares: &Shares, address: &str) -> Option<(Full, bool)> {
        let taken = shares.take(address.parse().ok()).err();
        taken.map(|taken| (taken.full, taken.first))
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others_and_places_come_back() {
        let shares = Shares::new(5, 2);
        let take = |address: &str| shares.take(address.parse().ok()).unwrap();
        let first = take("10.0.0.1");
        let _second = take("10.0.0.1");
        assert_eq!(full(&shares, "10.0.0.1"), Some((Full::One, true)));
        assert_eq!(full(&shares, "10.0.0.1"), Some((Full::One, false)), "told once");
        let _others = [take("10.0.0.2"), take("10.0.0.3")];
        drop(first);
        let _again = take("10.0.0.1");
        let _fifth = take("10.0.0.4");
        assert_eq!(full(&shares, "10.0.0.5"), Some((Full::All, true)));
        assert_eq!(full(&shares, "10.0.0.2"), Some((Full::All, false)));
    }

    #[test]
    fn the_addresses_of_one_host_are_one() {
        let shares = Shares::new(9, 2);
        let take = |address: &str| shares.take(address.parse().ok()).unwrap();
        let _six = [take("2001:db8::1"), take("2001:db8::2")];
        assert_eq!(full(&shares, "2001:db8::ffff:3"), Some((Full::One, true)));
        let _other = take("2001:db8:0:1::1");
        let _four = [take("10.0.0.1"), take("::ffff:10.0.0.1")];
        assert_eq!(full(&shares, "10.0.0.1"), Some((Full::One, true)));
    }

    #[test]
    fn nothing_is_remembered_of_those_who_left_or_were_refused() {
        let shares = Shares::new(1, 1);
        let held = shares.take("10.0.0.1".parse().ok()).unwrap();
        for last in 2..=255 {
            let address = IpAddr::from([10, 0, 0, last]);
            assert_eq!(shares.take(Some(address)).unwrap_err().full, Full::All);
        }
        assert_eq!(shares.lock().of_one.len(), 1);
        drop(held);
        assert!(shares.lock().of_one.is_empty() && shares.lock().all == 0);
    }
}
