use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::config::Speaks;
use crate::metrics::labels::Census;
use crate::outbound::Address;

fn upstream(port: u16) -> Upstream {
    Upstream {
        address: Address::Socket(SocketAddr::from(([10, 0, 0, 1], port))),
        expected: None,
        speaks: Speaks::Http1,
    }
}

#[test]
fn upstreams_beyond_the_pools_that_are_kept_have_their_places_in_common_and_are_counted() {
    let mut registry = prometheus_client::registry::Registry::default();
    let pools = Pools::new(HttpMetrics::new(&mut registry, &Census::default()));
    let mut used: Vec<_> = (1..=4096).map(|port| pools.of(&upstream(port), 1, 1)).collect();
    assert_eq!(pools.metrics.beyond_pools.get(), 0);
    let [one, again, other] = [5000, 5000, 6000].map(|port| pools.of(&upstream(port), 1, 1));
    assert_eq!(pools.metrics.beyond_pools.get(), 3);
    let own = one.share(IpAddr::from([127, 0, 0, 1]));
    let place = one.places.try_take(&own).unwrap();
    assert!(again.places.try_take(&own).is_none(), "the same upstream");
    assert!(other.places.try_take(&own).is_none(), "another one beyond");
    assert!(used[0].places.try_take(&own).is_some(), "one that is kept");
    drop(place);
    assert!(other.places.try_take(&own).is_some());
    used.truncate(4000);
    drop(pools.of(&upstream(7000), 1, 1));
    assert_eq!(pools.metrics.beyond_pools.get(), 3, "there is room again");
}
