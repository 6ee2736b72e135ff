//! Whether STRICT would cut somebody off, from what proxies saw. Pure: pages and a time in, a verdict out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use signet_runtime::UnixTime;

use super::wire::{Connections, Listeners, PlaintextClient, PlaintextClients, Policies};
use crate::times::{Moment, span};

/// How many open connections a proxy lists at most.
const MOST_LISTED: u64 = 1_000;

/// Go, no-go, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nobody came without mutual TLS.
    Go,
    /// Somebody did.
    NoGo,
    /// That cannot be said.
    Unanswered,
}

/// What one proxy was asked.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Who it is, where it has an SVID.
    pub spiffe_id: Option<String>,
    /// Where it listens.
    pub listeners: Listeners,
    /// What it enforces.
    pub policies: Policies,
    /// Who came without mutual TLS.
    pub clients: PlaintextClients,
    /// What is open.
    pub connections: Connections,
}

/// The verdict over all.
#[derive(Clone, Debug, Serialize)]
pub struct StrictReady {
    /// No-go where one proxy says so; else unanswered where one cannot say; else go.
    pub verdict: Verdict,
    /// How far back was looked; nothing for as far as each proxy can.
    pub window_seconds: Option<u64>,
    /// How many proxies cannot say; with one of them there is no go.
    pub unanswered: usize,
    /// The namespace whose proxies were looked up, if one was given.
    pub namespace: Option<String>,
    /// Pods of that namespace without a proxy: STRICT changes nothing for who comes to them, since nobody enforces it.
    pub without_proxy: Vec<String>,
    /// Each proxy.
    pub proxies: Vec<Judged>,
}

/// One proxy's verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Its admin page, or its pod.
    pub admin: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// Why there is none.
    pub reason: Option<String>,
    /// Who it is.
    pub spiffe_id: Option<String>,
    /// Its mode of mutual TLS now, for ports without one of their own.
    pub mode: Option<String>,
    /// The modes of ports where it is another.
    pub port_modes: BTreeMap<u16, String>,
    /// Since when it looks.
    pub observed_since: Option<Moment>,
    /// Who came without mutual TLS.
    pub clients: Vec<Client>,
    /// Connections of clients that found no room in its list, at whatever time.
    pub unlisted_connections: u64,
}

/// A client that STRICT would refuse.
#[derive(Clone, Debug, Serialize)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// The workload's port that it came to.
    pub port: u16,
    /// Connections since the proxy looks.
    pub connections: u64,
    /// How many of these spoke a TLS of their own: STRICT asks them for an SVID.
    pub passed_through: u64,
    /// How many are open now.
    pub open: u64,
    /// When it came first, since the proxy looks.
    pub first: Option<Moment>,
    /// When it came last.
    pub last: Moment,
}

impl StrictReady {
    /// The verdict over all of `proxies`.
    #[must_use]
    pub fn of(proxies: Vec<Judged>, window: Option<Duration>) -> Self {
        let any = |verdict| proxies.iter().any(|one| one.verdict == verdict);
        let verdict = if any(Verdict::NoGo) {
            Verdict::NoGo
        } else if any(Verdict::Unanswered) || proxies.is_empty() {
            Verdict::Unanswered
        } else {
            Verdict::Go
        };
        Self {
            verdict,
            window_seconds: window.map(|window| window.as_secs()),
            unanswered: proxies
                .iter()
                .filter(|one| one.verdict == Verdict::Unanswered)
                .count(),
            namespace: None,
            without_proxy: Vec::new(),
            proxies,
        }
    }

    /// The same, for the proxies of a namespace.
    #[must_use]
    pub fn of_namespace(self, namespace: String, without_proxy: Vec<String>) -> Self {
        Self {
            namespace: Some(namespace),
            without_proxy,
            ..self
        }
    }
}

