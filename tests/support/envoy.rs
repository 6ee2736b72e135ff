//! Real Envoys. Ports are chosen by the system: Envoy binds port 0 and its admin page tells what came
//! of it.

pub mod bootstrap;
pub mod parts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

pub use bootstrap::{Names, Subscription};

use crate::dir::Dir;
use crate::http::{self, Answer};
use crate::process::Process;
use crate::wait::until_some;

/// Envoy with secrets is live within half a second; on a busy machine within this.
const START: Duration = Duration::from_secs(30);

/// An Envoy to be started.
#[derive(Debug)]
pub struct EnvoySetup {
    program: PathBuf,
    name: String,
    agent: PathBuf,
    subscription: Subscription,
    names: Names,
    listeners: Vec<Value>,
    clusters: Vec<Value>,
    under: &'static [&'static str],
}

impl EnvoySetup {
    /// An Envoy that takes `default` and `ROOTCA` from the agent at this socket.
    #[must_use]
    pub fn new(program: &Path, name: &str, agent: PathBuf) -> Self {
        Self {
            program: program.to_owned(),
            name: name.to_owned(),
            agent,
            subscription: Subscription::Sotw,
            names: Names::default(),
            listeners: Vec::new(),
            clusters: Vec::new(),
            under: &[],
        }
    }

    /// Runs it by this command, which has to become it.
    #[must_use]
    pub fn under(mut self, command: &'static [&'static str]) -> Self {
        self.under = command;
        self
    }

    /// TLS of a listener, its secrets from the agent. With `peer`, only that SPIFFE ID may come.
    #[must_use]
    pub fn server_tls(&self, peer: Option<&str>) -> Value {
        bootstrap::downstream_tls(self.subscription, &self.names, peer)
    }

    /// TLS towards a server, its secrets from the agent. With `peer`, only that SPIFFE ID is accepted there.
    #[must_use]
    pub fn client_tls(&self, peer: Option<&str>) -> Value {
        bootstrap::upstream_tls(self.subscription, &self.names, peer)
    }

    /// A listener as Envoy's documents have it.
    #[must_use]
    pub fn raw_listener(mut self, listener: Value) -> Self {
        self.listeners.push(listener);
        self
    }

    /// A cluster as Envoy's documents have it.
    #[must_use]
    pub fn raw_cluster(mut self, cluster: Value) -> Self {
        self.clusters.push(cluster);
        self
    }

    /// How it asks for secrets from here on.
    #[must_use]
    pub fn subscription(mut self, subscription: Subscription) -> Self {
        self.subscription = subscription;
        self
    }

    /// What it calls the secrets from here on.
    #[must_use]
    pub fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// A mutual-TLS listener that answers 200 by itself and tells in headers who asked: `x-peer` and
    /// `x-peer-serial`. With `peer`, only that SPIFFE ID may.
    #[must_use]
    pub fn server(mut self, name: &str, peer: Option<&str>) -> Self {
        let tls = bootstrap::downstream_tls(self.subscription, &self.names, peer);
        self.listeners.push(bootstrap::answering_listener(name, &tls));
        self
    }

    /// A plain listener that forwards to `address` over mutual TLS, a new connection for every
    /// request. With `peer`, only that SPIFFE ID is accepted there.
    #[must_use]
    pub fn client(self, name: &str, address: &str, peer: Option<&str>) -> Self {
        self.forwarding(name, address, peer, Some(1))
    }

    /// As [`EnvoySetup::client`], but one connection is kept and used again.
    #[must_use]
    pub fn keeping_client(self, name: &str, address: &str, peer: Option<&str>) -> Self {
        self.forwarding(name, address, peer, None)
    }

    fn forwarding(mut self, name: &str, address: &str, peer: Option<&str>, requests: Option<u32>) -> Self {
        let cluster = format!("to-{name}");
        let tls = bootstrap::upstream_tls(self.subscription, &self.names, peer);
        self.clusters
            .push(bootstrap::cluster(&cluster, address, &tls, requests));
        self.listeners
            .push(bootstrap::forwarding_listener(name, &cluster));
        self
    }

    /// Starts it without waiting for secrets.
    ///
    /// # Panics
    /// When it ends instead of opening its admin page.
    pub async fn start_unready(self) -> Envoy {
        let dir = Dir::new();
        let document = bootstrap::document(&self.name, &self.agent, &self.listeners, &self.clusters);
        let config = dir.write("envoy.json", document.to_string());
        let page = dir.join("admin.address");
        let mut command = crate::process::under(self.under, &self.program);
        command
            .arg("-c")
            .arg(config)
            .args([
                "--concurrency",
                "1",
                "--log-level",
                "warning",
                "--disable-hot-restart",
            ])
            .arg("--admin-address-path")
            .arg(&page);
        let mut process = Process::spawn(&format!("envoy-{}", self.name), dir.path(), &mut command);
        let admin = until_some("Envoy's admin page", START, async || {
            if let Some(status) = process.ended() {
                panic!("Envoy ended with {status}:\n{}", process.tail());
            }
            let address = std::fs::read_to_string(&page).ok()?;
            (!address.is_empty()).then_some(address)
        })
        .await;
        Envoy { process, admin, dir }
    }

    /// Starts it and waits until it is live, secrets and all.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub async fn start(self) -> Envoy {
        let mut envoy = self.start_unready().await;
        envoy.wait_live().await;
        envoy
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    /// Its process.
    pub process: Process,
    admin: String,
    dir: Dir,
}

impl Envoy {
    /// Waits until it is live.
    ///
    /// # Panics
    /// When it is not in time, with what it waits for.
    pub async fn wait_live(&mut self) {
        let end = tokio::time::Instant::now() + START;
        loop {
            if self.live().await {
                return;
            }
            if self.process.ended().is_some() || tokio::time::Instant::now() > end {
                let waits = http::get(&self.admin, "/init_dump")
                    .await
                    .map(|answer| answer.body);
                panic!(
                    "Envoy is not live; it waits for {waits:?}\n{}",
                    self.process.tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether it says it is live.
    pub async fn live(&self) -> bool {
        let ready = http::get(&self.admin, "/ready").await;
        ready.is_ok_and(|answer| answer.body.trim() == "LIVE")
    }

    /// An admin page.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn page(&self, path: &str) -> Answer {
        http::get(&self.admin, path)
            .await
            .unwrap_or_else(|e| panic!("Envoy's {path}: {e}"))
    }

    /// Where a listener is, `host:port`.
    ///
    /// # Panics
    /// When there is no such listener.
    pub async fn listener(&self, name: &str) -> String {
        until_some(&format!("listener {name}"), START, async || {
            let page: Value = serde_json::from_str(&self.page("/listeners?format=json").await.body).ok()?;
            let listener = page["listener_statuses"]
                .as_array()?
                .iter()
                .find(|l| l["name"] == name)?;
            let address = &listener["local_address"]["socket_address"];
            Some(format!(
                "{}:{}",
                address["address"].as_str()?,
                address["port_value"]
            ))
        })
        .await
    }

    /// The sum of all counters and gauges whose name ends with `suffix`.
    ///
    /// # Panics
    /// When the admin page does not answer.
    pub async fn stat(&self, suffix: &str) -> u64 {
        let page = self.page("/stats").await.body;
        page.lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.ends_with(suffix))
            .filter_map(|(_, value)| value.parse::<u64>().ok())
            .sum()
    }

    /// Secrets it rejected so far, by all subscriptions.
    pub async fn rejected(&self) -> u64 {
        self.stat(".update_rejected").await
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
