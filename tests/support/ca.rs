//! `signet-ca` as a process.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value, json};
use signet_certs::{TrustBundle, TrustDomain};

use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::dir::Dir;
use crate::metrics::Scrape;
use crate::process::{Process, program, under};
use crate::wait::{SOON, until_some};

/// A name in the CA's serving certificate.
pub const SERVER_NAME: &str = "signet-ca.signet-system.svc";

/// A CA to be started: a configuration and a directory that outlive its processes.
#[derive(Debug)]
pub struct CaSetup {
    dir: Dir,
    config: Map<String, Value>,
    arguments: Vec<String>,
    before: Vec<String>,
    name: String,
}

impl CaSetup {
    /// The smallest configuration that works beside others: no fixed ports, state in a directory.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Self {
        Self::with_kubeconfig(&cluster.kubeconfig())
    }

    /// As [`CaSetup::new`], at any API server.
    #[must_use]
    pub fn with_kubeconfig(kubeconfig: &Path) -> Self {
        let (dir, address) = (Dir::new(), own_address());
        let config = json!({
            "listen": format!("{address}:0"),
            "metrics_listen": format!("{address}:0"),
            "admin_socket": dir.join("admin/admin.sock"),
            "kubeconfig": kubeconfig,
            "state_directory": dir.join("state"),
            "log_filter": "info,signet_ca=debug",
        });
        let Value::Object(config) = config else {
            unreachable!("an object, as written above")
        };
        Self {
            dir,
            config,
            arguments: Vec::new(),
            before: Vec::new(),
            name: "signet-ca".into(),
        }
    }

    /// Sets a key of the configuration; null takes it out.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.change(key, value);
        self
    }

    /// As [`CaSetup::set`], in place.
    pub fn change(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        if value.is_null() {
            self.config.remove(key);
        } else {
            self.config.insert(key.into(), value);
        }
    }

    /// Adds an argument to the next starts.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Puts a command before the program in the next starts, such as a tracer.
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Self {
        self.before = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Names the process in log files.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// The directory of everything.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The file its state is in.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.dir.join("state/state.json")
    }

    /// Its admin socket.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::at(Path::new(
            self.config["admin_socket"].as_str().unwrap_or_default(),
        ))
    }

    /// Writes the configuration and starts the program; it may well refuse.
    pub fn spawn(&self) -> Process {
        let yaml = signet_runtime::config::to_yaml(&Value::Object(self.config.clone()));
        let config = self.dir.write("ca.yaml", yaml);
        let mut command = under(&self.before, &program("signet-ca"));
        command
            .args(["run", "--config"])
            .arg(config)
            .args(&self.arguments);
        Process::spawn(&self.name, self.dir.path(), &mut command)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead, or is not ready in time.
    pub async fn start(self) -> Ca {
        let process = self.spawn();
        let mut ca = Ca {
            setup: self,
            process,
            address: String::new(),
            metrics: String::new(),
        };
        ca.wait_ready().await;
        ca
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

/// A loopback address that nobody else takes ports of: who starts again finds its own free.
fn own_address() -> Ipv4Addr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let [.., high, low] = TAKEN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [.., process] = std::process::id().to_be_bytes();
    // Not those that tests name.
    Ipv4Addr::new(127, 64 | process, high, low)
}

/// A running CA.
#[derive(Debug)]
pub struct Ca {
    // Dropped first, while the log is still there to be shown.
    /// Its process.
    pub process: Process,
    /// How it was set up.
    pub setup: CaSetup,
    /// Where it serves gRPC, `host:port`.
    pub address: String,
    /// Where its metrics are, `host:port`.
    pub metrics: String,
}

impl Ca {
    /// A CA of the smallest configuration.
    pub async fn start(cluster: &Cluster) -> Self {
        CaSetup::new(cluster).start().await
    }

    /// Starts it again after its process ended, on the port it had, since agents know that one.
    pub async fn start_again(&mut self) {
        let (address, metrics) = (self.address.clone(), self.metrics.clone());
        self.setup.change("listen", address);
        self.setup.change("metrics_listen", metrics);
        self.process = self.setup.spawn();
        self.wait_ready().await;
    }

    /// Its status page once it says it is ready.
    async fn wait_ready(&mut self) {
        let admin = self.admin();
        let process = &mut self.process;
        let status = until_some("the CA to be ready", SOON, async || {
            if let Some(status) = process.ended() {
                panic!("signet-ca ended with {status}:\n{}", process.tail());
            }
            let status = admin.try_get("/v1/status").await.ok()?;
            // A predecessor that drains answers as well.
            let ours = status["pid"] == process.pid() || !self.setup.before.is_empty();
            (ours && status["ready"] == true).then_some(status)
        })
        .await;
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        self.address = text("ca_address");
        self.metrics = text("metrics_address");
    }

    /// Its admin socket.
    #[must_use]
    pub fn admin(&self) -> Admin {
        self.setup.admin()
    }

    /// Its metrics now.
    pub async fn scrape(&self) -> Scrape {
        Scrape::of(&self.metrics).await
    }

    /// The roots it serves, as PEM.
    ///
    /// # Panics
    /// When it does not tell.
    pub async fn roots(&self) -> String {
        let bundle = self.admin().get("/v1/bundle").await;
        bundle["pem"].as_str().expect("pem").to_owned()
    }

    /// The trust bundle it serves.
    ///
    /// # Panics
    /// When it does not tell.
    pub async fn bundle(&self) -> TrustBundle {
        let bundle = self.admin().get("/v1/bundle").await;
        let domain: TrustDomain = bundle["trust_domain"]
            .as_str()
            .expect("trust domain")
            .parse()
            .expect("name");
        let pem = bundle["pem"].as_str().expect("pem");
        TrustBundle::from_pem(
            domain,
            pem.as_bytes(),
            bundle["sequence"].as_u64().expect("sequence"),
        )
        .expect("bundle")
    }
}