impl Judged {
    /// A proxy that could not be asked.
    #[must_use]
    pub fn unanswered(admin: String, reason: String) -> Self {
        Self {
            admin,
            verdict: Verdict::Unanswered,
            reason: Some(reason),
            spiffe_id: None,
            mode: None,
            port_modes: BTreeMap::new(),
            observed_since: None,
            clients: Vec::new(),
            unlisted_connections: 0,
        }
    }

    /// What a proxy's pages come to: clients of the last `window`, or of all the time that it looks.
    #[must_use]
    pub fn of(admin: String, seen: Seen, window: Option<Duration>, now: UnixTime) -> Self {
        let begin = window.map(|window| {
            UnixTime::since_unix_epoch(Duration::from_secs(
                now.as_secs().saturating_sub(window.as_secs()),
            ))
        });
        let mut clients: Vec<Client> = seen
            .clients
            .clients
            .iter()
            .map(|one| client(one, &seen))
            .collect();
        clients.retain(|client| counts(client, begin, &seen.connections));
        let unlisted = seen.clients.unlisted_connections;
        let reason = blind(&seen, begin);
        let verdict = match (clients.is_empty() && unlisted == 0, &reason) {
            (false, _) => Verdict::NoGo,
            (true, Some(_)) => Verdict::Unanswered,
            (true, None) => Verdict::Go,
        };
        let (mode, port_modes) = modes(seen.policies);
        Self {
            admin,
            verdict,
            reason: reason.filter(|_| verdict == Verdict::Unanswered),
            spiffe_id: seen.spiffe_id,
            mode,
            port_modes,
            observed_since: Some(seen.clients.since),
            clients,
            unlisted_connections: unlisted,
        }
    }
}

/// The workload's mode, and those of the ports that have another.
fn modes(policies: Policies) -> (Option<String>, BTreeMap<u16, String>) {
    let Some(in_force) = policies.in_force else {
        return (None, BTreeMap::new());
    };
    let mode = in_force.mutual_tls.workload.mode;
    let ports = in_force.mutual_tls.ports.into_iter();
    let others = ports
        .map(|(port, ruling)| (port, ruling.mode))
        .filter(|(_, other)| *other != mode)
        .collect();
    (Some(mode), others)
}

fn client(known: &PlaintextClient, seen: &Seen) -> Client {
    let open = seen.connections.connections.iter().filter(|open| {
        open.direction == "inbound"
            && open.security != "mutual_tls"
            && open.port == known.port
            && open.source.ip().to_canonical() == known.address
    });
    Client {
        address: known.address,
        port: known.port,
        connections: known.connections,
        passed_through: known.passed_through,
        open: u64::try_from(open.count()).unwrap_or(u64::MAX),
        first: known.first,
        last: known.last,
    }
}

/// Whether a client matters from `begin` on: it came since, or its connection may still be open.
fn counts(client: &Client, begin: Option<UnixTime>, open: &Connections) -> bool {
    let Some(begin) = begin else { return true };
    client.last.0 >= begin || client.open > 0 || open.open > MOST_LISTED
}

/// Why this proxy could not have seen everybody.
fn blind(seen: &Seen, begin: Option<UnixTime>) -> Option<String> {
    if !seen
        .listeners
        .listeners
        .iter()
        .any(|one| one.direction == "inbound")
    {
        return Some(
            "it has no inbound listener, so nobody reaches its workload through it; ask a proxy that has one, or give \
             it `inbound` or `capture`"
                .into(),
        );
    }
    if seen.policies.in_force.is_none() {
        return Some(
            "it has no policies yet and refuses everybody, so it has seen nobody; `signet proxy policies` says why"
                .into(),
        );
    }
    let begin = begin?;
    let since = seen.clients.since.0;
    (since > begin).then(|| {
        format!(
            "it has looked for a shorter time than --window asks for; ask again in {}, or with a shorter --window",
            span(since.as_secs() - begin.as_secs())
        )
    })
}

#[cfg(test)]
mod tests;
