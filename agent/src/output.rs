//! Key, chain and roots as files, for programs that only read files: all three [at once](set), with mode 0600, then a
//! hook. A failure is counted and tried again, and never stops the agent.

pub mod set;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use signet_certs::TrustBundle;
use signet_runtime::backoff::{Backoff, random_share};
use signet_runtime::files::read_bounded;

use crate::config::{Hook, Output, SignalName};
use crate::metrics::Metrics;
use crate::svids::{Seen, Verified, View};

/// Waits between attempts.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};
/// A hook that runs longer is killed.
pub const HOOK_DEADLINE: Duration = Duration::from_secs(30);

/// Why the files or what follows them failed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] std::io::Error),
    /// The program could not be started.
    #[error("start {program}: {error}")]
    Start {
        /// The program.
        program: String,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The program said no.
    #[error("{program} ended with {status}")]
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The program took too long and was killed.
    #[error("{program} ran longer than {} s and was killed", HOOK_DEADLINE.as_secs())]
    Late {
        /// The program.
        program: String,
    },
    /// The file does not hold the id of a process.
    #[error("{0} does not hold the id of a process")]
    PidFile(String),
    /// The signal was not delivered.
    #[error("signal process {pid}: {error}")]
    Signal {
        /// The process.
        pid: i32,
        /// The system's reason.
        error: rustix::io::Errno,
    },
}

/// Writes every SVID that comes in sight, with its roots; dropped at shutdown.
pub async fn follow(mut view: View, output: Output, metrics: Metrics) {
    let mut attempts = 0u32;
    let mut written = None;
    loop {
        let pair = Pair::of(&view.current()).filter(|pair| written.as_ref() != Some(pair));
        let outcome = match pair.clone() {
            Some(pair) => write_and_tell(pair, &output, &metrics).await,
            None => Ok(()),
        };
        attempts = match &outcome {
            Ok(()) => {
                written = pair.or(written);
                0
            }
            Err(error) => {
                tracing::error!(%error, attempt = attempts + 1, "output files or their hook failed; trying again");
                attempts.saturating_add(1)
            }
        };
        let retry = tokio::time::sleep(BACKOFF.delay(attempts.saturating_sub(1), random_share()));
        tokio::select! {
            () = view.changed() => {}
            () = retry, if outcome.is_err() => {}
        }
    }
}

/// What goes into the files.
#[derive(Clone)]
struct Pair {
    verified: Verified,
    bundle: Arc<TrustBundle>,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.verified.same_svid(&other.verified) && Arc::ptr_eq(&self.bundle, &other.bundle)
    }
}

impl Pair {
    fn of(seen: &Seen) -> Option<Self> {
        Some(Self {
            verified: seen.default_svid()?.verified.clone()?,
            bundle: Arc::clone(seen.trust.own()?),
        })
    }
}

async fn write_and_tell(pair: Pair, output: &Output, metrics: &Metrics) -> Result<(), OutputError> {
    let outcome = |done: bool| if done { "done" } else { "failed" };
    let directory = output.directory.clone();
    // Waiting for the disk must not hold up a worker that serves secrets.
    let writing = tokio::task::spawn_blocking(move || write(&pair, &directory));
    let written = writing.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    Metrics::count(&metrics.output_writes, outcome(written.is_ok()));
    written?;
    if output.hook == Hook::None {
        return Ok(());
    }
    let told = tell(&output.hook).await;
    Metrics::count(&metrics.output_hooks, outcome(told.is_ok()));
    told
}

/// Writes the three files.
///
/// # Errors
/// The step that failed; the files are as they were.
fn write(pair: &Pair, directory: &Path) -> std::io::Result<()> {
    let svid = pair.verified.svid();
    let key = svid.key().expose_pem();
    let (chain, roots) = (svid.chain().to_pem(), pair.bundle.to_pem());
    let files = [
        ("root-cert.pem", roots.as_bytes()),
        ("key.pem", key.as_bytes()),
        ("cert-chain.pem", chain.as_bytes()),
    ];
    set::publish(directory, &files)
}

/// Runs the program or sends the signal.
///
/// # Errors
/// An [`OutputError`].
pub async fn tell(hook: &Hook) -> Result<(), OutputError> {
    match hook {
        Hook::None => Ok(()),
        Hook::Command { program, arguments } => run(program, arguments).await,
        Hook::Signal { pid_file, signal } => send(pid_file, *signal),
    }
}

async fn run(program: &str, arguments: &[String]) -> Result<(), OutputError> {
    let start = |error| OutputError::Start {
        program: program.to_owned(),
        error,
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    match tokio::time::timeout(HOOK_DEADLINE, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(OutputError::Ended {
            program: program.to_owned(),
            status,
        }),
        Ok(Err(error)) => Err(start(error)),
        Err(_) => Err(OutputError::Late {
            program: program.to_owned(),
        }),
    }
}

fn send(pid_file: &Path, signal: SignalName) -> Result<(), OutputError> {
    let contents = read_bounded(pid_file, 64)?;
    let number = std::str::from_utf8(&contents)
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok());
    // Zero and below mean groups of processes to the kernel, and 1 is not a program that reads files.
    let pid = number.filter(|pid| *pid > 1).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| OutputError::PidFile(pid_file.display().to_string()))?;
    let signal = match signal {
        SignalName::Hup => Signal::HUP,
        SignalName::Usr1 => Signal::USR1,
        SignalName::Usr2 => Signal::USR2,
    };
    kill_process(pid, signal).map_err(|error| OutputError::Signal {
        pid: pid.as_raw_nonzero().get(),
        error,
    })
}
