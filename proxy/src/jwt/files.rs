//! Key sets in files, for issuers that cannot be reached. A file that cannot be read changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::jws::{KeySet, MAX_KEY_SET_BYTES};
use signet_proto::policy::keys::digest;
use signet_runtime::files::FollowedFile;
use signet_runtime::shutdown::Tasks;
use tokio::sync::watch;

use super::TokenMetrics;
use super::given::{Given, Set, Shelf};

/// Time between two looks at a file.
const LOOK: Duration = Duration::from_secs(1);

/// The sets of issuers, by their names.
#[derive(Debug, Default)]
pub struct KeyFiles(BTreeMap<String, Shelf>);

impl KeyFiles {
    /// Follows these files until shutdown.
    #[must_use]
    pub fn follow(files: &BTreeMap<String, PathBuf>, metrics: &TokenMetrics, tasks: &Tasks) -> Self {
        let shelves = files.iter().map(|(issuer, path)| {
            let (writer, shelf) = watch::channel(None);
            let followed = Followed {
                issuer: issuer.clone(),
                file: Some(FollowedFile::new(path.clone(), MAX_KEY_SET_BYTES)),
                fault: None,
                shelf: writer,
                metrics: metrics.clone(),
            };
            tasks.spawn_until_shutdown(followed.run());
            (issuer.clone(), shelf)
        });
        Self(shelves.collect())
    }

    /// The set of the issuer of this name, if it is in a file.
    pub(super) fn of(&self, issuer: Option<&str>) -> Option<Given> {
        self.0.get(issuer?).cloned().map(Given::on)
    }
}

struct Followed {
    issuer: String,
    file: Option<FollowedFile>,
    /// What was told last.
    fault: Option<String>,
    shelf: watch::Sender<Option<Set>>,
    metrics: TokenMetrics,
}

impl Followed {
    async fn run(mut self) {
        // Reads wait for a disk, so not on a thread that others wait for.
        while let Some(mut file) = self.file.take() {
            let looked = tokio::task::spawn_blocking(move || {
                let look = file.poll();
                (file, look)
            });
            match looked.await {
                Ok((file, look)) => {
                    self.file = Some(file);
                    match look {
                        Ok(None) => {}
                        Ok(Some(bytes)) => self.take(&bytes),
                        Err(error) => self.failed("file", error.to_string()),
                    }
                }
                Err(error) => tracing::error!(%error, "a file of keys cannot be followed any more"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        match KeySet::parse(bytes) {
            Ok(keys) => {
                self.fault = None;
                TokenMetrics::count(&self.metrics.fetches, "changed");
                tracing::info!(document = %self.issuer, outcome = "changed", "keys of an issuer read from their file");
                let (keys, digest) = (Arc::new(keys), digest(bytes));
                self.shelf.send_replace(Some(Set { keys, digest }));
            }
            Err(fault) => self.failed("unusable", fault.to_string()),
        }
    }

    fn failed(&mut self, reason: &'static str, error: String) {
        if self.fault.as_ref() == Some(&error) {
            return;
        }
        TokenMetrics::count(&self.metrics.fetches, reason);
        let last_good = self.shelf.borrow().is_some();
        tracing::warn!(
            document = %self.issuer, reason, error, last_good,
            "keys of an issuer cannot be read from their file"
        );
        self.fault = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::A;
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changes_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let metrics = TokenMetrics::default();
        let (tasks, files) = (Tasks::new(), BTreeMap::from([("i".to_owned(), path.clone())]));
        let keys = KeyFiles::follow(&files, &metrics, &tasks);
        assert!(keys.of(Some("other")).is_none() && keys.of(None).is_none());
        let counted = |outcome| {
            let metrics = metrics.clone();
            async move {
                let family = &metrics.fetches;
                while family.get_or_create(&super::super::Outcome { outcome }).get() == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        counted("file").await;
        assert!(keys.of(Some("i")).unwrap().current().is_none());
        std::fs::write(&path, A.jwks()).unwrap();
        counted("changed").await;
        let good = keys.of(Some("i")).unwrap().current().unwrap();
        std::fs::write(&path, "{").unwrap();
        counted("unusable").await;
        assert!(Arc::ptr_eq(
            &good,
            &keys.of(Some("i")).unwrap().current().unwrap()
        ));
    }
}
