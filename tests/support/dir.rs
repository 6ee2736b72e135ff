//! Temporary directories with short paths: a unix socket's path has room for 107 bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A private directory that is gone when dropped.
#[derive(Debug)]
pub struct Dir(tempfile::TempDir);

impl Dir {
    /// Makes one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default would hide that it writes")]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sg-")
            .tempdir_in("/tmp")
            .expect("temporary directory");
        Self(dir)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// A directory in it, made if missing.
    #[must_use]
    pub fn sub(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).expect("directory");
        path
    }

    /// Writes a file in it.
    pub fn write(&self, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, contents).expect("file");
        path
    }

    /// Writes a file that only we may read, replacing one that is there as kubelet would: by rename.
    pub fn write_secret(&self, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        let mut aside = path.clone().into_os_string();
        aside.push(".aside");
        fs::write(&aside, contents).expect("file");
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).expect("mode");
        fs::rename(&aside, &path).expect("rename");
        path
    }
}

/// Copies a program to `to`. Another program (`cp`) makes the copy: a file that this one has open for writing could be
/// inherited by a child that another test starts at that moment, and executing it would be refused (`ETXTBSY`).
///
/// # Panics
/// When it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp")
        .arg(from)
        .arg(to)
        .output()
        .expect("cp");
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{why}");
}

/// Permission bits of a file or directory.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn mode(path: &Path) -> u32 {
    let meta = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    meta.permissions().mode() & 0o7777
}

/// Every file below `root`, at any depth; what vanishes meanwhile is left out.
#[must_use]
pub fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
