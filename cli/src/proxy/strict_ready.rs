//! `signet strict-ready`: go or no-go for STRICT, from what proxies saw.

use signet_runtime::UnixTime;

use super::address::AdminAddress;
use super::client::{PageError, ProxyPages};
use super::verdict::{Client, Judged, Seen, StrictReady, Verdict};
use crate::Shell;
use crate::args::StrictReadyArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};

impl Verdict {
    fn words(self) -> (&'static str, Tone) {
        match self {
            Self::Go => ("go", Tone::Good),
            Self::NoGo => ("no-go", Tone::Bad),
            Self::Unanswered => ("no answer", Tone::Warn),
        }
    }
}

impl View for StrictReady {
    fn page(&self, page: &mut Page, now: UnixTime) {
        let (word, tone) = self.verdict.words();
        let why = match self.verdict {
            Verdict::Go => "nobody came without mutual TLS; STRICT would refuse none of those seen",
            Verdict::NoGo => {
                "clients came without mutual TLS, and STRICT would refuse them; give each a proxy or an SVID"
            }
            Verdict::Unanswered => "not every proxy can say who came",
        };
        page.line(Cell::new(format!("{word}: {why}"), tone));
        for proxy in &self.proxies {
            page.gap();
            proxy.show(page, now);
        }
    }
}

impl Judged {
    fn show(&self, page: &mut Page, now: UnixTime) {
        let (word, tone) = self.verdict.words();
        page.line(Cell::new(format!("{}: {word}", self.admin), tone));
        if let Some(reason) = &self.reason {
            page.fact("  because", Cell::new(&**reason, Tone::Warn));
        }
        if let Some(id) = &self.spiffe_id {
            page.fact("  workload", &**id);
        }
        if let Some(since) = self.observed_since {
            page.fact("  observed since", since.words(now));
        }
        if let Some(mode) = &self.mode {
            let ports = self.port_modes.iter();
            let ports: String = ports
                .map(|(port, mode)| format!("; port {port} {mode}"))
                .collect();
            let already = if mode == "STRICT" && ports.is_empty() {
                " already: who comes without mutual TLS is reset, and in no list"
            } else {
                ""
            };
            page.fact("  mode now", format!("{mode}{ports}{already}"));
        }
        if self.unlisted_connections > 0 {
            let words = format!(
                "{} connections of clients beyond its list",
                self.unlisted_connections
            );
            page.fact("  not listed", Cell::new(words, Tone::Bad));
        }
        if !self.clients.is_empty() {
            let headings = [
                "  client",
                "port",
                "connections",
                "with TLS of its own",
                "open",
                "last seen",
            ];
            let rows = self.clients.iter().map(|client| client.row(now));
            page.table(&headings, rows.collect());
        }
    }
}

impl Client {
    fn row(&self, now: UnixTime) -> Vec<Cell> {
        vec![
            format!("  {}", self.address).into(),
            self.port.to_string().into(),
            self.connections.to_string().into(),
            self.passed_through.to_string().into(),
            self.open.to_string().into(),
            self.last.words(now).into(),
        ]
    }
}

pub(crate) async fn run(args: &StrictReadyArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let window = args.window.map(|window| window.0);
    let mut proxies = Vec::with_capacity(args.admin.len());
    for admin in &args.admin {
        let name = admin.to_string();
        proxies.push(match ask(admin).await {
            Ok(seen) => Judged::of(name, seen, window, shell.now()),
            Err(error) => Judged::unanswered(name, error.to_string()),
        });
    }
    let ready = StrictReady::of(proxies, window);
    shell.show(&ready)?;
    match ready.verdict {
        Verdict::Go => Ok(Answer::Yes),
        Verdict::NoGo => Ok(Answer::No),
        Verdict::Unanswered => Err(Fault::unanswered(unanswered(&ready))),
    }
}

/// The first reason, for those who read no data.
fn unanswered(ready: &StrictReady) -> String {
    let first = ready
        .proxies
        .iter()
        .find(|one| one.verdict == Verdict::Unanswered);
    let reason = first.and_then(|one| one.reason.as_deref());
    let admin = first.map_or("", |one| &one.admin);
    let reason = reason.unwrap_or("no proxy was asked");
    if reason.starts_with(admin) {
        reason.to_owned()
    } else {
        format!("{admin}: {reason}")
    }
}

async fn ask(admin: &AdminAddress) -> Result<Seen, PageError> {
    let pages = ProxyPages::at(admin);
    // What is open comes before the list of clients: whoever is in the one is in the other.
    Ok(Seen {
        spiffe_id: pages.secrets().await?.svid.map(|svid| svid.spiffe_id),
        listeners: pages.listeners().await?,
        policies: pages.policies().await?,
        connections: pages.connections().await?,
        clients: pages.plaintext_clients().await?,
    })
}
