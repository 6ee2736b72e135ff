//! A daemon as a child process: its configuration, log and admin socket in one directory. It runs in a
//! process group of its own, so that Ctrl-C reaches it through its owner and in order.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Serialize;
use signet_runtime::files::{SECRET_MODE, write_atomic};
use signet_runtime::socket::private_directory;
use tokio::process::{Child, Command};

use crate::admin::Admin;

/// How often a starting daemon is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How much of a log's end is read for its last lines.
const LOG_TAIL_BYTES: u64 = 64 * 1024;
/// How many lines are a daemon's last words.
const LAST_LINES: usize = 20;

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// Its program is not there.
    #[error(
        "{name} is not beside this program (looked in {}); build it with `cargo build --workspace --bins`, \
         or install it there", directories.join(" and ")
    )]
    NoProgram {
        /// The program.
        name: String,
        /// Where it was looked for.
        directories: Vec<String>,
    },
    /// Its files cannot be written, or it cannot be started.
    #[error("start {name}: {source}")]
    Start {
        /// The program.
        name: String,
        /// The system's word.
        source: io::Error,
    },
    /// It ended by itself.
    #[error("{name} ended with {status}; its log is {}, which ends with:\n{last_lines}", log.display())]
    Ended {
        /// The program.
        name: String,
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The end of its log.
        last_lines: String,
    },
    /// It runs, but does not become ready.
    #[error(
        "{name} is not ready after {} s: {missing}; its log is {}, which ends with:\n{last_lines}",
        after.as_secs(), log.display()
    )]
    NotReady {
        /// The program.
        name: String,
        /// The patience that was spent.
        after: Duration,
        /// What it waits for, or why its admin socket does not say.
        missing: String,
        /// Its log.
        log: PathBuf,
        /// The end of its log.
        last_lines: String,
    },
}

/// A daemon that can be started.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name, as in `signet-ca`.
    pub name: String,
    /// The program itself.
    pub path: PathBuf,
    /// Its directory: `config.yaml` and `log` lie here.
    pub directory: PathBuf,
    /// Its admin socket, as its configuration says.
    pub admin_socket: PathBuf,
    /// Arguments after `run --config FILE`.
    pub arguments: Vec<String>,
}

impl Program {
    /// The program `name` that lies beside this one.
    ///
    /// # Errors
    /// [`ProcessError::NoProgram`] with the directories looked in.
    pub fn beside(name: &str, directory: &Path, admin_socket: &Path) -> Result<Self, ProcessError> {
        Ok(Self {
            name: name.into(),
            path: find(name)?,
            directory: directory.to_owned(),
            admin_socket: admin_socket.to_owned(),
            arguments: Vec::new(),
        })
    }

    /// Writes `config` and starts the daemon. Its log is appended to.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn start(self, config: &impl Serialize) -> Result<Process, ProcessError> {
        let started = private_directory(&self.directory).and_then(|()| {
            let yaml = serde_saphyr::to_string(config).map_err(io::Error::other)?;
            write_atomic(&self.directory.join("config.yaml"), yaml.as_bytes(), SECRET_MODE)?;
            self.spawn()
        });
        started.map_err(|source| ProcessError::Start {
            name: self.name,
            source,
        })
    }

    /// Starts the daemon again with the configuration that is there.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn start_again(self) -> Result<Process, ProcessError> {
        self.spawn().map_err(|source| ProcessError::Start {
            name: self.name,
            source,
        })
    }

    fn spawn(&self) -> io::Result<Process> {
        let path = self.directory.join("log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(SECRET_MODE)
            .open(&path)?;
        let child = Command::new(&self.path)
            .arg("run")
            .arg("--config")
            .arg(self.directory.join("config.yaml"))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Process {
            program: self.clone(),
            child,
        })
    }
}

/// The program `name` in the directory of this program; for tests, which lie in `deps`, in the one above.
pub(super) fn find(name: &str) -> Result<PathBuf, ProcessError> {
    let own = std::env::current_exe().map_err(|source| ProcessError::Start {
        name: name.into(),
        source,
    })?;
    let mut directories: Vec<&Path> = own.parent().into_iter().collect();
    if let Some(directory) = directories.first().copied().filter(|d| d.ends_with("deps")) {
        directories.extend(directory.parent());
    }
    let found = directories
        .iter()
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| ProcessError::NoProgram {
        name: name.into(),
        directories: directories
            .iter()
            .map(|directory| directory.display().to_string())
            .collect(),
    })
}

/// A daemon that was started. Dropping it kills it; [`Process::stop`] lets it drain.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Child,
}

impl Process {
    /// Its admin socket.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::at(&self.program.admin_socket)
    }

    /// How it was started.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.program.directory.join("log")
    }

    /// Its process id; nothing once it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until its admin socket says that it is ready.
    ///
    /// # Errors
    /// [`ProcessError::Ended`] and [`ProcessError::NotReady`], with its last words.
    pub async fn ready(&mut self, patience: Duration) -> Result<(), ProcessError> {
        let admin = self.admin();
        self.until(patience, async || match admin.readiness().await {
            Ok(status) if status.ready => Ok(()),
            Ok(status) => Err(status.missing.join(", ")),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// Waits until `asked` is so; its error says what is missing.
    ///
    /// # Errors
    /// As [`Process::ready`].
    pub async fn until(
        &mut self,
        patience: Duration,
        asked: impl AsyncFn() -> Result<(), String>,
    ) -> Result<(), ProcessError> {
        let mut missing = "it has not answered yet".to_owned();
        let asking = async {
            let mut every = tokio::time::interval(ASK_EVERY);
            loop {
                every.tick().await;
                match asked().await {
                    Ok(()) => return,
                    Err(what) => missing = what,
                }
            }
        };
        let outcome = tokio::select! {
            ended = self.child.wait() => Some(ended),
            done = tokio::time::timeout(patience, asking) => match done {
                Ok(()) => return Ok(()),
                Err(_) => None,
            },
        };
        match outcome {
            Some(status) => Err(self.ended(status)),
            None => Err(ProcessError::NotReady {
                name: self.program.name.clone(),
                after: patience,
                missing,
                log: self.log(),
                last_lines: self.last_lines(),
            }),
        }
    }

    /// Waits until it ends by itself, and says how. May be cancelled and called again.
    pub async fn end(&mut self) -> ProcessError {
        let status = self.child.wait().await;
        self.ended(status)
    }

    /// Sends SIGTERM and waits at most `patience` for its end, then kills it. Says whether it ended by
    /// itself, with success.
    pub async fn stop(mut self, patience: Duration) -> bool {
        self.signal(rustix::process::Signal::TERM);
        if let Ok(ended) = tokio::time::timeout(patience, self.child.wait()).await {
            return ended.is_ok_and(|status| status.success());
        }
        let _ = self.child.kill().await;
        false
    }

    /// Kills it at once, as `kill -9`, and waits for its end.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Sends a signal. A child that was not waited for keeps its process id, so no stranger gets it.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    fn ended(&self, status: io::Result<ExitStatus>) -> ProcessError {
        ProcessError::Ended {
            name: self.program.name.clone(),
            status: status.map_or_else(|e| e.to_string(), |status| status.to_string()),
            log: self.log(),
            last_lines: self.last_lines(),
        }
    }

    fn last_lines(&self) -> String {
        tail(&self.log()).unwrap_or_else(|e| format!("  ({e})"))
    }
}

/// The last lines of a log, indented.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut end = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines
        .get(lines.len().saturating_sub(LAST_LINES)..)
        .unwrap_or_default();
    Ok(last
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n"))
}

#[cfg(test)]
mod tests;
