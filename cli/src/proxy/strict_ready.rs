//! `signet strict-ready`: go or no-go for STRICT, from what proxies saw.

use signet_runtime::UnixTime;

use tokio::task::JoinSet;

use super::address::AdminAddress;
use super::client::{PageError, ProxyPages};
use super::link::{Kubectl, Link, LinkError};
use super::place::Place;
use super::pods;
use super::traffic::first;
use super::verdict::{Client, Judged, Seen, StrictReady, Verdict};
use super::wire::Secrets;
use crate::Shell;
use crate::args::StrictReadyArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};

/// Pods that are asked at once: each is a process of kubectl.
const MOST_AT_ONCE: usize = 8;
/// Most pods without a proxy that are named to people.
const MOST_NAMED: usize = 10;

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
            Verdict::Unanswered => "not every proxy can say who came, so there is no go",
        };
        page.line(Cell::new(format!("{word}: {why}"), tone));
        if self.unanswered > 0 {
            let words = format!(
                "{} of {} proxies cannot say who came",
                self.unanswered,
                self.proxies.len()
            );
            page.line(Cell::new(words, Tone::Warn));
        }
        if !self.without_proxy.is_empty() {
            let count = self.without_proxy.len();
            let some: Vec<&str> = self
                .without_proxy
                .iter()
                .take(MOST_NAMED)
                .map(String::as_str)
                .collect();
            let more = if count > MOST_NAMED { ", …" } else { "" };
            page.line(format!(
                "{count} pods have no proxy, so nobody enforces anything there: {}{more}",
                some.join(", ")
            ));
        }
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
                "since",
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
            first(self.first, now).into(),
            self.last.words(now).into(),
        ]
    }
}

pub(crate) async fn run(args: &StrictReadyArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let window = args.window.map(|window| window.0);
    let ready = match &args.namespace {
        Some(namespace) => of_namespace(namespace, args, shell).await?,
        None => {
            let mut proxies = Vec::with_capacity(args.admin.len());
            for admin in &args.admin {
                let name = admin.to_string();
                proxies.push(match ask(admin).await {
                    Ok(seen) => Judged::of(name, seen, window, shell.now()),
                    Err(error) => Judged::unanswered(name, error.to_string()),
                });
            }
            StrictReady::of(proxies, window)
        }
    };
    shell.show(&ready)?;
    match ready.verdict {
        Verdict::Go => Ok(Answer::Yes),
        Verdict::NoGo => Ok(Answer::No),
        Verdict::Unanswered => Err(Fault::unanswered(unanswered(&ready))),
    }
}

/// All proxies in the pods of a namespace, each asked through `kubectl exec`.
async fn of_namespace(namespace: &str, args: &StrictReadyArgs, shell: &Shell) -> Result<StrictReady, Fault> {
    let window = args.window.map(|window| window.0);
    let (with_proxy, without_proxy) = pods::of(namespace, &args.pods).await?;
    if with_proxy.is_empty() {
        let container = &args.pods.container;
        return Err(Fault::Unanswered(format!(
            "no pod of {namespace} has a container {container}; --container names another"
        )));
    }
    let kubectl = args.pods.kubectl();
    let mut asked = JoinSet::new();
    let mut waiting = with_proxy.into_iter();
    let mut proxies = Vec::new();
    loop {
        while asked.len() < MOST_AT_ONCE
            && let Some(pod) = waiting.next()
        {
            let (kubectl, namespace) = (kubectl.clone(), namespace.to_owned());
            asked.spawn(async move {
                let seen = match &pod.absent {
                    Some(why) => Err(why.clone()),
                    None => of_pod(&kubectl, &namespace, &pod.name).await,
                };
                (pod.name, seen)
            });
        }
        match asked.join_next().await {
            Some(Ok((name, Ok(seen)))) => proxies.push(Judged::of(name, seen, window, shell.now())),
            Some(Ok((name, Err(error)))) => proxies.push(Judged::unanswered(name, error)),
            Some(Err(lost)) => return Err(Fault::unanswered(lost)),
            None => break,
        }
    }
    proxies.sort_by(|a, b| a.admin.cmp(&b.admin));
    Ok(StrictReady::of(proxies, window).of_namespace(namespace.to_owned(), without_proxy))
}

async fn of_pod(kubectl: &Kubectl, namespace: &str, pod: &str) -> Result<Seen, String> {
    let place = Place::Pod {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
    };
    let pages = async {
        let mut link = Link::open(&place, kubectl).await?;
        Ok::<_, LinkError>(Seen {
            spiffe_id: link
                .get::<Secrets>("/secrets")
                .await?
                .svid
                .map(|svid| svid.spiffe_id),
            listeners: link.get("/listeners").await?,
            policies: link.get("/policies").await?,
            // As below.
            connections: link.get("/connections").await?,
            clients: link.get("/plaintext-clients").await?,
        })
    };
    pages.await.map_err(|error| error.to_string())
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
