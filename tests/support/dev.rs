//! `signet dev` as a process.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::dir::Dir;
use crate::process::{Process, program};
use crate::wait::until_some;

/// Cluster, CA, agent and the first SVID.
const START: Duration = Duration::from_secs(30);

/// A running `signet dev --json`.
#[derive(Debug)]
pub struct Dev {
    /// Its process.
    pub process: Process,
    /// The line it printed.
    pub ready: Value,
    dir: Dir,
}

impl Dev {
    /// Starts it with these arguments and waits for its line.
    ///
    /// # Panics
    /// When it ends first, or prints something else.
    pub async fn start(arguments: &[&str]) -> Self {
        let dir = Dir::new();
        let mut command = Command::new(program("signet"));
        command
            .args(["dev", "--json", "--dir"])
            .arg(dir.sub("dev"))
            .args(arguments);
        let mut process = Process::spawn("signet-dev", dir.path(), &mut command);
        let ready = until_some("signet dev to be ready", START, async || {
            if let Some(status) = process.ended() {
                panic!("signet dev ended with {status}:\n{}", process.tail());
            }
            let text = process.stdout();
            let line = text.strip_suffix('\n')?;
            Some(serde_json::from_str(line).unwrap_or_else(|e| panic!("not one line of JSON ({e}): {text}")))
        })
        .await;
        Self { process, ready, dir }
    }

    /// A value of its line.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn value(&self, key: &str) -> &str {
        self.ready[key]
            .as_str()
            .unwrap_or_else(|| panic!("no {key} in {}", self.ready))
    }

    /// The directory it works in.
    #[must_use]
    pub fn dir(&self) -> std::path::PathBuf {
        self.dir.join("dev")
    }
}
