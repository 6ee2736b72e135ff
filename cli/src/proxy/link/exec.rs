//! `kubectl exec` as a connection: whoever may run commands in a pod may ask its proxy, and nobody else; nothing has
//! to listen on the pod's address for it. The operator's own kubectl brings context, credentials and plugins.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, Join};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// What a program says at its end is waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Most bytes of it that are kept.
const MOST_WORDS: u64 = 4_096;

/// How pods are reached.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// Its kubeconfig; nothing for its own choice.
    pub kubeconfig: Option<PathBuf>,
    /// The proxy's container.
    pub container: String,
}

/// What the program has to say, once it ends.
#[derive(Debug, Default)]
pub(super) struct Words(Option<JoinHandle<String>>);

impl Words {
    /// The last thing that it said, if it ended and said anything.
    pub(super) async fn last(&mut self) -> Option<String> {
        let said = tokio::time::timeout(LAST_WORDS, self.0.take()?)
            .await
            .ok()?
            .ok()?;
        let mut lines = said.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        // kubectl adds the exit code below what the command said.
        lines
            .find(|line| !line.starts_with("command terminated with exit code"))
            .map(str::to_owned)
    }
}

impl Kubectl {
    /// Starts a relay to the admin socket in `pod`.
    pub(super) fn start(
        &self,
        namespace: &str,
        pod: &str,
    ) -> io::Result<(Join<ChildStdout, ChildStdin>, Words)> {
        let mut command = Command::new(&self.program);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        command
            .args([
                "--namespace",
                namespace,
                "exec",
                "--stdin",
                pod,
                "--container",
                &self.container,
            ])
            .args(["--", "signet", "proxy", "relay"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let missing = || io::Error::other("it has no standard streams");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let words = tokio::spawn(hear(child, stderr.take(MOST_WORDS)));
        Ok((tokio::io::join(stdout, stdin), Words(Some(words))))
    }
}

/// Keeps the program until it ends by itself, which it does with its standard input.
async fn hear(mut child: Child, mut stderr: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    let _ = stderr.read_to_end(&mut said).await;
    let _ = child.wait().await;
    String::from_utf8_lossy(&said).into_owned()
}
