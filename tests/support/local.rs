//! Local processes for the agent to attest (`tests/clients/peer`), and a process table that says what
//! pods they are of: no kubelet runs here, so their cgroups have to be told.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::dir::Dir;
use crate::process::{Process, program};
use crate::wait::{SOON, until_some};

/// The node of every pod here.
pub const NODE: &str = "node-1";

/// A container: 64 digits, as runtimes make them.
#[must_use]
pub fn container(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A pod of this account on [`NODE`], with a running container; answers the pod's uid.
///
/// # Panics
/// When the cluster refuses.
pub fn run_pod(cluster: &Cluster, (namespace, account): (&str, &str), name: &str, container: &str) -> String {
    crate::nodes::pod(cluster, (namespace, account), name, Some(NODE));
    let mut pod = cluster.get("pods", namespace, name).expect("the pod");
    pod["status"] = json!({
        "phase": "Running",
        "containerStatuses": [{
            "name": "main", "image": "none", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": format!("containerd://{container}"), "state": {"running": {}},
        }],
    });
    let pod = cluster.api.put(pod).expect("its status");
    pod["metadata"]["uid"].as_str().expect("its uid").to_owned()
}

/// The cgroups of a process in a container, as seen from another pod.
#[must_use]
pub fn cgroup(pod: &str, container: &str) -> String {
    let pod = pod.replace('-', "_");
    format!("0::/../../kubepods-burstable-pod{pod}.slice/cri-containerd-{container}.scope\n")
}

/// A process table with the processes it is told of. What it shows of them is the kernel's, but their cgroups.
#[derive(Debug)]
pub struct Table(Dir);

impl Default for Table {
    fn default() -> Self {
        let dir = Dir::new();
        std::fs::write(dir.sub("self").join("status"), "NSpid:\t1\n").expect("status");
        Self(dir)
    }
}

impl Table {
    /// For the agent's `host_proc`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Shows a process with these cgroups.
    ///
    /// # Panics
    /// When files cannot be made.
    pub fn show(&self, pid: u32, cgroup: &str) {
        self.hide(pid);
        let place = self.0.sub(pid.to_string());
        for file in ["stat", "status"] {
            let real = PathBuf::from(format!("/proc/{pid}/{file}"));
            std::os::unix::fs::symlink(real, place.join(file)).expect("link");
        }
        std::fs::write(place.join("cgroup"), cgroup).expect("cgroup");
    }

    /// Shows a process no longer: its number may be another's soon.
    pub fn hide(&self, pid: u32) {
        let _ = std::fs::remove_dir_all(self.0.join(pid.to_string()));
    }
}

/// A process at the agent's socket.
#[derive(Debug)]
pub struct Local {
    /// Its process.
    pub process: Process,
    go: PathBuf,
    _dir: Dir,
}

impl Local {
    /// The program that does it.
    #[must_use]
    pub fn program() -> PathBuf {
        program("signet-peer")
    }

    /// One that will ask (`fetch`) or ask and stay (`hold`) for `name` once it is told to.
    #[must_use]
    pub fn start(verb: &str, socket: &Path, name: &str) -> Self {
        Self::of(&Self::program(), verb, socket, name)
    }

    /// As [`Local::start`], executing this copy of the program.
    #[must_use]
    pub fn of(program: &Path, verb: &str, socket: &Path, name: &str) -> Self {
        let dir = Dir::new();
        let go = dir.join("go");
        let mut command = Command::new(program);
        command.arg(verb).arg(socket).arg(name).arg(&go);
        let process = Process::spawn("peer", dir.path(), &mut command);
        Self {
            process,
            go,
            _dir: dir,
        }
    }

    /// Tells it to go on.
    ///
    /// # Panics
    /// When that cannot be written.
    pub fn go(&self) {
        std::fs::write(&self.go, "").expect("go");
    }

    /// The line of this number, once it says it.
    ///
    /// # Panics
    /// When it ends before, or does not say it.
    pub async fn says(&mut self, number: usize) -> Value {
        until_some("a word of a local process", SOON, async || {
            let ended = self.process.ended();
            let said = self.process.stdout();
            let whole = said.rfind('\n').map_or("", |end| &said[..end]);
            let line = whole.lines().nth(number).map(str::to_owned);
            assert!(
                line.is_some() || ended.is_none(),
                "it ended:\n{}",
                self.process.tail()
            );
            line.map(|line| serde_json::from_str(&line).expect("JSON"))
        })
        .await
    }
}
