//! Istio's labels of the two ends of a connection, and how many label sets there may be.
//!
//! The local side is what the configuration says, the other side what its certificate says: its principal. All else
//! about it is `unknown`. Principals come from outside, and so does much of what becomes of requests: so there is room
//! for so many peers, for so much of each, and for so much of all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use signet_certs::SpiffeId;

use crate::config::Local;
use crate::connection::{Accepted, Direction};

/// Peers with series of their own; the others share theirs.
pub const MAX_PEERS: usize = 1_000;
/// Label sets of all peers.
pub const MAX_SETS: usize = 10_000;
/// Label sets of one peer that are kept apart as finely as can be: no peer takes the room of the others.
pub const MAX_FINE: usize = 100;
/// Label sets of one peer.
pub const MAX_COARSE: usize = 2 * MAX_FINE;

/// What is called so is not known.
const UNKNOWN: &str = "unknown";
/// What shares its series is called so.
pub const OTHER: &str = "other";

/// Istio's labels of the two ends, and of what is between them.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Ends {
    reporter: &'static str,
    source_workload: Arc<str>,
    source_workload_namespace: Arc<str>,
    source_principal: Arc<str>,
    source_app: Arc<str>,
    source_version: Arc<str>,
    source_cluster: Arc<str>,
    source_canonical_service: Arc<str>,
    source_canonical_revision: Arc<str>,
    destination_workload: Arc<str>,
    destination_workload_namespace: Arc<str>,
    destination_principal: Arc<str>,
    destination_app: Arc<str>,
    destination_version: Arc<str>,
    destination_cluster: Arc<str>,
    destination_service: Arc<str>,
    destination_service_name: Arc<str>,
    destination_service_namespace: Arc<str>,
    destination_canonical_service: Arc<str>,
    destination_canonical_revision: Arc<str>,
    connection_security_policy: &'static str,
}

/// One end's labels, but for its principal.
#[derive(Debug)]
struct Side {
    workload: Arc<str>,
    namespace: Arc<str>,
    app: Arc<str>,
    version: Arc<str>,
    cluster: Arc<str>,
    service: Arc<str>,
    /// The service's name without its namespace and the cluster's domain: what Kiali calls it.
    service_name: Arc<str>,
    canonical: Arc<str>,
}

impl Side {
    fn new(local: &Local) -> Self {
        let text = |value: Option<&str>| -> Arc<str> { value.unwrap_or(UNKNOWN).into() };
        let service = local.service.as_deref();
        Self {
            workload: text(local.name.as_deref()),
            namespace: text(local.namespace.as_deref()),
            app: text(local.app.as_deref()),
            version: text(local.version.as_deref()),
            cluster: text(local.cluster.as_deref()),
            service: text(service),
            service_name: text(service.map(|name| name.split('.').next().unwrap_or(name))),
            canonical: text(local.app.as_deref().or(local.name.as_deref())),
        }
    }
}

/// Who is counted as whom, and what there is room for. Clones share it: all families of one process do.
#[derive(Clone, Debug)]
pub struct Census(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    local: Side,
    nobody: Side,
    rolls: Mutex<Rolls>,
}

#[derive(Debug)]
struct Rolls {
    /// How many label sets each principal has.
    peers: HashMap<Arc<str>, usize>,
    sets: usize,
}

impl Default for Census {
    fn default() -> Self {
        Self::new(&Local::default())
    }
}

impl Census {
    /// Of the workload that is configured.
    #[must_use]
    pub fn new(local: &Local) -> Self {
        // Those that stand for many take no place of a peer.
        let peers = [UNKNOWN, OTHER].map(|name| (name.into(), 0)).into();
        Self(Arc::new(Inner {
            local: Side::new(local),
            nobody: Side::new(&Local::default()),
            rolls: Mutex::new(Rolls { peers, sets: 0 }),
        }))
    }

    /// What a peer is called: without a scheme Istio's dashboards do not find it, so its ID is written whole.
    #[must_use]
    pub fn principal(&self, peer: Option<&SpiffeId>) -> Arc<str> {
        let name = peer.map_or(UNKNOWN, SpiffeId::as_str);
        let mut rolls = self.0.rolls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, _)) = rolls.peers.get_key_value(name) {
            return Arc::clone(known);
        }
        if rolls.peers.len() >= MAX_PEERS + 2 {
            return OTHER.into();
        }
        let name: Arc<str> = name.into();
        rolls.peers.insert(Arc::clone(&name), 0);
        name
    }

    /// Whether one more label set may be made for this principal, which has fewer than `most`. It is counted then.
    #[must_use]
    pub fn admits(&self, principal: &str, most: usize) -> bool {
        let mut rolls = self.0.rolls.lock().unwrap_or_else(PoisonError::into_inner);
        if rolls.sets >= MAX_SETS {
            return false;
        }
        let Some(own) = rolls.peers.get_mut(principal).filter(|own| **own < most) else {
            return false;
        };
        *own += 1;
        rolls.sets += 1;
        true
    }

    /// The labels of a connection whose other end is called `principal`.
    #[must_use]
    pub fn ends(&self, accepted: &Accepted, principal: Arc<str>) -> Ends {
        let own: Arc<str> = accepted.own_id.as_ref().map_or(UNKNOWN, SpiffeId::as_str).into();
        let (local, nobody) = (&self.0.local, &self.0.nobody);
        match accepted.direction {
            Direction::Inbound => Ends::new(
                (nobody, principal),
                (local, own),
                Some(accepted.security_policy()),
            ),
            Direction::Outbound => Ends::new((local, own), (nobody, principal), None),
        }
    }
}

