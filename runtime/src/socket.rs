//! Unix sockets: bound under a temporary name and renamed into place, owned by one live process,
//! peers known by the kernel's word.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Longest path a unix socket can have on Linux, in bytes without the final NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// A bound socket. The lock beside it tells a live owner from a leftover. The socket goes when this is
/// dropped; the empty lock file stays.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl BoundSocket {
    /// Binds `path` with `mode`. Clients that dial in the meantime see the old socket or the new one,
    /// never neither.
    ///
    /// # Errors
    /// When the path is too long, another live process owns it, something that is no socket occupies
    /// it, or the system refuses. The text says what to do.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let shown = path.display();
        if path.as_os_str().len() + SUFFIX.len() > MAX_SOCKET_PATH {
            let text = format!(
                "socket path {shown} is longer than {} bytes",
                MAX_SOCKET_PATH - SUFFIX.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let lock = lock_beside(path)?;
        if let Ok(meta) = std::fs::symlink_metadata(path)
            && !std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type())
        {
            let text = format!("{shown} exists and is no socket; move it away or choose another path");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        let aside = with_suffix(path, SUFFIX);
        let _ = std::fs::remove_file(&aside);
        let named = |e: io::Error| io::Error::new(e.kind(), format!("bind socket {shown}: {e}"));
        let listener = UnixListener::bind(&aside).map_err(named)?;
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(mode)).map_err(named)?;
        std::fs::rename(&aside, path).map_err(named)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system's own; most are transient (out of descriptors).
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Where it is bound.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // The lock file stays: removed, two processes could hold locks on two files of one name.
        let _ = std::fs::remove_file(&self.path);
    }
}

const SUFFIX: &str = ".new";
const LOCK_SUFFIX: &str = ".lock";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Takes the lock file of a socket. A dead owner's lock is free by the kernel's doing.
fn lock_beside(path: &Path) -> io::Result<File> {
    let lock_path = with_suffix(path, LOCK_SUFFIX);
    let named = |e: io::Error| io::Error::new(e.kind(), format!("lock {}: {e}", lock_path.display()));
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(named)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "another process serves {}; stop it or choose another path",
                path.display()
            ),
        )),
        Err(std::fs::TryLockError::Error(e)) => Err(named(e)),
    }
}

/// Creates `directory` if missing and makes it private to this user (0700).
///
/// # Errors
/// When it cannot be created or belongs to somebody else.
pub fn private_directory(directory: &Path) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("directory {}: {e}", directory.display()));
    std::fs::create_dir_all(directory).map_err(named)?;
    let mode = std::fs::metadata(directory).map_err(named)?.permissions().mode() & 0o777;
    if mode == 0o700 {
        return Ok(());
    }
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).map_err(|e| {
        let text = format!(
            "directory {} has mode {mode:o} and cannot be made private (0700): {e}; mount one level above it, so \
             that it is created here",
            directory.display()
        );
        io::Error::new(e.kind(), text)
    })
}

/// The user id this process runs as.
#[must_use]
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leftover_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = BoundSocket::bind(&path, 0o660).unwrap();
        let refused = BoundSocket::bind(&path, 0o660).unwrap_err();
        assert!(
            refused.to_string().starts_with("another process serves "),
            "{refused}"
        );
        UnixStream::connect(&path).await.unwrap();
        drop(live);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_occupied_by_a_file_is_left_alone_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        std::fs::write(&path, "precious").unwrap();
        let refused = BoundSocket::bind(&path, 0o660).unwrap_err().to_string();
        assert!(
            refused.ends_with("exists and is no socket; move it away or choose another path"),
            "{refused}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
