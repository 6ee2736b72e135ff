//! `signet` as a user runs it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::process::program;

/// A command that runs longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    /// Its output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }

    /// The same, once it is clear that the command answered yes.
    ///
    /// # Panics
    /// When it did not.
    #[allow(clippy::must_use_candidate, reason = "often only the check is wanted")]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// Runs `signet` with these arguments.
///
/// # Panics
/// When it cannot be run, hangs, or ends by a signal.
pub async fn signet(arguments: &[&str]) -> Ran {
    signet_with(arguments, "").await
}

/// As [`signet`], with `input`.
///
/// # Panics
/// As [`signet`].
pub async fn signet_with(arguments: &[&str], input: &str) -> Ran {
    let mut child = Command::new(program("signet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("signet");
    let mut stdin = child.stdin.take().expect("stdin");
    // A command that reads nothing closes the pipe.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let done = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    let done = done
        .unwrap_or_else(|_| panic!("signet {arguments:?} hangs"))
        .expect("signet");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: done
            .status
            .code()
            .unwrap_or_else(|| panic!("signet {arguments:?}: {}", done.status)),
        stdout: text(done.stdout),
        stderr: text(done.stderr),
    }
}
