use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::*;

/// A child that does nothing until it is killed; dropped, it is gone.
pub(crate) struct Idle(pub(crate) Child);

impl Idle {
    pub(crate) fn start() -> Self {
        Self::of(Path::new("sleep"))
    }

    /// One that executes this copy of `sleep`.
    pub(crate) fn of(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.arg0("sleep").arg("600").stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Kills it and does not reap it.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A copy of `sleep` at `path`. Another program makes it: a file that this one has open for writing could be inherited by
/// a child that another test starts at that moment, and executing it would be refused (`ETXTBSY`).
pub(crate) fn sleep_at(path: &Path) {
    let sleep = ["/bin/sleep", "/usr/bin/sleep"]
        .iter()
        .find(|path| Path::new(path).exists())
        .unwrap();
    let done = Command::new("cp").arg(sleep).arg(path).status().unwrap();
    assert!(done.success(), "cp {sleep} {}", path.display());
}

fn proc() -> &'static Path {
    Path::new("/proc")
}

#[tokio::test]
async fn the_end_of_a_process_is_noticed_with_and_without_a_pidfd() {
    for with_pidfd in [true, false] {
        let mut child = Idle::start();
        let mut process = Process::hold(child.pid(), None, proc()).unwrap();
        if !with_pidfd {
            process.exit = None;
        }
        process.recheck().unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), process.ended()).await;
        assert!(early.is_err(), "it lives");
        child.kill();
        // Several wait for the same end; none may miss it.
        tokio::join!(process.ended(), process.ended());
        // A zombie has ended, and so has one that was reaped.
        assert!(matches!(process.recheck(), Err(ProcessError::Ended)));
        drop(child);
        assert!(matches!(process.recheck(), Err(ProcessError::Ended)));
        assert!(matches!(process.cgroup(), Err(ProcessError::Ended)));
        process.ended().await;
    }
}

#[tokio::test]
async fn a_process_that_is_gone_cannot_be_held() {
    let child = Idle::start();
    let pid = child.pid();
    drop(child);
    assert!(matches!(
        Process::hold(pid, None, proc()),
        Err(ProcessError::Ended)
    ));
}

#[tokio::test]
async fn a_process_of_another_start_or_owner_is_another() {
    let child = Idle::start();
    let mut process = Process::hold(child.pid(), None, proc()).unwrap();
    process.owner.uid += 1;
    assert!(matches!(process.recheck(), Err(ProcessError::OtherOwner)));
    let this = Process::hold(rustix::process::getpid(), None, proc()).unwrap();
    process.start = this.start;
    // Started within one clock tick of this test program they could not be told apart, and the
    // descriptors still would.
    if Process::hold(child.pid(), None, proc()).unwrap().start != this.start {
        assert!(matches!(process.recheck(), Err(ProcessError::OtherProcess)));
    }
}

#[tokio::test]
async fn its_executable_and_mounts_are_files_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    sleep_at(&one);
    sleep_at(&two);
    let child = Idle::of(&one);
    let process = Process::hold(child.pid(), None, proc()).unwrap();
    assert_eq!(process.executable().unwrap(), FileId::of_path(&one).unwrap());
    assert_ne!(process.executable().unwrap(), FileId::of_path(&two).unwrap());
    assert_eq!(
        process.mounts().unwrap(),
        FileId::of_path(Path::new("/proc/self/ns/mnt")).unwrap()
    );
}

#[test]
fn a_table_must_show_processes_as_we_count_them() {
    check_table(proc()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let refused = check_table(dir.path()).unwrap_err();
    assert!(refused.contains("is no process table"), "{refused}");
    std::fs::create_dir(dir.path().join("self")).unwrap();
    let status = dir.path().join("self/status");
    std::fs::write(&status, "NSpid:\t812\t7\n").unwrap();
    let refused = check_table(dir.path()).unwrap_err();
    assert!(refused.ends_with("give the pod hostPID"), "{refused}");
    std::fs::write(&status, "Name:\tx\n").unwrap();
    assert!(check_table(dir.path()).is_err());
}

#[tokio::test]
async fn a_number_that_is_another_process_s_by_now_is_not_taken_for_the_process_meant() {
    let mut meant = Idle::start();
    let pidfd = || rustix::process::pidfd_open(meant.pid(), PidfdFlags::empty()).unwrap();
    let (before, after) = (pidfd(), pidfd());
    let held = Process::hold(meant.pid(), Some(before), proc()).unwrap();
    held.recheck().unwrap();
    meant.kill();
    held.ended().await;
    let other = Idle::start();
    let refused = Process::hold(other.pid(), Some(after), proc());
    assert!(matches!(refused, Err(ProcessError::Ended)), "{refused:?}");
}
