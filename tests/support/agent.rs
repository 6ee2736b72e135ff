//! `signet-agent` as a process: one per workload.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::admin::Admin;
use crate::ca::{Ca, SERVER_NAME};
use crate::cluster::Cluster;
use crate::dir::Dir;
use crate::metrics::Scrape;
use crate::process::{Process, program};
use crate::wait::{SOON, until_some};

/// An agent to be started: a configuration and a directory that outlive its processes.
#[derive(Debug)]
pub struct AgentSetup {
    dir: Dir,
    config: Map<String, Value>,
    name: String,
}

impl AgentSetup {
    /// The agent of a pod of this account. The workload is made if missing, its token and the CA's
    /// roots are mounted as kubelet would.
    pub async fn new(cluster: &Cluster, ca: &Ca, namespace: &str, account: &str) -> Self {
        let dir = Dir::new();
        let token = dir.write_secret("token", cluster.token(namespace, account));
        let roots = dir.write("root-cert.pem", ca.roots().await);
        let config = json!({
            "ca_address": ca.address,
            "ca_server_name": SERVER_NAME,
            "ca_root_file": roots,
            "token_file": token,
            "socket": dir.sub("workload").join("agent.sock"),
            "admin_socket": dir.join("admin/admin.sock"),
            "metrics_listen": "127.0.0.1:0",
            "log_filter": "info,signet_agent=debug",
        });
        let Value::Object(config) = config else {
            unreachable!("an object, as written above")
        };
        let name = format!("signet-agent-{account}");
        Self { dir, config, name }
    }

    /// Sets a key of the configuration.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// The directory of everything.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    fn path(&self, key: &str) -> &Path {
        Path::new(self.config[key].as_str().unwrap_or_default())
    }

    /// Writes the configuration and starts the program; it may well refuse.
    pub fn spawn(&self) -> Process {
        let yaml = signet_runtime::config::to_yaml(&Value::Object(self.config.clone()));
        let config = self.dir.write("agent.yaml", yaml);
        let mut command = Command::new(program("signet-agent"));
        command.args(["run", "--config"]).arg(config);
        Process::spawn(&self.name, self.dir.path(), &mut command)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead, or is not ready in time.
    pub async fn start(self) -> Agent {
        let mut agent = self.start_unready().await;
        agent.wait_ready().await;
        agent
    }

    /// Starts it and waits until its admin socket answers, ready or not.
    ///
    /// # Panics
    /// As [`AgentSetup::start`].
    pub async fn start_unready(self) -> Agent {
        let process = self.spawn();
        let mut agent = Agent {
            setup: self,
            process,
            metrics: String::new(),
        };
        agent.wait_for("the agent to answer", |_| true).await;
        agent
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

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    // Dropped first, while the log is still there to be shown.
    /// Its process.
    pub process: Process,
    /// How it was set up.
    pub setup: AgentSetup,
    /// Where its metrics are, `host:port`.
    pub metrics: String,
}

impl Agent {
    /// An agent that asks for SVIDs of this life.
    pub async fn start(cluster: &Cluster, ca: &Ca, namespace: &str, account: &str, ttl: &str) -> Self {
        AgentSetup::new(cluster, ca, namespace, account)
            .await
            .set("svid_ttl", ttl)
            .start()
            .await
    }

    /// Starts it again after its process ended.
    pub async fn start_again(&mut self) {
        self.process = self.setup.spawn();
        self.wait_ready().await;
    }

    async fn wait_ready(&mut self) {
        self.wait_for("the agent to be ready", |status| status["ready"] == true)
            .await;
    }

    async fn wait_for(&mut self, what: &str, good: impl Fn(&Value) -> bool) {
        let admin = self.admin();
        let process = &mut self.process;
        let status = until_some(what, SOON, async || {
            if let Some(status) = process.ended() {
                panic!("signet-agent ended with {status}:\n{}", process.tail());
            }
            let status = admin.try_get("/v1/status").await.ok()?;
            (status["pid"] == process.pid() && good(&status)).then_some(status)
        })
        .await;
        self.metrics = status["metrics_address"].as_str().unwrap_or_default().to_owned();
    }

    /// Its admin socket.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::at(self.setup.path("admin_socket"))
    }

    /// The socket workloads dial.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.setup.path("socket").to_owned()
    }

    /// Its metrics now.
    pub async fn scrape(&self) -> Scrape {
        Scrape::of(&self.metrics).await
    }

    /// Its one SVID as the admin page shows it.
    ///
    /// # Panics
    /// When there is none.
    pub async fn svid(&self) -> Value {
        let mut page = self.admin().get("/v1/svids").await;
        assert!(page["svids"][0].is_object(), "no SVID: {page}");
        page["svids"][0].take()
    }

    /// Serial of the SVID it serves.
    pub async fn serial(&self) -> String {
        self.svid().await["serial"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// How often it renewed since it started.
    pub async fn renewals(&self) -> u64 {
        self.svid().await["renewals"].as_u64().unwrap_or_default()
    }

    /// Waits until it has renewed so often.
    ///
    /// # Panics
    /// When `deadline` passes first.
    pub async fn wait_renewals(&self, renewals: u64, deadline: Duration) {
        let what = format!("{renewals} renewals of {}", self.setup.name);
        crate::wait::until(&what, deadline, async || self.renewals().await >= renewals).await;
    }

    /// Gives the agent another token, as kubelet does.
    pub fn mount_token(&self, token: &str) {
        self.setup.dir.write_secret("token", token);
    }
}