impl Ends {
    /// `seen` is the security that the destination sees. Of the source's view Istio says `unknown`: only the
    /// destination knows.
    fn new(
        (source, source_principal): (&Side, Arc<str>),
        (destination, destination_principal): (&Side, Arc<str>),
        seen: Option<&'static str>,
    ) -> Self {
        Self {
            reporter: if seen.is_some() { "destination" } else { "source" },
            source_workload: Arc::clone(&source.workload),
            source_workload_namespace: Arc::clone(&source.namespace),
            source_principal,
            source_app: Arc::clone(&source.app),
            source_version: Arc::clone(&source.version),
            source_cluster: Arc::clone(&source.cluster),
            source_canonical_service: Arc::clone(&source.canonical),
            source_canonical_revision: Arc::clone(&source.version),
            destination_workload: Arc::clone(&destination.workload),
            destination_workload_namespace: Arc::clone(&destination.namespace),
            destination_principal,
            destination_app: Arc::clone(&destination.app),
            destination_version: Arc::clone(&destination.version),
            destination_cluster: Arc::clone(&destination.cluster),
            destination_service: Arc::clone(&destination.service),
            destination_service_name: Arc::clone(&destination.service_name),
            destination_service_namespace: Arc::clone(&destination.namespace),
            destination_canonical_service: Arc::clone(&destination.canonical),
            destination_canonical_revision: Arc::clone(&destination.version),
            connection_security_policy: seen.unwrap_or(UNKNOWN),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use signet_certs::UnixTime;

    use super::*;
    use crate::connection::{Peer, Security};

    /// A connection to the workload by mutual TLS.
    pub(crate) fn accepted(peer: &str) -> Accepted {
        let security = Security::Mutual(Peer {
            id: peer.parse().unwrap(),
            leaf_sha256: [0; 32],
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(9)),
            proof: None,
        });
        Accepted {
            id: 1,
            direction: Direction::Inbound,
            security,
            source: "10.0.0.1:1".parse().unwrap(),
            remote: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            port: 80,
            sni: None,
            alpn: None,
            own_not_after: None,
            own_id: Some("spiffe://cluster.local/ns/b/sa/back".parse().unwrap()),
        }
    }

    fn peer(number: usize) -> SpiffeId {
        format!("spiffe://cluster.local/ns/a/sa/s{number}")
            .parse()
            .unwrap()
    }

    #[test]
    fn a_service_is_called_by_its_first_label() {
        for (service, name) in [
            (Some("back.b.svc.cluster.local"), "back"),
            (Some("back"), "back"),
            (None, "unknown"),
        ] {
            let side = Side::new(&Local {
                service: service.map(str::to_owned),
                ..Local::default()
            });
            assert_eq!(&*side.service_name, name);
            assert_eq!(&*side.service, service.unwrap_or("unknown"));
        }
    }

    #[test]
    fn the_peer_after_the_thousandth_is_another_whatever_it_speaks() {
        let census = Census::default();
        let twin = census.clone();
        for number in 0..MAX_PEERS {
            let family = if number % 2 == 0 { &census } else { &twin };
            assert_eq!(&*family.principal(Some(&peer(number))), peer(number).as_str());
        }
        for family in [&census, &twin] {
            assert_eq!(&*family.principal(Some(&peer(MAX_PEERS))), OTHER);
            assert_eq!(&*family.principal(Some(&peer(7))), peer(7).as_str());
            assert_eq!(&*family.principal(None), UNKNOWN);
        }
    }

    #[test]
    fn there_is_room_for_so_much_of_each_peer_and_for_so_much_of_all() {
        let census = Census::default();
        let (mut sets, mut number) = (0, 0);
        while sets < MAX_SETS {
            let name = census.principal(Some(&peer(number)));
            let mine = (0..MAX_FINE + 1)
                .filter(|_| census.admits(&name, MAX_FINE))
                .count();
            assert_eq!(mine, MAX_FINE.min(MAX_SETS - sets));
            if sets + mine < MAX_SETS {
                assert!(census.admits(&name, MAX_COARSE), "more, if coarser");
                sets += 1;
            }
            sets += mine;
            number += 1;
        }
        let late = census.principal(Some(&peer(number)));
        assert!(!census.admits(&late, MAX_COARSE));
    }
}
