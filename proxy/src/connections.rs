//! The downstream connections that are open: bounded in all and by source, and shown to operators.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use signet_runtime::UnixTime;

use crate::access_log::Limit;
use crate::connection::Accepted;

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
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, Option<Arc<Accepted>>>,
    sources: HashMap<IpAddr, usize>,
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
    /// When it came last.
    pub last: UnixTime,
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    source: IpAddr,
    id: u64,
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

    /// A place for a connection from `source`.
    ///
    /// # Errors
    /// The bound that was hit.
    pub fn admit(&self, source: IpAddr, all: usize, per_source: usize) -> Result<Place, Limit> {
        let mut state = self.lock();
        if state.open.len() >= all {
            return Err(Limit::Connections);
        }
        let of_source = state.sources.entry(source).or_default();
        if *of_source >= per_source {
            return Err(Limit::Source);
        }
        *of_source += 1;
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        state.open.insert(id, None);
        self.0.open.inc();
        Ok(Place {
            connections: self.clone(),
            source,
            id,
        })
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

    /// What the connection turned out to be.
    pub fn settled(&self, accepted: &Arc<Accepted>) {
        if let Some(open) = self.connections.lock().open.get_mut(&self.id) {
            *open = Some(Arc::clone(accepted));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.0.open.dec();
        let mut state = self.connections.lock();
        state.open.remove(&self.id);
        if let Some(count) = state.sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                state.sources.remove(&self.source);
            }
        }
        // A burst leaves no tables of its size behind.
        if state.open.capacity() > 1_024 && state.open.len() < state.open.capacity() / 8 {
            state.open.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_source_and_come_back() {
        let connections = Connections::default();
        let [a, b, c] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let first = connections.admit(a, 3, 2).unwrap();
        let second = connections.admit(a, 3, 2).unwrap();
        assert_eq!(connections.admit(a, 3, 2).unwrap_err(), Limit::Source);
        let _third = connections.admit(b, 3, 2).unwrap();
        assert_eq!(connections.admit(c, 3, 2).unwrap_err(), Limit::Connections);
        drop((first, second));
        let _fourth = connections.admit(a, 3, 2).unwrap();
        assert_eq!(connections.count(), 2);
        assert_eq!(connections.lock().sources.len(), 2);
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
