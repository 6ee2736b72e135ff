use std::path::PathBuf;

use tokio::net::UnixListener;

use super::*;
use crate::attest::process::tests::Idle;

/// A peer as if this process had connected and the kernel had named `pid`.
pub(crate) fn held(child: &Idle, proc: &Path) -> Peer {
    let process = Process::hold(child.pid(), None, proc).unwrap();
    Peer {
        inner: Arc::new(Inner {
            owner: process.owner(),
            pid: Some(child.pid().as_raw_nonzero().get()),
            since: Instant::now(),
            process: Some(process),
        }),
        pod: None,
    }
}

/// A process table of one process, whose cgroups are what the test says they are.
pub(crate) struct Table {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) child: Idle,
}

impl Table {
    pub(crate) fn of(cgroup: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Idle::start();
        let pid = child.pid().as_raw_nonzero().to_string();
        let place = dir.path().join(&pid);
        std::fs::create_dir(&place).unwrap();
        for file in ["stat", "status"] {
            std::os::unix::fs::symlink(PathBuf::from("/proc").join(&pid).join(file), place.join(file))
                .unwrap();
        }
        std::fs::write(place.join("cgroup"), cgroup).unwrap();
        Self { dir, child }
    }

    pub(crate) fn peer(&self) -> Peer {
        held(&self.child, self.dir.path())
    }

    pub(crate) fn move_to(&self, cgroup: &str) {
        let pid = self.child.pid().as_raw_nonzero().to_string();
        std::fs::write(self.dir.path().join(pid).join("cgroup"), cgroup).unwrap();
    }
}

async fn connection() -> (UnixStream, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let client = UnixStream::connect(dir.path().join("s")).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}

#[tokio::test]
async fn the_process_that_connected_is_held() {
    let (accepted, _client) = connection().await;
    let peer = Peer::of(&accepted, Path::new("/proc")).unwrap();
    assert_eq!(peer.pid(), Some(rustix::process::getpid().as_raw_nonzero().get()));
    assert_eq!(peer.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(peer.gid(), rustix::process::getegid().as_raw());
    assert!(peer.is_alive());
    assert_eq!(
        peer.cgroup().unwrap(),
        std::fs::read("/proc/self/cgroup").unwrap()
    );
}

#[tokio::test]
async fn a_process_of_another_owner_than_the_credentials_is_refused() {
    // The number now belongs to a process of another user: as this table has it.
    let (accepted, _client) = connection().await;
    let dir = tempfile::tempdir().unwrap();
    let place = dir
        .path()
        .join(rustix::process::getpid().as_raw_nonzero().to_string());
    std::fs::create_dir(&place).unwrap();
    std::fs::copy("/proc/self/stat", place.join("stat")).unwrap();
    std::fs::write(place.join("status"), "Uid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\n").unwrap();
    let refused = Peer::of(&accepted, dir.path()).unwrap_err();
    assert_eq!(refused.outcome(), "peer_changed");
}

#[tokio::test]
async fn credentials_alone_hold_no_process() {
    let (accepted, _client) = connection().await;
    let peer = Peer::by_credentials(&accepted).unwrap();
    assert!(peer.is_alive() && peer.cgroup().is_err());
    let ended = tokio::time::timeout(std::time::Duration::from_millis(20), peer.ended()).await;
    assert!(ended.is_err());
}
