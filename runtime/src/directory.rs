//! A directory that is followed by the contents of its files, like [`crate::files::FollowedFile`]: kubelet swaps
//! a link, editors rename, some write in place. A change counts once two looks in a row agree, so that a file
//! is not taken half-written.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

use crate::files::read_bounded;

mod watch;

pub use watch::{DirectoryWatch, News};

/// Most looks that a directory which does not come to rest is waited for. Then what is there is taken: files
/// that are replaced all the time are whole at every look if they are renamed into place.
const MAX_UNRESTING: u32 = 10;

/// What is followed, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Endings of the files that count, without a dot. Hidden files and directories below never do.
    pub endings: &'static [&'static str],
    /// Most files.
    pub files: usize,
    /// Largest file, in bytes.
    pub file_bytes: usize,
    /// Most bytes in all.
    pub bytes: usize,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// Its name in the directory.
    pub name: String,
    /// Its contents, or why they cannot be read.
    pub contents: Result<Vec<u8>, String>,
}

/// What a look showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Same,
    /// Something new, which the next look has to confirm: look again soon.
    Unrested,
    /// All files, by name.
    New(Vec<Found>),
}

/// Why a look showed nothing. What was told last stays remembered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookError {
    /// The directory cannot be read, or is beyond its bounds.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// No file in it counts. That is what a volume looks like that is not mounted, so it does not say that nothing
    /// is wanted; a file without contents does.
    #[error(
        "directory {} has no file that ends in {endings}: it may not be mounted. To say that there is nothing, leave \
         a file in it that is empty", path.display()
    )]
    Empty {
        /// The directory.
        path: PathBuf,
        /// Which endings count.
        endings: String,
    },
}

impl LookError {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "directory",
            Self::Empty { .. } => "directory_empty",
        }
    }
}

/// A directory that is followed.
#[derive(Debug)]
pub struct FollowedDirectory {
    path: PathBuf,
    bounds: Bounds,
    taken: Option<u64>,
    unrested: Option<u64>,
    looks: u32,
}

impl FollowedDirectory {
    /// Follows `path`.
    #[must_use]
    pub fn new(path: PathBuf, bounds: Bounds) -> Self {
        Self {
            path,
            bounds,
            taken: None,
            unrested: None,
            looks: 0,
        }
    }

    /// The path followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks once. Reads every file, so not for a thread that others wait for.
    ///
    /// # Errors
    /// A [`LookError`]; what was last told stays remembered. A single file that cannot be read is told in its place.
    pub fn look(&mut self) -> Result<Look, LookError> {
        let found = self.read()?;
        if found.is_empty() {
            return Err(LookError::Empty {
                path: self.path.clone(),
                endings: self.bounds.endings.join(", "),
            });
        }
        let mut hasher = DefaultHasher::new();
        found.hash(&mut hasher);
        let hash = hasher.finish();
        if self.taken == Some(hash) {
            (self.unrested, self.looks) = (None, 0);
            return Ok(Look::Same);
        }
        let rested = self.unrested == Some(hash);
        self.looks += 1;
        if !rested && self.looks < MAX_UNRESTING {
            self.unrested = Some(hash);
            return Ok(Look::Unrested);
        }
        self.taken = Some(hash);
        (self.unrested, self.looks) = (None, 0);
        Ok(Look::New(found))
    }

    fn read(&self) -> io::Result<Vec<Found>> {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("directory {}: {e}", self.path.display()));
        let too_large = |what: String| {
            let text = format!("directory {} has more than {what}", self.path.display());
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        };
        let mut names = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path).map_err(named)? {
            let entry = entry.map_err(named)?;
            let Some(name) = self.counts(&entry) else { continue };
            names.insert(name, entry.path());
            if names.len() > self.bounds.files {
                return Err(too_large(format!("{} files", self.bounds.files)));
            }
        }
        let mut left = self.bounds.bytes;
        let mut found = Vec::with_capacity(names.len());
        for (name, path) in names {
            let contents = read_regular(&path, self.bounds.file_bytes.min(left));
            let size = contents.as_ref().map_or(0, Vec::len);
            let beyond = contents
                .as_ref()
                .is_err_and(|e| e.kind() == io::ErrorKind::FileTooLarge && left < self.bounds.file_bytes);
            if beyond {
                return Err(too_large(format!("{} bytes in all", self.bounds.bytes)));
            }
            left -= size;
            let contents = contents.map_err(|e| e.to_string());
            found.push(Found { name, contents });
        }
        Ok(found)
    }

    /// The name, if the file counts. A directory below does not, whatever it is called.
    fn counts(&self, entry: &std::fs::DirEntry) -> Option<String> {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ending = Path::new(&name).extension()?.to_str()?;
        let counts = !name.starts_with('.') && self.bounds.endings.contains(&ending);
        let directory = || std::fs::metadata(entry.path()).is_ok_and(|found| found.is_dir());
        (counts && !directory()).then_some(name)
    }
}

