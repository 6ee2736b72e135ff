//! Files that change together: whoever stops at whatever instant, their names lead to one set of contents and never to
//! parts of two.
//!
//! As kubelet does it: the contents lie in a directory of their own, `..data` is a link to that directory, and each
//! name is a link through it. A new set is a new directory, put in place by renaming one link.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use signet_runtime::files::{SECRET_MODE, read_bounded, write_atomic};

/// The link to the directory in use.
const DATA: &str = "..data";
/// The link while it is made.
const ASIDE: &str = "..data.new";
/// What directories of contents are called, with a number. None is used twice: who still reads in a former one finds
/// it gone, and not another's contents.
const SET: &str = "..set-";
/// Bound of a file of an earlier version that is taken over.
const MAX_FOUND_BYTES: usize = 4 * 1024 * 1024;

/// Puts these files into the directory, all at once.
///
/// # Errors
/// The first step that failed, with its path; the files there are as they were.
pub fn publish(directory: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let created = DirBuilder::new().recursive(true).create(directory);
    created.map_err(|e| named("create directory", directory, &e))?;
    let done = write(directory, files);
    // Whichever way it went: a set that did not come in use must not fill the disk, attempt by attempt.
    clear(directory);
    done
}

fn write(directory: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    adopt(directory, files)?;
    swap(directory, files)?;
    files.iter().try_for_each(|(name, _)| link(directory, name))
}

/// Files that lie there themselves, as an earlier version wrote them, become links with the same contents first.
fn adopt(directory: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let is_file = |name: &str| fs::symlink_metadata(directory.join(name)).is_ok_and(|found| found.is_file());
    if !files.iter().any(|(name, _)| is_file(name)) {
        return Ok(());
    }
    let there = files.iter().filter(|(name, _)| directory.join(name).exists());
    let found: Vec<_> = there
        .map(|(name, _)| Ok((*name, read_bounded(&directory.join(name), MAX_FOUND_BYTES)?)))
        .collect::<io::Result<_>>()?;
    let found: Vec<(&str, &[u8])> = found
        .iter()
        .map(|(name, held)| (*name, held.as_slice()))
        .collect();
    swap(directory, &found)?;
    found.iter().try_for_each(|(name, _)| link(directory, name))
}

/// Writes the next set and puts it in use.
fn swap(directory: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let fresh = make(directory)?;
    for (name, contents) in files {
        write_atomic(&directory.join(&fresh).join(name), contents, SECRET_MODE)?;
    }
    point(directory, (DATA, ASIDE), Path::new(&fresh))
}

/// Makes the directory of the next set, past names that are taken, and answers its name.
fn make(directory: &Path) -> io::Result<String> {
    let used = fs::read_link(directory.join(DATA)).unwrap_or_default();
    let number = used
        .to_str()
        .and_then(|name| name.strip_prefix(SET)?.parse().ok());
    let mut number: u64 = number.unwrap_or_default();
    loop {
        number = number.wrapping_add(1);
        let fresh = format!("{SET}{number}");
        let set = directory.join(&fresh);
        match DirBuilder::new().mode(0o700).create(&set) {
            Ok(()) => return Ok(fresh),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(named("create directory", &set, &error)),
        }
    }
}

/// Removes every set but the one in use. What cannot be removed is told and left: it is in nobody's way.
fn clear(directory: &Path) {
    let left = |error: io::Error| tracing::warn!(%error, "files of a former SVID stay where they are");
    let failed = |step, path: &Path, error: &io::Error| left(named(step, path, error));
    let data = directory.join(DATA);
    let used = match fs::read_link(&data) {
        Ok(used) => used,
        // None is in use yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => PathBuf::new(),
        Err(error) => return failed("read link", &data, &error),
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return failed("list", directory, &error),
    };
    for name in entries.filter_map(|entry| Some(entry.ok()?.file_name())) {
        let is_set = name.to_str().is_some_and(|name| name.starts_with(SET));
        if is_set && Path::new(&name) != used {
            let set = directory.join(name);
            if let Err(error) = fs::remove_dir_all(&set) {
                failed("remove", &set, &error);
            }
        }
    }
}

/// Makes a name lead through [`DATA`], unless it does.
fn link(directory: &Path, name: &str) -> io::Result<()> {
    let target = Path::new(DATA).join(name);
    if fs::read_link(directory.join(name)).is_ok_and(|found| found == target) {
        return Ok(());
    }
    point(directory, (name, &format!(".{name}.new")), &target)
}

