//! Ends the daemons when `signet dev` is killed. A handler cannot do that after `kill -9`, and servers
//! carry no hook for it; so a second process holds the reading end of a pipe. The kernel closes the
//! other end with its owner, whatever ended it.
//!
//! Processes are held by descriptor, not by number: once one is gone, nothing of the same number is hit.

use std::io::BufRead as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::fault::{Answer, Fault};

/// Name of the hidden command.
pub const COMMAND: &str = "dev-guard";
/// Patience for a daemon after SIGTERM. Longer than the CA's own drain.
const DRAIN: Duration = Duration::from_secs(12);
/// Most daemons guarded.
const MAX_GUARDED: usize = 64;

/// The guard, as its owner holds it.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    pids: tokio::sync::mpsc::Sender<u32>,
    writer: tokio::task::JoinHandle<()>,
}

impl Guard {
    /// Starts the guard: this program, in a process group of its own.
    ///
    /// # Errors
    /// [`Fault::Unanswered`] when it cannot be started.
    pub fn start() -> Result<Self, Fault> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let mut pipe = child
            .stdin
            .take()
            .ok_or_else(|| Fault::unanswered("the guard has no pipe"))?;
        let (pids, mut told) = tokio::sync::mpsc::channel::<u32>(MAX_GUARDED);
        let writer = tokio::spawn(async move {
            while let Some(pid) = told.recv().await {
                let _ = pipe.write_all(format!("{pid}\n").as_bytes()).await;
                let _ = pipe.flush().await;
            }
        });
        Ok(Self { child, pids, writer })
    }

    /// From now on this process ends with us.
    pub fn watch(&self, pid: u32) {
        let _ = self.pids.try_send(pid);
    }

    /// Lets the guard go, after the daemons were stopped.
    pub async fn dismiss(mut self) {
        drop(self.pids);
        let _ = self.writer.await;
        let _ = self.child.wait().await;
    }
}

/// The guard itself: reads process ids until its owner is gone, then ends those that still run.
pub(crate) fn run() -> Result<Answer, Fault> {
    let mut guarded = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let pid = line?.trim().parse().ok().and_then(Pid::from_raw);
        if let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            && guarded.len() < MAX_GUARDED
        {
            guarded.push(process);
        }
    }
    for process in &guarded {
        let _ = pidfd_send_signal(process, Signal::TERM);
    }
    for process in guarded {
        if !ends(&process) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    Ok(Answer::Yes)
}

/// A process descriptor is readable once the process has ended.
fn ends(process: &OwnedFd) -> bool {
    let patience = Timespec::try_from(DRAIN).ok();
    poll(&mut [PollFd::new(process, PollFlags::IN)], patience.as_ref()).is_ok_and(|ready| ready > 0)
}
