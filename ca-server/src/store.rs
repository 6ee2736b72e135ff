//! Where the CA's state lives. Both kinds create or adopt, compare before they write, and tell of
//! changes made by others.

pub mod file;
pub mod secret;

use signet_certs::{TrustBundle, TrustDomain, UnixTime};
use tokio::sync::mpsc;

use crate::federation::stored;
use crate::state::{CaState, StateError};

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The document is not usable.
    #[error("{place}: {fault}")]
    State {
        /// The file or Secret.
        place: String,
        /// What is wrong with it.
        fault: StateError,
    },
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The API server refused or is away.
    #[error("secret {place}: {fault}")]
    Kube {
        /// The Secret.
        place: String,
        /// What it said.
        fault: Box<kube::Error>,
    },
    /// Foreign bundles would take room that our own state needs.
    #[error(
        "{place}: foreign bundles would have {bytes} bytes, at most {most} are kept; end a relationship, or ask its operator to publish fewer keys"
    )]
    ForeignTooLarge {
        /// The Secret.
        place: String,
        /// What they would have.
        bytes: usize,
        /// What they may have.
        most: usize,
    },
    /// Somebody else wrote in between. Read again and decide again.
    #[error("{place} was changed by another process in the meantime")]
    Conflict {
        /// The file or Secret.
        place: String,
    },
}

impl StoreError {
    /// Whether it may pass by itself: the API server is away, slow, overloaded or failing inside.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Kube { fault, .. } => match fault.as_ref() {
                kube::Error::Api(status) => status.code == 429 || status.code >= 500,
                _ => true,
            },
            Self::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
            Self::State { .. } | Self::ForeignTooLarge { .. } | Self::Conflict { .. } => false,
        }
    }
}

/// A change seen in the store.
#[derive(Debug)]
pub enum Seen {
    /// The state as it now is.
    State(CaState),
    /// It is gone.
    Gone,
    /// It cannot be used; what was last good stays in force (I4).
    Fault(StoreError),
}

/// The store the configuration chose.
#[derive(Clone, Debug)]
pub enum Store {
    /// A directory.
    File(file::FileStore),
    /// A Secret.
    Secret(Box<secret::SecretStore>),
}

impl Store {
    /// The state, or nothing where there is none yet.
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn load(&self, domain: &TrustDomain) -> Result<Option<CaState>, StoreError> {
        match self {
            Self::File(store) => store.load(domain),
            Self::Secret(store) => store.load(domain).await,
        }
    }

    /// Writes the first state, unless another process was faster: then its state is returned, to be
    /// adopted.
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn create(&self, state: &CaState) -> Result<CaState, StoreError> {
        match self {
            Self::File(store) => store.create(state),
            Self::Secret(store) => store.create(state).await,
        }
    }

    /// Replaces `from` by `to`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the store no longer holds `from`.
    pub async fn update(&self, from: &CaState, to: &CaState) -> Result<(), StoreError> {
        match self {
            Self::File(store) => store.update(from, to),
            Self::Secret(store) => store.update(from, to).await,
        }
    }

    /// The foreign bundle of `foreign` stored last, as its document.
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn load_foreign(&self, foreign: &TrustDomain) -> Result<Option<Vec<u8>>, StoreError> {
        let place = stored::place_of(foreign);
        match self {
            Self::File(store) => store.load_foreign(&place),
            Self::Secret(store) => store.load_foreign(&place).await,
        }
    }

    /// Stores a foreign bundle in place of its domain's. Says no where a newer one lies there: another
    /// replica was faster (I5).
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn store_foreign(&self, foreign: &TrustBundle, now: UnixTime) -> Result<bool, StoreError> {
        let domain = foreign.trust_domain();
        let (place, json) = (stored::place_of(domain), stored::write(foreign, now));
        let superseded = |old: &[u8]| stored::is_newer(old, domain, foreign.sequence());
        match self {
            Self::File(store) => {
                if store.load_foreign(&place)?.is_some_and(|old| superseded(&old)) {
                    return Ok(false);
                }
                store.store_foreign(&place, &json).map(|()| true)
            }
            Self::Secret(store) => {
                store
                    .change_foreign(|data| {
                        !data.get(&place).is_some_and(superseded) && data.set(&place, &json)
                    })
                    .await
            }
        }
    }

    /// Forgets every foreign bundle but those of `kept`.
    ///
    /// # Errors
    /// A [`StoreError`].
    pub async fn keep_foreign(&self, kept: &[TrustDomain]) -> Result<(), StoreError> {
        let kept: Vec<String> = kept.iter().map(stored::place_of).collect();
        match self {
            Self::File(store) => store.keep_foreign(&kept),
            Self::Secret(store) => store.change_foreign(|data| data.keep(&kept)).await.map(|_| ()),
        }
    }

    /// Tells of every change until the receiver is gone.
    pub async fn follow(&self, domain: TrustDomain, changes: mpsc::Sender<Seen>) {
        match self {
            Self::File(store) => store.follow(domain, changes).await,
            Self::Secret(store) => store.follow(domain, changes).await,
        }
    }

    /// How an operator finds it.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::File(store) => store.path().display().to_string(),
            Self::Secret(store) => store.place(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_waited_for() {
        let api = |code: u16| StoreError::Kube {
            place: "a/b".into(),
            fault: Box::new(kube::Error::Api(
                kube::core::Status::failure("no", "reason")
                    .with_code(code)
                    .boxed(),
            )),
        };
        let io = |kind: std::io::ErrorKind| StoreError::Io(kind.into());
        assert!(api(503).is_transient() && api(500).is_transient() && api(429).is_transient());
        assert!(io(std::io::ErrorKind::TimedOut).is_transient());
        assert!(!api(403).is_transient() && !api(409).is_transient());
        assert!(!io(std::io::ErrorKind::PermissionDenied).is_transient());
    }

    #[tokio::test]
    async fn an_older_foreign_bundle_never_takes_the_place_of_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::File(file::FileStore::open(dir.path()).unwrap());
        let domain: TrustDomain = "b.test".parse().unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let at = |sequence| TrustBundle::new(domain.clone(), Vec::new(), sequence).unwrap();
        for (sequence, stored) in [(7, true), (6, false), (7, true), (8, true)] {
            assert_eq!(
                store.store_foreign(&at(sequence), now).await.unwrap(),
                stored,
                "{sequence}"
            );
        }
        let kept = store.load_foreign(&domain).await.unwrap().unwrap();
        assert_eq!(stored::read(&kept, &domain).unwrap().sequence(), 8);
    }
}
