//! One node: its agent, and programs that are told apart by the file they run.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use signet_tests::agent::{Agent, AgentSetup};
use signet_tests::ca::Ca;
use signet_tests::cluster::Cluster;
use signet_tests::dir::copy_program;
use signet_tests::load::Report;
use signet_tests::nodes::NODE_ACCOUNT;
use signet_tests::process::program;
use signet_tests::wait::{SOON, until_some};
use tokio::time::Instant;

use crate::{short, text};

/// An identity of the node and the program that has it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) account: &'static str,
    pub(crate) executable: PathBuf,
}

impl Identity {
    pub(crate) fn id(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.account)
    }
}

/// Copies of one program: different files, so different programs to the agent. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Copies {
    directory: tempfile::TempDir,
}

impl Copies {
    /// A directory below `target/`.
    pub(crate) fn new() -> Self {
        let built = program("signet");
        let target = built.ancestors().nth(2).unwrap_or(Path::new("/tmp"));
        let directory = tempfile::Builder::new().prefix("demo-").tempdir_in(target);
        Self {
            directory: directory.unwrap_or_else(|e| panic!("a directory in {}: {e}", target.display())),
        }
    }

    /// A copy of `program` under `name`.
    pub(crate) fn of(&self, program: &Path, name: &str) -> PathBuf {
        let copy = self.directory.path().join(name);
        copy_program(program, &copy);
        copy
    }

    /// A path for a file that goes with the copies.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Starts the node's agent and waits until it holds an SVID of every identity.
pub(crate) async fn start(cluster: &Cluster, ca: &Ca, ttl: &str, identities: &[Identity]) -> Agent {
    let mut rules = Vec::new();
    for identity in identities {
        cluster.workload(identity.namespace, identity.account);
        let account = format!("{}/{}", identity.namespace, identity.account);
        rules.push(json!({"service_account": account, "executable": identity.executable}));
    }
    let (namespace, account) = NODE_ACCOUNT;
    let agent = AgentSetup::new(cluster, ca, namespace, account)
        .await
        .set("svid_ttl", ttl)
        .set("attestor", "unix")
        .set("workloads", rules)
        .start()
        .await;
    for identity in identities {
        let serial = until_some("an SVID of every identity", SOON, async || {
            serial(&agent, &identity.id()).await
        })
        .await;
        println!("      {}, serial {}…", identity.id(), short(&serial));
    }
    agent
}

/// Serial of the SVID that the agent keeps of `id`.
async fn serial(agent: &Agent, id: &str) -> Option<String> {
    let page = agent.admin().get("/v1/svids").await;
    let all = page["svids"].as_array()?;
    let svid = all.iter().find(|svid| svid["spiffe_id"] == id)?;
    Some(text(&svid["serial"]).to_owned())
}

/// One identity over time: how often it was seen to renew.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) name: &'static str,
    pub(crate) id: String,
    pub(crate) serials: Vec<String>,
}

impl Watched {
    pub(crate) fn new(identity: &Identity) -> Self {
        Self {
            name: identity.name,
            id: identity.id(),
            serials: Vec::new(),
        }
    }

    /// Looks whether it has another SVID than before; says so in a line.
    pub(crate) async fn look(&mut self, agent: &Agent, began: Instant, traffic: &Report) {
        let Some(serial) = serial(agent, &self.id).await else {
            panic!("the agent keeps no SVID of {}", self.id);
        };
        if self.serials.last() == Some(&serial) {
            return;
        }
        if !self.serials.is_empty() {
            println!(
                "   {:>4} s  {} renewed: serial {}…, {} requests so far, {} failed",
                began.elapsed().as_secs(),
                self.name,
                short(&serial),
                traffic.requests,
                traffic.failures
            );
        }
        self.serials.push(serial);
    }

    pub(crate) fn renewals(&self) -> u64 {
        u64::try_from(self.serials.len())
            .unwrap_or(u64::MAX)
            .saturating_sub(1)
    }
}

/// What `signet workload list` tells of the node, a line per connected workload.
pub(crate) fn clients(page: &Value) -> Vec<String> {
    let rows = page["workloads"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .filter(|row| row["kind"] == "process")
        .map(|row| {
            let program = Path::new(text(&row["executable"]))
                .file_name()
                .unwrap_or_default();
            format!(
                "process {} ({}) is {}, streams {}",
                row["pid"],
                program.display(),
                text(&row["account"]),
                row["clients"]
            )
        })
        .collect()
}
