//! Child processes: each a process group of its own, output in files, killed and reaped when dropped,
//! however the test ends.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use crate::wait;

/// Ticks of `/proc/<pid>/stat`: 100 a second on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);
/// Lines of output shown when a test fails.
const SHOWN: usize = 60;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; its output goes to `name.out` and `name.err` in `logs`, after what an earlier
    /// process of that name left there.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, logs: &Path, command: &mut Command) -> Self {
        Self::spawn_reading(name, logs, command, Stdio::null())
    }

    /// As [`Process::spawn`], with `input` as its stdin.
    ///
    /// # Panics
    /// As [`Process::spawn`].
    pub fn spawn_reading(name: &str, logs: &Path, command: &mut Command, input: Stdio) -> Self {
        let open = |suffix: &str| {
            let path = logs.join(format!("{name}.{suffix}"));
            let file = File::options().create(true).append(true).open(&path);
            (file.unwrap_or_else(|e| panic!("{}: {e}", path.display())), path)
        };
        let ((out, stdout), (err, stderr)) = (open("out"), open("err"));
        let child = command
            .stdin(input)
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("start {:?}: {e}", command.get_program()));
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
            ended: None,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it wrote to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Both outputs.
    #[must_use]
    pub fn output(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// The last lines it wrote, for a failure's text.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = self.output();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends it a signal; to its first process only, as `kill` does.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Some(pid) = self.group()
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it runs longer than `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("end of {}", self.name);
        wait::until_some(&what, deadline, async || self.ended()).await
    }

    /// Asks it to end with SIGTERM and waits; answers its exit code.
    ///
    /// # Panics
    /// When it does not end, or by a signal.
    pub async fn terminate(&mut self) -> i32 {
        self.signal(Signal::TERM);
        let status = self.wait(Duration::from_secs(20)).await;
        status
            .code()
            .unwrap_or_else(|| panic!("{} ended by signal {:?}", self.name, status.signal()))
    }

    /// `kill -9` of the whole group, and the reaping.
    pub fn kill(&mut self) {
        // A reaped leader's number may be somebody else's by now; its group is gone or empty.
        if self.ended().is_none()
            && let Some(pid) = self.group()
        {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
    }

    fn group(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            show(&format!(
                "---- the last of {} ({}) ----\n{}\n",
                self.name,
                self.ended.map_or_else(String::new, |status| status.to_string()),
                self.tail()
            ));
        }
    }
}

#[expect(clippy::print_stderr, reason = "the story behind a failed test")]
fn show(text: &str) {
    eprintln!("{text}");
}

/// Whether a process of this id runs. A zombie does not.
#[must_use]
pub fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit(')')
                .next()
                .map(|rest| !rest.trim_start().starts_with('Z'))
        })
        .unwrap_or(false)
}

/// CPU time of a process, user and system, all threads.
///
/// # Panics
/// When it has ended.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // Fields after the name, which is in parentheses and may hold anything.
    let rest = stat.rsplit_once(") ").expect("a stat line").1;
    let field = |n: usize| {
        rest.split(' ')
            .nth(n)
            .and_then(|f| f.parse::<u32>().ok())
            .expect("a number")
    };
    TICK * (field(11) + field(12))
}

/// Resident memory of a process, in MiB.
///
/// # Panics
/// When it has ended.
#[must_use]
pub fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .expect("a VmRSS line");
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    kib / 1024.0
}

/// `program`, run by a command that becomes it; by itself where there is none.
#[must_use]
pub fn under<S: AsRef<std::ffi::OsStr>>(command: &[S], program: &Path) -> Command {
    let Some((first, rest)) = command.split_first() else {
        return Command::new(program);
    };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

/// One of this workspace's programs, as built beside the running test.
///
/// # Panics
/// When it is missing, naming the command that builds it.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    let package = if name == "signet" { "signet-cli" } else { name };
    beside.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "{name} is not built: run `cargo build -p {package}` first (looked beside {})",
            own.display()
        )
    })
}
