//! State in a directory: one file, 0600, replaced atomically under a lock (I9).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_certs::TrustDomain;
use signet_runtime::files::{FollowedFile, SECRET_MODE, read_bounded, write_atomic};
use signet_runtime::socket::private_directory;
use tokio::sync::mpsc;

use super::{Seen, StoreError};
use crate::federation::stored::{MAX_STORED_BYTES, is_place};
use crate::state::{CaState, MAX_STATE_BYTES, StateError};

/// How often the file is looked at for changes by others.
const POLL: Duration = Duration::from_secs(2);

/// A directory of this machine.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
    lock: PathBuf,
}

impl FileStore {
    /// Uses `directory`, which is made private (0700) and created if missing.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(directory: &Path) -> io::Result<Self> {
        private_directory(directory)?;
        Ok(Self {
            path: directory.join("state.json"),
            lock: directory.join("state.lock"),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`super::Store::load`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub fn load(&self, domain: &TrustDomain) -> Result<Option<CaState>, StoreError> {
        match read_bounded(&self.path, MAX_STATE_BYTES) {
            Ok(json) => CaState::parse(&json, domain)
                .map(Some)
                .map_err(|fault| self.state(fault)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// As [`super::Store::create`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub fn create(&self, state: &CaState) -> Result<CaState, StoreError> {
        let _held = self.hold()?;
        if let Some(winner) = self.load(state.bundle().trust_domain())? {
            return Ok(winner);
        }
        write_atomic(&self.path, &state.expose_json(), SECRET_MODE)?;
        Ok(state.clone())
    }

    /// As [`super::Store::update`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub fn update(&self, from: &CaState, to: &CaState) -> Result<(), StoreError> {
        let _held = self.hold()?;
        match self.load(from.bundle().trust_domain())? {
            Some(found) if found.same(from) => Ok(write_atomic(&self.path, &to.expose_json(), SECRET_MODE)?),
            _ => Err(StoreError::Conflict {
                place: self.path.display().to_string(),
            }),
        }
    }

    /// As [`super::Store::load_foreign`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub fn load_foreign(&self, place: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match read_bounded(&self.path.with_file_name(place), MAX_STORED_BYTES) {
            Ok(json) => Ok(Some(json.to_vec())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// As [`super::Store::store_foreign`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub fn store_foreign(&self, place: &str, json: &[u8]) -> Result<(), StoreError> {
        Ok(write_atomic(&self.path.with_file_name(place), json, SECRET_MODE)?)
    }

    /// As [`super::Store::keep_foreign`].
    ///
    /// # Errors
    /// A [`StoreError`].
    pub fn keep_foreign(&self, kept: &[String]) -> Result<(), StoreError> {
        let Some(directory) = self.path.parent() else {
            return Ok(());
        };
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(name) = name.to_str()
                && is_place(name)
                && !kept.iter().any(|kept| kept == name)
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// As [`super::Store::follow`].
    pub async fn follow(&self, domain: TrustDomain, changes: mpsc::Sender<Seen>) {
        let mut file = FollowedFile::new(self.path.clone(), MAX_STATE_BYTES);
        let mut last_fault = None;
        loop {
            let seen = match file.poll() {
                Ok(None) => None,
                Ok(Some(json)) => Some(match CaState::parse(&json, &domain) {
                    Ok(state) => Seen::State(state),
                    Err(fault) => Seen::Fault(self.state(fault)),
                }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Some(Seen::Gone),
                Err(e) => Some(Seen::Fault(e.into())),
            };
            if let Some(seen) = seen {
                // A fault that lasts is told once.
                let fault = match &seen {
                    Seen::State(_) => None,
                    Seen::Gone => Some("gone".to_owned()),
                    Seen::Fault(e) => Some(e.to_string()),
                };
                let told = fault.is_some() && fault == last_fault;
                last_fault = fault;
                if !told && changes.send(seen).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Holds the lock while a read decides a write. The lock ends with its holder, whatever ends it.
    fn hold(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(SECRET_MODE)
            .open(&self.lock)?;
        file.lock()?;
        Ok(file)
    }

    fn state(&self, fault: StateError) -> StoreError {
        StoreError::State {
            place: self.path.display().to_string(),
            fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_certs::{Authority, SigningKey, UnixTime};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    fn domain() -> TrustDomain {
        "cluster.local".parse().unwrap()
    }

    fn fresh(sequence: u64) -> CaState {
        let key = Arc::new(SigningKey::generate().unwrap());
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let root = Authority::self_signed_root(&domain(), key, Duration::from_secs(86_400), now).unwrap();
        CaState::with_root(&domain(), root, sequence).unwrap()
    }

    #[test]
    fn the_first_writer_wins_and_the_second_adopts() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(&dir.path().join("state")).unwrap();
        assert!(store.load(&domain()).unwrap().is_none());
        let (first, second) = (fresh(1), fresh(1));
        assert!(store.create(&first).unwrap().same(&first));
        assert!(store.create(&second).unwrap().same(&first));
        let mode = std::fs::metadata(store.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn foreign_bundles_lie_beside_the_state_until_their_domain_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        store.create(&fresh(1)).unwrap();
        assert_eq!(store.load_foreign("federation.a.test.json").unwrap(), None);
        store.store_foreign("federation.a.test.json", b"1").unwrap();
        store.store_foreign("federation.b.test.json", b"2").unwrap();
        store
            .keep_foreign(&["federation.b.test.json".to_owned()])
            .unwrap();
        assert_eq!(store.load_foreign("federation.a.test.json").unwrap(), None);
        let kept = store.load_foreign("federation.b.test.json").unwrap();
        assert_eq!(kept.as_deref(), Some(b"2".as_slice()));
        assert!(
            store.load(&domain()).unwrap().is_some(),
            "the state is left alone"
        );
    }

    #[test]
    fn a_write_over_something_else_is_a_conflict() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let (one, two, three) = (fresh(1), fresh(2), fresh(3));
        store.create(&one).unwrap();
        store.update(&one, &two).unwrap();
        let refused = store.update(&one, &three).unwrap_err();
        assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
        assert!(store.load(&domain()).unwrap().unwrap().same(&two));
    }
}
