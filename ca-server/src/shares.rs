//! Places for strangers: so many in all, so many of one address. No token is known yet of those who take
//! them, so the address is all that tells one from another.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A bound that is reached is told at most as often: strangers reach it as often as they like.
const TELL_EVERY: Duration = Duration::from_secs(60);

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
    of_one: BTreeMap<Origin, usize>,
    /// When each bound was told of last.
    told_all: Option<Instant>,
    told_one: Option<Instant>,
}

impl Table {
    /// That `full` is reached, and whether to tell.
    fn refuse(&mut self, full: Full) -> Taken {
        let now = Instant::now();
        let told = match full {
            Full::All => &mut self.told_all,
            Full::One => &mut self.told_one,
        };
        let tell = told.is_none_or(|last| now.duration_since(last) >= TELL_EVERY);
        if tell {
            *told = Some(now);
        }
        Taken { full, tell }
    }
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
    /// Whether it is the first such refusal for a minute: worth a line in the log.
    pub tell: bool,
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
        if table.of_one.get(&origin).copied().unwrap_or(0) >= self.most_of_one {
            return Err(table.refuse(Full::One));
        }
        if table.all >= self.most {
            return Err(table.refuse(Full::All));
        }
        *table.of_one.entry(origin).or_default() += 1;
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

impl Share {
    /// Whether it counts against the share of `address`.
    pub(crate) fn is_of(&self, address: Option<IpAddr>) -> bool {
        self.origin == address.map(origin)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut table = self.shares.lock();
        table.all = table.all.saturating_sub(1);
        if let Some(taken) = table.of_one.get_mut(&self.origin) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
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
        taken.map(|taken| (taken.full, taken.tell))
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

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_comes_and_goes_at_the_bound_is_told_of_once_a_minute() {
        let shares = Shares::new(9, 1);
        let mut told = 0;
        for seconds in 0..180 {
            // Fills its share, is refused, and makes room again.
            let address = IpAddr::from([10, 0, 0, seconds]);
            let _held = shares.take(Some(address)).unwrap();
            told += u32::from(shares.take(Some(address)).unwrap_err().tell);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(told, 3);
    }

    #[test]
    fn the_addresses_of_one_host_are_one() {
        let shares = Shares::new(9, 2);
        let take = |address: &str| shares.take(address.parse().ok()).unwrap();
        let _six = [take("2001:db8::1"), take("2001:db8::2")];
        assert_eq!(full(&shares, "2001:db8::ffff:3"), Some((Full::One, true)));
        let _other = take("2001:db8:0:1::1");
        let _four = [take("10.0.0.1"), take("::ffff:10.0.0.1")];
        assert_eq!(
            full(&shares, "10.0.0.1"),
            Some((Full::One, false)),
            "told a moment ago"
        );
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