/// Makes `name` a link to `target`, in one step, and for good.
fn point(directory: &Path, (name, aside): (&str, &str), target: &Path) -> io::Result<()> {
    let (name, aside) = (directory.join(name), directory.join(aside));
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named("remove", &aside, &error)),
        _ => {}
    }
    symlink(target, &aside).map_err(|e| named("link", &aside, &e))?;
    fs::rename(&aside, &name).map_err(|e| named("rename to", &name, &e))?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|e| named("sync directory", directory, &e))
}

fn named(step: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{step} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const NAMES: [&str; 2] = ["key", "chain"];

    fn put(directory: &Path, version: &str) -> io::Result<()> {
        publish(directory, &NAMES.map(|name| (name, version.as_bytes())))
    }

    fn read(directory: &Path) -> Vec<String> {
        let read = |name| fs::read_to_string(directory.join(name)).unwrap();
        NAMES.map(read).to_vec()
    }

    fn entries(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn each_set_takes_the_place_of_the_last_and_leaves_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("made/as/needed");
        for version in ["one", "two", "three"] {
            put(&at, version).unwrap();
            assert_eq!(read(&at), [version; 2]);
        }
        assert_eq!(entries(&at), ["..data", "..set-3", "chain", "key"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&at.join("..data")), mode(&at.join("key"))), (0o700, 0o600));
    }

    #[test]
    fn a_writer_that_stops_before_the_swap_leaves_the_former_set_and_the_next_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "one").unwrap();
        // Half of a set, as a crash leaves it.
        fs::create_dir(dir.path().join("..set-2")).unwrap();
        fs::write(dir.path().join("..set-2/key"), "two").unwrap();
        assert_eq!(read(dir.path()), ["one"; 2]);
        // A whole set whose swap fails.
        fs::create_dir(dir.path().join(ASIDE)).unwrap();
        swap(dir.path(), &[("chain", b"three")]).unwrap_err();
        assert_eq!(fs::read(dir.path().join("..set-3/chain")).unwrap(), b"three");
        put(dir.path(), "three").unwrap_err();
        assert_eq!(read(dir.path()), ["one"; 2]);
        let held = entries(dir.path());
        assert_eq!(
            held,
            ["..data", ASIDE, "..set-1", "chain", "key"],
            "no attempt leaves its set"
        );
        fs::remove_dir(dir.path().join(ASIDE)).unwrap();
        put(dir.path(), "four").unwrap();
        assert_eq!(read(dir.path()), ["four"; 2]);
        assert_eq!(entries(dir.path()), ["..data", "..set-2", "chain", "key"]);
    }

    #[test]
    fn what_cannot_be_cleared_is_passed_over_and_the_rest_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        // No directories, so that they stay: of the first set, and of a later one.
        for name in ["..set-1", "..set-3"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        for (version, set) in [("one", "..set-2"), ("two", "..set-4"), ("three", "..set-5")] {
            fs::create_dir_all(dir.path().join("..set-9")).unwrap();
            put(dir.path(), version).unwrap();
            assert_eq!(read(dir.path()), [version; 2]);
            assert_eq!(entries(dir.path()), {
                let mut left = ["..data", "..set-1", "..set-3", set, "chain", "key"];
                left.sort_unstable();
                left
            });
        }
    }

    #[test]
    fn one_who_reads_through_the_link_finds_one_set_at_every_instant() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "0").unwrap();
        let (done, mut whole) = (AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for version in 1..100 {
                    put(dir.path(), &version.to_string()).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) || whole == 0 {
                let used = dir.path().join(fs::read_link(dir.path().join(DATA)).unwrap());
                let both = NAMES.map(|name| fs::read_to_string(used.join(name)));
                // A set may be gone by now; what is there belongs together.
                if let [Ok(key), Ok(chain)] = both {
                    assert_eq!(key, chain);
                    whole += 1;
                }
            }
        });
    }

    #[test]
    fn files_of_an_earlier_version_are_taken_over_together() {
        let dir = tempfile::tempdir().unwrap();
        for name in NAMES {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        fs::create_dir(dir.path().join("..set-2")).unwrap();
        fs::write(dir.path().join("..set-2/x"), "").unwrap();
        adopt(dir.path(), &NAMES.map(|name| (name, "new".as_bytes()))).unwrap();
        assert_eq!(read(dir.path()), ["old"; 2]);
        assert!(fs::symlink_metadata(dir.path().join("key")).unwrap().is_symlink());
        put(dir.path(), "new").unwrap();
        assert_eq!(read(dir.path()), ["new"; 2]);
        assert_eq!(entries(dir.path()).len(), 4);
    }
}
