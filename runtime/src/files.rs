//! Files: written so that a reader sees the old or the new whole, followed as kubelet swaps them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Mode of files that hold keys (I9).
pub const SECRET_MODE: u32 = 0o600;
/// Mode of files anyone may read.
pub const PUBLIC_MODE: u32 = 0o644;

/// Writes `contents` to `path` so that a crash at any instant leaves the old file or the new one:
/// temporary file beside it with `mode`, fsync, rename, fsync of the directory. A file left by an
/// earlier crash is replaced.
///
/// # Errors
/// The first failing step, with the path in its text; the old file is untouched.
pub fn write_atomic(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let named =
        |step: &str, e: io::Error| io::Error::new(e.kind(), format!("{step} {}: {e}", path.display()));
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let aside = temporary_name(path);
    let _ = std::fs::remove_file(&aside);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&aside)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(contents)?;
        file.sync_all()
    })();
    if let Err(e) = written {
        let _ = std::fs::remove_file(&aside);
        return Err(named("write", e));
    }
    std::fs::rename(&aside, path).map_err(|e| {
        let _ = std::fs::remove_file(&aside);
        named("rename to", e)
    })?;
    File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(|e| named("sync directory of", e))
}

/// One fixed temporary name per file: a crash leaves at most one behind, and the next write clears it.
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Reads a file of at most `most` bytes; the bytes are wiped when dropped.
///
/// # Errors
/// With the path in the text; a larger file is refused with its bound.
pub fn read_bounded(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("read {}: {e}", path.display()));
    let file = File::open(path).map_err(named)?;
    let mut contents = Zeroizing::new(Vec::with_capacity(most.min(16 * 1024)));
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut contents).map_err(named)?;
    if contents.len() > most {
        let text = format!("{} is larger than {most} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(contents)
}

/// A file that is followed by its contents. Kubelet swaps a link under projected volumes, editors
/// rename, some copy in place: contents are what all of these have in common.
#[derive(Debug)]
pub struct FollowedFile {
    path: PathBuf,
    most: usize,
    last: Option<u64>,
}

impl FollowedFile {
    /// Follows `path`, reading at most `most` bytes of it.
    #[must_use]
    pub fn new(path: PathBuf, most: usize) -> Self {
        Self {
            path,
            most,
            last: None,
        }
    }

    /// The path followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The contents if they differ from those of the last call that returned some.
    ///
    /// # Errors
    /// As [`read_bounded`]; what was last seen stays remembered.
    pub fn poll(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let contents = read_bounded(&self.path, self.most)?;
        let mut hasher = DefaultHasher::new();
        contents.hash(&mut hasher);
        let hash = hasher.finish();
        if self.last == Some(hash) {
            return Ok(None);
        }
        self.last = Some(hash);
        Ok(Some(contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_has_its_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::fs::write(dir.path().join(".key.pem.new"), "left by a crash").unwrap();
        write_atomic(&path, b"one", SECRET_MODE).unwrap();
        write_atomic(&path, b"two", SECRET_MODE).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_followed_file_tells_each_change_once_even_through_a_swapped_link() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a", "first"), ("b", "second")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let link = dir.path().join("..data");
        std::os::unix::fs::symlink("a", &link).unwrap();
        let mut file = FollowedFile::new(link.clone(), 100);
        assert_eq!(file.poll().unwrap().unwrap().as_slice(), b"first");
        assert!(file.poll().unwrap().is_none());
        std::os::unix::fs::symlink("b", dir.path().join("next")).unwrap();
        std::fs::rename(dir.path().join("next"), &link).unwrap();
        assert_eq!(file.poll().unwrap().unwrap().as_slice(), b"second");
        std::fs::remove_file(&link).unwrap();
        assert!(file.poll().is_err());
    }

    #[test]
    fn a_file_past_its_bound_is_refused_naming_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        std::fs::write(&path, [0u8; 11]).unwrap();
        assert!(
            read_bounded(&path, 10)
                .unwrap_err()
                .to_string()
                .ends_with("is larger than 10 bytes")
        );
    }
}