/// Reads a file, and nothing that would make the reader wait.
fn read_regular(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let found = std::fs::metadata(path)
        .map_err(|e| io::Error::new(e.kind(), format!("read {}: {e}", path.display())))?;
    if !found.is_file() {
        let text = format!("{} is no regular file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(read_bounded(path, most)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        endings: &["yaml"],
        files: 3,
        file_bytes: 10,
        bytes: 20,
    };

    fn followed(files: &[(&str, &str)]) -> (tempfile::TempDir, FollowedDirectory) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let followed = FollowedDirectory::new(dir.path().to_owned(), BOUNDS);
        (dir, followed)
    }

    /// The files once they are taken, each as `name=contents`.
    fn settled(followed: &mut FollowedDirectory) -> Vec<String> {
        assert_eq!(followed.look().unwrap(), Look::Unrested);
        let Look::New(found) = followed.look().unwrap() else {
            panic!("two looks agree")
        };
        let text = |found: Found| match found.contents {
            Ok(bytes) => format!("{}={}", found.name, String::from_utf8(bytes).unwrap()),
            Err(_) => format!("{} unreadable", found.name),
        };
        found.into_iter().map(text).collect()
    }

    #[test]
    fn files_with_the_endings_count_and_nothing_else() {
        let (dir, mut followed) =
            followed(&[("b.yaml", "b"), ("a.yaml", "a"), (".c.yaml", ""), ("d.md", "")]);
        std::fs::create_dir(dir.path().join("e.yaml")).unwrap();
        assert_eq!(settled(&mut followed), ["a.yaml=a", "b.yaml=b"]);
        assert_eq!(followed.look().unwrap(), Look::Same);
        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(settled(&mut followed), ["b.yaml=b"]);
    }

    #[test]
    fn a_file_that_grows_is_not_taken_before_it_rests() {
        let (dir, mut followed) = followed(&[("a.yaml", "first")]);
        settled(&mut followed);
        for half in ["s", "se", "sec"] {
            std::fs::write(dir.path().join("a.yaml"), half).unwrap();
            assert_eq!(followed.look().unwrap(), Look::Unrested);
        }
        std::fs::write(dir.path().join("a.yaml"), "second").unwrap();
        assert_eq!(settled(&mut followed), ["a.yaml=second"]);
    }

    #[test]
    fn a_directory_that_never_rests_is_taken_in_the_end() {
        let (dir, mut followed) = followed(&[("a.yaml", "")]);
        let mut looks = 0;
        loop {
            std::fs::write(dir.path().join("a.yaml"), looks.to_string()).unwrap();
            looks += 1;
            if let Look::New(_) = followed.look().unwrap() {
                break;
            }
        }
        assert_eq!(looks, MAX_UNRESTING);
    }

    #[test]
    fn a_directory_without_files_says_nothing_and_one_with_an_empty_file_says_that_there_is_nothing() {
        let (dir, mut followed) = followed(&[("a.yaml", "a"), ("b.yaml", "b"), ("d.md", "")]);
        settled(&mut followed);
        for name in ["a.yaml", "b.yaml"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        for _ in 0..=MAX_UNRESTING {
            let error = followed.look().unwrap_err();
            assert_eq!(error.as_str(), "directory_empty");
            assert!(
                error.to_string().contains("ends in yaml: it may not be mounted"),
                "{error}"
            );
        }
        std::fs::write(dir.path().join("none.yaml"), "").unwrap();
        assert_eq!(settled(&mut followed), ["none.yaml="]);
        // A directory that was never filled says nothing either.
        let (_dir, mut unfilled) = self::followed(&[]);
        assert!(matches!(unfilled.look(), Err(LookError::Empty { .. })));
    }

    #[test]
    fn one_file_that_cannot_be_read_is_told_beside_the_others() {
        let (dir, mut followed) = followed(&[("a.yaml", "a"), ("b.yaml", "larger than ten")]);
        std::os::unix::fs::symlink("nowhere", dir.path().join("c.yaml")).unwrap();
        assert_eq!(
            settled(&mut followed),
            ["a.yaml=a", "b.yaml unreadable", "c.yaml unreadable"]
        );
    }

    #[test]
    fn a_directory_that_is_gone_or_too_large_is_an_error_and_nothing_is_forgotten() {
        let (dir, mut followed) = followed(&[("a.yaml", "a")]);
        settled(&mut followed);
        for name in ["b", "c", "d"] {
            std::fs::write(dir.path().join(name).with_extension("yaml"), "").unwrap();
        }
        let found = followed.look().unwrap_err().to_string();
        assert!(found.ends_with("has more than 3 files"), "{found}");
        std::fs::remove_file(dir.path().join("d.yaml")).unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name).with_extension("yaml"), "1234567").unwrap();
        }
        let found = followed.look().unwrap_err().to_string();
        assert!(found.ends_with("has more than 20 bytes in all"), "{found}");
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(followed.look().is_err());
        std::fs::create_dir(dir.path()).unwrap();
        std::fs::write(dir.path().join("a.yaml"), "a").unwrap();
        assert_eq!(followed.look().unwrap(), Look::Same);
    }
}
