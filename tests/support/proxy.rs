//! `signet-proxy` as a process, with its policies as files or from the agent.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::dir::Dir;
use crate::http;
use crate::metrics::Scrape;
use crate::process::{Process, program, under};
use crate::wait::{SOON, until_some};

/// A proxy to be started: a configuration and a directory that outlive its processes.
#[derive(Debug)]
pub struct ProxySetup {
    dir: Dir,
    config: Map<String, Value>,
    inbound: Vec<Value>,
    outbound: Vec<Value>,
    name: String,
    under: &'static [&'static str],
    program: PathBuf,
}

impl ProxySetup {
    /// A proxy on the agent at this socket, for a workload of `namespace` with the label `app: <app>`. Its policies are
    /// files, of which there is an empty one, which says that there are none.
    #[must_use]
    pub fn new(agent: &Path, namespace: &str, app: &str) -> Self {
        let dir = Dir::new();
        let policies = dir.sub("policies");
        dir.write(Path::new("policies").join("none.yaml"), "");
        let config = json!({
            "agent_socket": agent,
            "policies": {"directory": policies, "namespace": namespace, "labels": {"app": app}},
            "admin_listen": "127.0.0.1:0",
            "admin_socket": dir.join("admin/admin.sock"),
            "metrics_listen": "127.0.0.1:0",
            "log_filter": "info,signet_proxy=debug",
        });
        let Value::Object(config) = config else {
            unreachable!("an object, as written above")
        };
        Self {
            dir,
            config,
            inbound: Vec::new(),
            outbound: Vec::new(),
            name: format!("signet-proxy-{app}"),
            under: &[],
            program: program("signet-proxy"),
        }
    }

    /// Runs this copy of it: a file of its own is a program of its own to the agent.
    #[must_use]
    pub fn running(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Runs it by this command, which has to become it.
    #[must_use]
    pub fn under(mut self, command: &'static [&'static str]) -> Self {
        self.under = command;
        self
    }

    /// Sets a key of the configuration.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// One more inbound listener, on a port that the system chooses, in front of `upstream` (`host:port`). `more` has
    /// whatever else stands in the configuration of it, such as `{"protocol": "http"}`.
    #[must_use]
    pub fn inbound(mut self, upstream: &str, more: Value) -> Self {
        self.inbound.push(merged(
            json!({"listen": "127.0.0.1:0", "upstream": upstream}),
            more,
        ));
        self
    }

    /// One more outbound listener; as [`Self::inbound`].
    #[must_use]
    pub fn outbound(mut self, upstream: &str, more: Value) -> Self {
        self.outbound.push(merged(
            json!({"listen": "127.0.0.1:0", "upstream": upstream}),
            more,
        ));
        self
    }

    /// With this policy file, before it starts.
    #[must_use]
    pub fn policy(self, name: &str, yaml: &str) -> Self {
        self.dir.write(Path::new("policies").join(name), yaml);
        self
    }

    /// The directory of everything.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Writes the configuration and starts the program; it may well refuse.
    pub fn spawn(&self) -> Process {
        let mut config = self.config.clone();
        config.insert("inbound".into(), self.inbound.clone().into());
        config.insert("outbound".into(), self.outbound.clone().into());
        let yaml = signet_runtime::config::to_yaml(&Value::Object(config));
        let path = self.dir.write("proxy.yaml", yaml);
        let mut command = under(self.under, &self.program);
        command.args(["run", "--config"]).arg(path);
        Process::spawn(&self.name, self.dir.path(), &mut command)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead, or is not ready in time.
    pub async fn start(self) -> Proxy {
        let mut proxy = self.start_unready().await;
        proxy.wait_ready().await;
        proxy
    }

    /// Starts it and waits until it listens, ready or not.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_unready(self) -> Proxy {
        let process = self.spawn();
        let mut proxy = Proxy {
            process,
            setup: self,
            admin: String::new(),
            metrics: String::new(),
            listeners: Vec::new(),
            passed: 0,
        };
        proxy.wait_listening().await;
        proxy
    }

    /// Starts it and waits until it refuses; answers what it wrote.
    ///
    /// # Panics
    /// When it does not end, or with success.
    pub async fn refused(&self) -> String {
        let mut process = self.spawn();
        let status = process.wait(SOON).await;
        assert!(
            !status.success(),
            "it started and ended well:\n{}",
            process.tail()
        );
        process.output()
    }
}

