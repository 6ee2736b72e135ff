//! Who follows the bundle: so many in all, so many from one address.

use std::net::IpAddr;

use crate::metrics::Metrics;
use crate::shares::{Full, Share, Shares};

/// Most agents following at once; each holds one stream.
const MOST: usize = 10_000;
/// Most from one address. An agent of a node has one of its own; the machines of a whole site may share
/// that of their gateway.
const MOST_OF_ONE: usize = 512;

/// The bound. Clones share it.
#[derive(Clone)]
pub(super) struct Followers {
    places: Shares,
    metrics: Metrics,
}

/// What a caller is told for whom there is no place.
pub(super) fn text(full: Full) -> &'static str {
    match full {
        Full::All => "too many agents follow the bundle here; try another replica",
        Full::One => "too many agents follow the bundle here from your address",
    }
}

impl Followers {
    pub(super) fn new(metrics: Metrics) -> Self {
        let places = Shares::new(MOST, MOST_OF_ONE);
        Self { places, metrics }
    }

    /// A place for one at `address`, given back on drop; a refusal is counted, and logged at most once
    /// a minute.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Result<Follower, Full> {
        let taken = match self.places.take(address) {
            Ok(place) => return Ok(Follower::counted(place, &self.metrics)),
            Err(taken) => taken,
        };
        let reason = taken.full.as_str();
        Metrics::count(&self.metrics.bundle_watch_refusals, reason);
        if taken.tell {
            let address = address.map(tracing::field::display);
            tracing::warn!(
                peer.addr = address,
                reason,
                "bundle watch refused: too many follow it"
            );
        }
        Err(taken.full)
    }
}

/// One follower's place.
pub(super) struct Follower {
    _place: Share,
    metrics: Metrics,
}

impl Follower {
    fn counted(place: Share, metrics: &Metrics) -> Self {
        metrics.bundle_watchers.inc();
        Self {
            _place: place,
            metrics: metrics.clone(),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.metrics.bundle_watchers.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Outcome;

    #[test]
    fn followers_and_those_there_is_no_room_for_are_counted() {
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let followers = Followers {
            places: Shares::new(2, 1),
            metrics: metrics.clone(),
        };
        let admit = |address: &str| followers.admit(address.parse().ok());
        let held = [admit("10.0.0.1").ok().unwrap(), admit("10.0.0.2").ok().unwrap()];
        assert_eq!(admit("10.0.0.1").err(), Some(Full::One));
        assert_eq!(admit("10.0.0.3").err(), Some(Full::All));
        assert_eq!(metrics.bundle_watchers.get(), 2);
        for outcome in ["too_many", "too_many_of_one"] {
            let refusals = &metrics.bundle_watch_refusals;
            assert_eq!(refusals.get_or_create(&Outcome { outcome }).get(), 1);
        }
        drop(held);
        assert_eq!(metrics.bundle_watchers.get(), 0);
        assert!(admit("10.0.0.3").is_ok());
    }
}
