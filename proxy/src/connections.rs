//! The downstream connections that are open: bounded by direction, by source and by whether they have said what they
//! are, and shown to operators.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use signet_runtime::UnixTime;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::access_log::Limit;
use crate::config::Limits;
use crate::connection::{Accepted, Direction};
use crate::seldom::Seldom;
use crate::waiting::Waiting;

/// Most addresses of plaintext clients that are remembered.
pub const MAX_PLAINTEXT_CLIENTS: usize = 1_000;

/// All open connections. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Book>);

#[derive(Debug, Default)]
struct Book {
    next: AtomicU64,
    open: Gauge,
    state: Mutex<State>,
    waiting: Waiting,
    seldom: Mutex<Seldom>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, Option<Arc<Accepted>>>,
    /// Of connections to the workload.
    sources: HashMap<IpAddr, usize>,
    /// Connections to the workload that have not said yet what they are, the oldest first, with what ends them.
    unsettled: BTreeMap<u64, Arc<Notify>>,
    /// Of connections to the workload.
    settled: usize,
    /// Connections of the workload.
    outbound: usize,
    plaintext: HashMap<PlaintextClient, Plaintext>,
    /// Connections of plaintext clients that found no room in the list.
    unlisted: u64,
}

/// A client by its address, and the port it came to.
pub type PlaintextClient = (IpAddr, u16);

/// What is remembered of a client that came without TLS, or with a TLS that passed through unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plaintext {
    /// How often it came.
    pub connections: u64,
    /// How many of these passed through.
    pub passed_through: u64,
    /// When it came first, since this process started.
    pub first: UnixTime,
    /// When it came last.
    pub last: UnixTime,
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    /// Whose share it is of; nothing for the own host and for connections of the workload.
    source: Option<IpAddr>,
    id: u64,
    direction: Direction,
    /// Most that may be settled.
    most: usize,
    settled: AtomicBool,
    evicted: Arc<Notify>,
}

impl Connections {
    /// None are open; `open` will tell how many are.
    #[must_use]
    pub fn new(open: Gauge) -> Self {
        Self(Arc::new(Book {
            open,
            ..Book::default()
        }))
    }

    /// A place for a connection from `source`. One to the workload is unsettled at first; where there are too many of
    /// these, the oldest is told to go, since an honest one needs no longer than a handshake.
    ///
    /// # Errors
    /// The bound that was hit.
    pub fn admit(&self, direction: Direction, source: IpAddr, limits: &Limits) -> Result<Place, Limit> {
        let mut state = self.lock();
        let evicted = Arc::new(Notify::new());
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let source = (direction == Direction::Inbound && !source.is_loopback()).then_some(source);
        if direction == Direction::Outbound {
            if state.outbound >= limits.outbound_connections {
                return Err(Limit::Connections);
            }
            state.outbound += 1;
        } else {
            if let Some(source) = source {
                let of_source = state.sources.entry(source).or_default();
                if *of_source >= limits.connections_per_source {
                    return Err(Limit::Source);
                }
                *of_source += 1;
            }
            if state.unsettled.len() >= limits.unsettled_connections
                && let Some((_, oldest)) = state.unsettled.pop_first()
            {
                oldest.notify_one();
            }
            state.unsettled.insert(id, Arc::clone(&evicted));
        }
        state.open.insert(id, None);
        self.0.open.inc();
        Ok(Place {
            connections: self.clone(),
            source,
            id,
            direction,
            most: limits.connections,
            settled: AtomicBool::new(false),
            evicted,
        })
    }

    /// What all of them have waiting to be read.
    #[must_use]
    pub fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    /// Whether it is to be logged that this was done with one of them, and how often it was not since it last was.
    #[must_use]
    pub fn to_be_said(&self, what: &'static str) -> Option<u64> {
        let mut seldom = self.0.seldom.lock().unwrap_or_else(PoisonError::into_inner);
        seldom.ask(what, Instant::now())
    }

    /// Connections open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// At most `most` of the connections whose kind is settled, the oldest first.
    #[must_use]
    pub fn list(&self, most: usize) -> Vec<Arc<Accepted>> {
        let mut all: Vec<_> = self.lock().open.values().flatten().cloned().collect();
        all.sort_by_key(|accepted| accepted.id);
        all.truncate(most);
        all
    }

    /// A client came to a port of the workload without TLS, or with a TLS that passed through: STRICT would refuse
    /// the one, and ask the other for an SVID.
    pub fn plaintext(&self, client: IpAddr, port: u16, passed_through: bool, now: UnixTime) {
        let mut state = self.lock();
        if state.plaintext.len() >= MAX_PLAINTEXT_CLIENTS && !state.plaintext.contains_key(&(client, port)) {
            state.unlisted += 1;
            return;
        }
        let known = state.plaintext.entry((client, port)).or_insert(Plaintext {
            connections: 0,
            passed_through: 0,
            first: now,
            last: now,
        });
        known.connections += 1;
        known.passed_through += u64::from(passed_through);
        known.last = now;
    }