fn merged(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    // Dropped first, while the log is still there to be shown.
    /// Its process.
    pub process: Process,
    /// How it was set up.
    pub setup: ProxySetup,
    /// Its admin page, `host:port`.
    pub admin: String,
    /// Where its metrics are, `host:port`.
    pub metrics: String,
    listeners: Vec<Value>,
    /// Lines of the log that belong to processes before this one.
    passed: usize,
}

impl Proxy {
    /// Starts it again after its process ended. Ports change.
    pub async fn start_again(&mut self) {
        self.passed = self.lines().len();
        self.process = self.setup.spawn();
        self.wait_listening().await;
        self.wait_ready().await;
    }

    async fn wait_listening(&mut self) {
        let passed = self.passed;
        let process = &mut self.process;
        let started = until_some("the proxy to listen", SOON, async || {
            if let Some(status) = process.ended() {
                panic!("signet-proxy ended with {status}:\n{}", process.tail());
            }
            let lines = log_lines(&process.stderr());
            let mut new = lines.into_iter().skip(passed);
            new.find(|line| line["message"] == "proxy started")
        })
        .await;
        let text = |key: &str| started[key].as_str().unwrap_or_default().to_owned();
        (self.admin, self.metrics) = (text("admin_address"), text("metrics_address"));
        let page = self.page("/listeners").await;
        self.listeners = page["listeners"].as_array().cloned().unwrap_or_default();
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends instead, or not in time.
    pub async fn wait_ready(&mut self) {
        let metrics = self.metrics.clone();
        let process = &mut self.process;
        until_some("the proxy to be ready", SOON, async || {
            if let Some(status) = process.ended() {
                panic!("signet-proxy ended with {status}:\n{}", process.tail());
            }
            let answer = http::get(&metrics, "/healthz/ready").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    fn address(&self, direction: &str, number: usize) -> String {
        let mut all = self
            .listeners
            .iter()
            .filter(|one| one["direction"] == direction && one["captures"] == false);
        let found = all
            .nth(number)
            .unwrap_or_else(|| panic!("no {direction} listener {number}"));
        found["address"].as_str().unwrap_or_default().to_owned()
    }

    /// Where the inbound listener of this number is, `host:port`.
    #[must_use]
    pub fn inbound(&self, number: usize) -> String {
        self.address("inbound", number)
    }

    /// Where the outbound listener of this number is, `host:port`.
    #[must_use]
    pub fn outbound(&self, number: usize) -> String {
        self.address("outbound", number)
    }

    /// Its admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> String {
        self.setup.dir.join("admin/admin.sock").display().to_string()
    }

    /// A page of its admin address, as JSON.
    ///
    /// # Panics
    /// When it is not answered with 200 and JSON.
    pub async fn page(&self, path: &str) -> Value {
        let answer = http::get(&self.admin, path)
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{path}: {e}: {}", answer.body))
    }

    /// Its metrics now.
    pub async fn scrape(&self) -> Scrape {
        Scrape::of(&self.metrics).await
    }

    /// Where its policy files are.
    #[must_use]
    pub fn policies(&self) -> PathBuf {
        self.setup.dir.join("policies")
    }

    /// Writes a policy file and waits until another version is in force.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub async fn apply(&self, name: &str, yaml: &str) {
        let before = self.version().await;
        self.setup.dir.write(Path::new("policies").join(name), yaml);
        self.changed(&before).await;
    }

    /// Removes a policy file and waits until another version is in force.
    ///
    /// # Panics
    /// As [`Self::apply`].
    pub async fn withdraw(&self, name: &str) {
        let before = self.version().await;
        std::fs::remove_file(self.policies().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        self.changed(&before).await;
    }

    async fn changed(&self, before: &Value) {
        until_some("the new policies to be in force", SOON, async || {
            (self.version().await != *before).then_some(())
        })
        .await;
    }

    async fn version(&self) -> Value {
        self.page("/policies").await["in_force"]["version"].take()
    }

    /// Its log so far, as it wrote it.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    fn lines(&self) -> Vec<Value> {
        log_lines(&self.process.stderr())
    }

    /// Its access records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["target"] == "access");
        lines
    }

    /// Waits for an access record that fits.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn record(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        until_some(what, SOON, async || {
            self.records().into_iter().find(|line| fits(line))
        })
        .await
    }
}

/// The lines of a log that are JSON.
fn log_lines(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
