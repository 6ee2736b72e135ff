//! `signet proxy connections`, `listeners` and `plaintext-clients`, for people.

use signet_runtime::UnixTime;

use super::NONE;
use super::wire::{Connection, Connections, Listeners, PlaintextClients};
use crate::print::{Cell, Page, Tone, View};
use crate::times::{Moment, relative};

impl View for Connections {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("open", self.open.to_string());
        let shown = u64::try_from(self.connections.len()).unwrap_or(u64::MAX);
        if shown < self.open {
            page.fact(
                "shown",
                format!("{shown}, the oldest; the others are newer, or in their handshake"),
            );
        }
        if self.connections.is_empty() {
            return;
        }
        page.gap();
        let headings = [
            "number",
            "way",
            "from",
            "to",
            "port",
            "security",
            "peer",
            "peer's end",
            "ALPN",
        ];
        let rows = self.connections.iter().map(|one| one.row(now));
        page.table(&headings, rows.collect());
    }
}

impl Connection {
    fn row(&self, now: UnixTime) -> Vec<Cell> {
        let tone = match self.security.as_str() {
            "mutual_tls" => Tone::Good,
            _ => Tone::Warn,
        };
        let (peer, end) = match &self.peer {
            Some(peer) => (&*peer.spiffe_id, relative(peer.not_after.0, now)),
            None => (NONE, NONE.to_owned()),
        };
        vec![
            self.connection.to_string().into(),
            (&*self.direction).into(),
            self.source.to_string().into(),
            (&*self.destination).into(),
            self.port.to_string().into(),
            Cell::new(self.security.replace('_', " "), tone),
            peer.into(),
            end.into(),
            self.alpn.as_deref().unwrap_or(NONE).into(),
        ]
    }
}

impl View for Listeners {
    fn page(&self, page: &mut Page, _: UnixTime) {
        if self.listeners.is_empty() {
            page.line("no listeners");
            return;
        }
        let rows = self.listeners.iter().map(|one| {
            let upstream = match &one.upstream {
                Some(upstream) => upstream,
                None if one.captures => "wherever redirected traffic goes",
                None => NONE,
            };
            vec![(&*one.direction).into(), (&*one.address).into(), upstream.into()]
        });
        page.table(&["way", "address", "in front of"], rows.collect());
    }
}

impl View for PlaintextClients {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("observed since", self.since.words(now));
        if self.unlisted_connections > 0 {
            let words = format!(
                "{} connections of clients beyond the list",
                self.unlisted_connections
            );
            page.fact("not listed", Cell::new(words, Tone::Warn));
        }
        if self.clients.is_empty() {
            page.line(Cell::new("nobody came without mutual TLS", Tone::Good));
            return;
        }
        page.gap();
        let rows = self.clients.iter().map(|one| {
            vec![
                one.address.to_string().into(),
                one.port.to_string().into(),
                one.connections.to_string().into(),
                one.passed_through.to_string().into(),
                first(one.first, now).into(),
                one.last.words(now).into(),
            ]
        });
        let headings = [
            "client",
            "port",
            "connections",
            "with TLS of its own",
            "since",
            "last seen",
        ];
        page.table(&headings, rows.collect());
    }
}

/// When a client was first seen.
pub(super) fn first(first: Option<Moment>, now: UnixTime) -> String {
    first.map_or_else(|| NONE.to_owned(), |first| relative(first.0, now))
}
