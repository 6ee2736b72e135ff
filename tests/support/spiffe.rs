//! Workloads that use SPIFFE libraries which others wrote: one program per library, all with the same
//! commands and answers (`tests/clients/`), so that what is asked of one is asked of all.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Agent, AgentSetup};
use crate::ca::Ca;
use crate::cluster::Cluster;
use crate::dir::{Dir, copy_program};
use crate::process::{Process, program};
use crate::{peers, wait};

/// Account of the agent, which the CA trusts to ask for the workloads of its node.
pub const AGENT_ACCOUNT: &str = "signet-system/signet-agent";
/// Longer than any client waits by itself.
const DEADLINE: Duration = Duration::from_secs(75);

/// A workload's program, a file of its own: that is what the agent tells it by.
#[derive(Debug)]
pub struct Workload {
    dir: Dir,
    name: String,
    program: PathBuf,
    arguments: Vec<PathBuf>,
}

impl Workload {
    /// One that uses the Rust crates `spiffe` and `spiffe-rustls`.
    #[must_use]
    pub fn rust(name: &str) -> Self {
        Self::copy_of(&program("signet-spiffe-client"), name)
    }

    /// One that uses go-spiffe, or nothing after noting the skip.
    #[must_use]
    pub fn go(name: &str) -> Option<Self> {
        peers::go_client().map(|client| Self::copy_of(&client, name))
    }

    /// One that uses the SPIFFE library for Python, or nothing after noting the skip. All of them are
    /// told by the same interpreter.
    #[must_use]
    pub fn python(name: &str) -> Option<Self> {
        let python = peers::python()?;
        let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/client.py");
        Some(Self {
            dir: Dir::new(),
            name: name.to_owned(),
            program: python,
            arguments: vec![client],
        })
    }

    fn copy_of(original: &Path, name: &str) -> Self {
        let dir = Dir::new();
        let program = dir.join(name);
        copy_program(original, &program);
        Self {
            dir,
            name: name.to_owned(),
            program,
            arguments: Vec::new(),
        }
    }

    /// The file that its processes execute.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn executable(&self) -> PathBuf {
        self.program.canonicalize().expect("the client's program")
    }

    /// The agent's rule that gives it the identity of `namespace/name`.
    #[must_use]
    pub fn rule(&self, account: &str) -> Value {
        json!({"service_account": account, "executable": self.executable()})
    }

    fn command(&self, socket: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(arguments)
            .env("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display()));
        command
    }

    /// Runs a command to its end. `Err` is what it says when the answer is no.
    ///
    /// # Errors
    /// The client's own words.
    ///
    /// # Panics
    /// When it does not end, or says nothing.
    pub async fn run(&self, socket: &Path, arguments: &[&str]) -> Result<Vec<Value>, String> {
        let mut running = self.start(socket, arguments);
        let status = running.process.wait(DEADLINE).await;
        let mut lines = running.lines();
        match lines.last().and_then(|last| last["error"].as_str()) {
            Some(error) => Err(error.to_owned()),
            None => {
                assert!(status.success(), "{status}:\n{}", running.process.tail());
                assert!(!lines.is_empty(), "it said nothing");
                Ok(std::mem::take(&mut lines))
            }
        }
    }

    /// As [`Workload::run`], for a command that answers with one line.
    ///
    /// # Panics
    /// When the answer is no.
    pub async fn ask(&self, socket: &Path, arguments: &[&str]) -> Value {
        let answer = self.run(socket, arguments).await;
        let mut lines = answer.unwrap_or_else(|error| panic!("{} {arguments:?}: {error}", self.name));
        lines.swap_remove(0)
    }

    /// As [`Workload::run`], with `input` on its stdin.
    ///
    /// # Errors
    /// As [`Workload::run`].
    ///
    /// # Panics
    /// As [`Workload::run`].
    pub async fn run_with(&self, socket: &Path, arguments: &[&str], input: &str) -> Result<Value, String> {
        let file = self.dir.write_secret("input", input);
        let mut command = self.command(socket, arguments);
        let run = tokio::task::spawn_blocking(move || {
            let input = std::fs::File::open(file).expect("input");
            command
                .stdin(Stdio::from(input))
                .output()
                .expect("the client runs")
        });
        let output = wait::within("the client", DEADLINE, run).await.expect("its end");
        let text = String::from_utf8_lossy(&output.stdout);
        let line: Value = serde_json::from_str(text.trim())
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        match line["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(line),
        }
    }

    /// Starts a command that goes on.
    #[must_use]
    pub fn start(&self, socket: &Path, arguments: &[&str]) -> Running {
        let logs = self.dir.sub("logs");
        let number = std::fs::read_dir(&logs).map_or(0, Iterator::count);
        let name = format!("{}-{number}", self.name);
        let process = Process::spawn(&name, &logs, &mut self.command(socket, arguments));
        Running { process }
    }
}

/// A client at work.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub process: Process,
}

impl Running {
    /// The lines it has written whole.
    ///
    /// # Panics
    /// When one is no JSON.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let text = self.process.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        whole.lines().map(read).collect()
    }

    /// Its line of this number, once it is there.
    ///
    /// # Panics
    /// When it ends before, or the line does not come.
    pub async fn line(&mut self, number: usize) -> Value {
        let what = format!("line {number} of a client");
        wait::until_some(&what, DEADLINE, async || {
            let ended = self.process.ended();
            let line = self.lines().into_iter().nth(number);
            assert!(
                line.is_some() || ended.is_none(),
                "it ended with {ended:?}:\n{}",
                self.process.tail()
            );
            line
        })
        .await
    }

    /// The address of a server, once it says it.
    ///
    /// # Panics
    /// As [`Running::line`].
    pub async fn address(&mut self) -> String {
        let line = self.line(0).await;
        let address = line["address"].as_str();
        address.unwrap_or_else(|| panic!("no address: {line}")).to_owned()
    }
}

/// The agent of `node-1`, which attests processes by `rules` and asks for their accounts' identities.
/// Each account gets a pod on that node.
pub async fn node_agent(cluster: &Cluster, ca: &Ca, rules: &[Value]) -> AgentSetup {
    for rule in rules {
        let account = rule["service_account"].as_str().unwrap_or_default();
        let (namespace, name) = account.split_once('/').expect("namespace/name");
        cluster.workload(namespace, name);
    }
    let (namespace, name) = AGENT_ACCOUNT.split_once('/').expect("namespace/name");
    AgentSetup::new(cluster, ca, namespace, name)
        .await
        .set("attestor", "unix")
        .set("workloads", rules.to_vec())
}

/// As [`node_agent`], started, with SVIDs of this life.
pub async fn start_node_agent(cluster: &Cluster, ca: &Ca, rules: &[Value], ttl: &str) -> Agent {
    let setup = node_agent(cluster, ca, rules).await.set("svid_ttl", ttl);
    setup.start().await
}

/// Serial numbers are compared without leading zeros, as the libraries print them.
#[must_use]
pub fn bare(serial: &str) -> &str {
    serial.trim_start_matches('0')
}