    /// The clients that came without TLS of ours, and how many connections found no room in the list.
    #[must_use]
    pub fn plaintext_clients(&self) -> (Vec<(PlaintextClient, Plaintext)>, u64) {
        let state = self.lock();
        let mut all: Vec<_> = state
            .plaintext
            .iter()
            .map(|(key, value)| (*key, *value))
            .collect();
        all.sort_by_key(|(key, _)| *key);
        (all, state.unlisted)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits until the connection has to make room, because it has not said what it is for longer than all others.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// What the connection turned out to be.
    ///
    /// # Errors
    /// [`Limit`], where there are as many of them as allowed.
    pub fn settled(&self, accepted: &Arc<Accepted>) -> Result<(), Limit> {
        let mut state = self.connections.lock();
        if self.direction == Direction::Inbound && !self.settled.load(Ordering::Relaxed) {
            if state.settled >= self.most {
                return Err(Limit::Connections);
            }
            state.unsettled.remove(&self.id);
            state.settled += 1;
            self.settled.store(true, Ordering::Relaxed);
        }
        if let Some(open) = state.open.get_mut(&self.id) {
            *open = Some(Arc::clone(accepted));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.0.open.dec();
        let mut state = self.connections.lock();
        state.open.remove(&self.id);
        match self.direction {
            Direction::Outbound => state.outbound -= 1,
            Direction::Inbound if *self.settled.get_mut() => state.settled -= 1,
            Direction::Inbound => drop(state.unsettled.remove(&self.id)),
        }
        if let Some(source) = self.source
            && let Some(count) = state.sources.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                state.sources.remove(&source);
            }
        }
        // A burst leaves no tables of its size behind.
        shrink(&mut state.open);
        shrink(&mut state.sources);
    }
}

fn shrink<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > 1_024 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Security;

    fn limits() -> Limits {
        let text = "policies: {directory: /nowhere, namespace: b}\n\
                    limits: {connections: 2, connections_per_source: 3, unsettled_connections: 4, outbound_connections: 1}";
        crate::config::Config::from_text(text).unwrap().limits
    }

    fn accepted(id: u64) -> Arc<Accepted> {
        Arc::new(Accepted {
            id,
            direction: Direction::Inbound,
            security: Security::Plaintext,
            source: "10.0.0.1:1".parse().unwrap(),
            remote: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            port: 80,
            sni: None,
            alpn: None,
            own_not_after: None,
            own_id: None,
        })
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    async fn is_evicted(place: &Place) -> bool {
        tokio::select! {
            biased;
            () = place.evicted() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[test]
    fn one_address_has_its_share_and_the_own_host_has_none() {
        let connections = Connections::default();
        let admit = |source| connections.admit(Direction::Inbound, source, &limits());
        let mut held: Vec<Place> = (0..3).map(|_| admit(from(1)).unwrap()).collect();
        assert_eq!(admit(from(1)).unwrap_err(), Limit::Source);
        let _other = admit(from(2)).unwrap();
        let _own: Vec<Place> = (0..10)
            .map(|_| admit(IpAddr::from([127, 0, 0, 1])).unwrap())
            .collect();
        held.pop();
        admit(from(1)).unwrap();
        drop(held);
        assert_eq!(connections.lock().sources.len(), 1, "who is gone is not kept");
    }

    #[tokio::test]
    async fn silent_strangers_make_room_for_those_who_come_and_take_none_of_those_who_are_known() {
        let connections = Connections::default();
        let admit = |last| {
            connections
                .admit(Direction::Inbound, from(last), &limits())
                .unwrap()
        };
        let silent: Vec<Place> = (1..=4).map(admit).collect();
        let peer = admit(5);
        assert!(is_evicted(&silent[0]).await, "the oldest of the silent ones goes");
        assert!(!is_evicted(&silent[1]).await);
        peer.settled(&accepted(peer.id())).unwrap();
        let second = admit(6);
        assert!(!is_evicted(&silent[1]).await, "one was settled, so there is room");
        second.settled(&accepted(second.id())).unwrap();
        let third = admit(7);
        assert_eq!(third.settled(&accepted(third.id())), Err(Limit::Connections));
        drop(second);
        third.settled(&accepted(third.id())).unwrap();
        assert_eq!(connections.list(9).len(), 2);
        for last in 10..50 {
            drop(admit(last));
        }
        assert!(!is_evicted(&peer).await, "who is known stays");
        drop((peer, third, silent));
        assert_eq!((connections.count(), connections.lock().settled), (0, 0));
        assert_eq!(connections.lock().unsettled.len(), 0);
    }

    #[test]
    fn connections_of_the_workload_are_counted_apart() {
        let connections = Connections::default();
        let own = IpAddr::from([127, 0, 0, 1]);
        let admit = |direction| connections.admit(direction, own, &limits());
        let one = admit(Direction::Outbound).unwrap();
        assert_eq!(admit(Direction::Outbound).unwrap_err(), Limit::Connections);
        let _inbound: Vec<Place> = (0..9).map(|_| admit(Direction::Inbound).unwrap()).collect();
        one.settled(&accepted(one.id())).unwrap();
        drop(one);
        admit(Direction::Outbound).unwrap();
    }

    #[test]
    fn a_burst_leaves_no_tables_of_its_size_behind() {
        let connections = Connections::default();
        let mut limits = limits();
        limits.unsettled_connections = 20_000;
        let places: Vec<Place> = (0..10_000_u32)
            .map(|number| {
                connections
                    .admit(
                        Direction::Inbound,
                        IpAddr::from((0x0a00_0000 + number).to_be_bytes()),
                        &limits,
                    )
                    .unwrap()
            })
            .collect();
        drop(places);
        let state = connections.lock();
        assert!(state.open.capacity() < 2_048 && state.sources.capacity() < 2_048);
    }

    #[test]
    fn plaintext_clients_are_listed_up_to_a_bound() {
        let connections = Connections::default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(7));
        for client in 0..=u32::try_from(MAX_PLAINTEXT_CLIENTS).unwrap() {
            connections.plaintext(IpAddr::from(client.to_be_bytes()), 80, false, now);
        }
        connections.plaintext(IpAddr::from([0, 0, 0, 0]), 80, true, now);
        let (listed, unlisted) = connections.plaintext_clients();
        assert_eq!((listed.len(), unlisted), (MAX_PLAINTEXT_CLIENTS, 1));
        assert_eq!((listed[0].1.connections, listed[0].1.passed_through), (2, 1));
    }
}
