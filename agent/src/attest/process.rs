//! A process of this machine, held by descriptors: its directory in `/proc` and, where the kernel has
//! them, a pidfd. A number may be given to another process; a descriptor never is.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::stat::{self, Owner, Start};

/// How often a process without a pidfd is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Longest file of `/proc` that is read, and one byte to notice a longer one.
const MAX_FILE: u64 = super::cgroup::MAX_TEXT as u64 + 1;

/// Why a process cannot be held, or is no longer what it was.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It has ended.
    #[error("the process has ended")]
    Ended,
    /// It runs as another user or group than before: it changed them, or is another process.
    #[error("the process runs as another user or group than the one that connected")]
    OtherOwner,
    /// It began at another time than before: it is another process.
    #[error("the process is not the one that connected")]
    OtherProcess,
    /// A file of `/proc` is not as documented.
    #[error("its {0} in the process table cannot be understood")]
    Malformed(&'static str),
    /// A file of `/proc` cannot be read.
    #[error("its {0} in the process table cannot be read: {1}")]
    Unreadable(&'static str, #[source] io::Error),
}

impl ProcessError {
    fn of(what: &'static str, error: Errno) -> Self {
        match error {
            Errno::SRCH | Errno::NOENT => Self::Ended,
            error => Self::Unreadable(what, error.into()),
        }
    }
}

/// Which file, wherever it is mounted: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file at `path`, symbolic links followed.
    ///
    /// # Errors
    /// The system's own.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let meta = std::fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
        })
    }
}

/// A process, held.
#[derive(Debug)]
pub struct Process {
    directory: OwnedFd,
    exit: Option<AsyncFd<OwnedFd>>,
    start: Start,
    owner: Owner,
}

impl Process {
    /// Holds the process `pid` of our own process namespace, whose table is mounted at `proc`. `named` is
    /// the pidfd of the process meant, where the kernel gives it; without it the number alone tells.
    ///
    /// The directory is opened before the pidfd is found alive (or opened), and then the process is found
    /// alive through the directory: so it had this number all the time between, and both descriptors are
    /// of it.
    ///
    /// # Errors
    /// A [`ProcessError`].
    pub fn hold(pid: Pid, named: Option<OwnedFd>, proc: &Path) -> Result<Self, ProcessError> {
        let path = proc.join(pid.as_raw_nonzero().to_string());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| ProcessError::of("directory", e))?;
        let exit = match named {
            Some(fd) => {
                check_running(&fd)?;
                Some(watched(fd)?)
            }
            None => exit_of(pid)?,
        };
        let start = stat::start(&read(&directory, "stat")?)?;
        let owner = stat::owner(&read(&directory, "status")?)?;
        Ok(Self {
            directory,
            exit,
            start,
            owner,
        })
    }

    /// Who it ran as when it was taken hold of: effective user and group.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether it lives, and is what it was when it was taken hold of.
    ///
    /// # Errors
    /// A [`ProcessError`].
    pub fn recheck(&self) -> Result<(), ProcessError> {
        if stat::start(&read(&self.directory, "stat")?)? != self.start {
            return Err(ProcessError::OtherProcess);
        }
        if stat::owner(&read(&self.directory, "status")?)? != self.owner {
            return Err(ProcessError::OtherOwner);
        }
        Ok(())
    }

    /// Its `/proc/<pid>/cgroup`, cut one byte after the longest that is sensible.
    ///
    /// # Errors
    /// A [`ProcessError`].
    pub fn cgroup(&self) -> Result<Vec<u8>, ProcessError> {
        read(&self.directory, "cgroup")
    }

    /// The file it executes. Needs the rights of a tracer: the same user, and a process that permits it.
    ///
    /// # Errors
    /// A [`ProcessError`].
    pub fn executable(&self) -> Result<FileId, ProcessError> {
        self.link("exe")
    }

    /// Its mount namespace. Needs the rights of a tracer.
    ///
    /// # Errors
    /// A [`ProcessError`].
    pub fn mounts(&self) -> Result<FileId, ProcessError> {
        self.link("ns/mnt")
    }

    fn link(&self, name: &'static str) -> Result<FileId, ProcessError> {
        let stat = rustix::fs::statat(&self.directory, name, AtFlags::empty())
            .map_err(|e| ProcessError::of(name, e))?;
        Ok(FileId {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        if let Some(exit) = &self.exit {
            // Its readiness is never cleared: everybody who waits is to see it.
            let _ready = exit.ready(Interest::READABLE).await;
        }
        while !matches!(self.recheck(), Err(ProcessError::Ended)) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// That the process of a pidfd has not ended, reaped or not.
fn check_running(pidfd: &OwnedFd) -> Result<(), ProcessError> {
    let mut asked = [PollFd::new(pidfd, PollFlags::IN)];
    match rustix::event::poll(&mut asked, Some(&Timespec::default())) {
        Ok(0) => Ok(()),
        Ok(_) => Err(ProcessError::Ended),
        Err(error) => Err(ProcessError::of("pidfd", error)),
    }
}

/// A pidfd, which becomes readable when the process ends (pidfd_open(2)); none before Linux 5.3.
fn exit_of(pid: Pid) -> Result<Option<AsyncFd<OwnedFd>>, ProcessError> {
    match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(fd) => watched(fd).map(Some),
        // Older than the flag (5.10), or than the call (5.3).
        Err(Errno::INVAL) => match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => watched(fd).map(Some),
            Err(error) => Err(ProcessError::of("pidfd", error)),
        },
        Err(Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(error) => Err(ProcessError::of("pidfd", error)),
    }
}

#[expect(
    deprecated,
    reason = "an OwnedFd keeps its descriptor until it is dropped, which is what the call relies on; its \
              successor is unsafe to call, and nothing is here (I10)"
)]
fn watched(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, ProcessError> {
    AsyncFd::with_interest(fd, Interest::READABLE).map_err(|e| ProcessError::Unreadable("pidfd", e))
}

fn read(directory: &OwnedFd, name: &'static str) -> Result<Vec<u8>, ProcessError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(|e| ProcessError::of(name, e))?;
    let mut text = Vec::new();
    match std::fs::File::from(file).take(MAX_FILE).read_to_end(&mut text) {
        Ok(_) => Ok(text),
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Err(ProcessError::Ended),
        Err(e) => Err(ProcessError::Unreadable(name, e)),
    }
}

/// Whether the process table mounted at `proc` counts processes as we do. One of another process
/// namespace would show other processes under the numbers that the kernel gives us.
///
/// # Errors
/// A sentence.
pub fn check_table(proc: &Path) -> Result<(), String> {
    let shown = proc.display();
    let status = std::fs::read(proc.join("self/status"))
        .map_err(|e| format!("{shown} is no process table that shows this process: {e}"))?;
    match stat::namespaces(&status) {
        Some(1) => Ok(()),
        Some(_) => Err(format!(
            "{shown} is of another process namespace than this process; give the pod hostPID"
        )),
        None => Err(format!(
            "{shown}/self/status has no NSpid; Linux 4.1 or later is needed"
        )),
    }
}

#[cfg(test)]
pub(crate) mod tests;
