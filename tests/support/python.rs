//! Peers in Python, on libraries that others wrote: a script of `tests/clients/python/` each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::dir::Dir;
use crate::peers;
use crate::process::Process;
use crate::spiffe::Running;

/// Longer than any script waits by itself.
const DEADLINE: Duration = Duration::from_secs(75);

/// A script that is run any number of times.
#[derive(Debug)]
pub struct Script {
    dir: Dir,
    name: String,
    python: PathBuf,
}

impl Script {
    /// The script of this name, or nothing after noting the skip.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        peers::python().map(|python| Self {
            dir: Dir::new(),
            name: name.to_owned(),
            python,
        })
    }

    /// Starts one that goes on.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Running {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("clients/python")
            .join(&self.name);
        let number = std::fs::read_dir(self.dir.path()).map_or(0, Iterator::count);
        let mut command = Command::new(&self.python);
        command.arg(path).args(arguments);
        Running {
            process: Process::spawn(&format!("{}-{number}", self.name), self.dir.path(), &mut command),
        }
    }

    /// Runs one to its end and answers with the lines that it said.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn run(&self, arguments: &[&str]) -> Vec<Value> {
        let mut running = self.start(arguments);
        let status = running.process.wait(DEADLINE).await;
        assert!(status.success(), "{status}:\n{}", running.process.tail());
        running.lines()
    }
}
