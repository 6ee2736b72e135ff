//! Looking at a directory again and again, apart from the threads that others wait for.

use std::path::PathBuf;
use std::time::Duration;

use super::{Bounds, FollowedDirectory, Found, Look, LookError};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Time until a change is confirmed.
const REST: Duration = Duration::from_millis(100);

/// What became of a directory.
#[derive(Debug)]
pub enum News {
    /// It says what it said.
    Same,
    /// It says something else: all files, by name.
    New(Vec<Found>),
    /// It says nothing; what it said last stays.
    Failed(LookError),
}

/// A directory that is looked at for ever.
#[derive(Debug)]
pub struct DirectoryWatch {
    /// Away while a look is under way.
    directory: Option<FollowedDirectory>,
    wait: Duration,
}

impl DirectoryWatch {
    /// Follows `path`. The first look is at once.
    #[must_use]
    pub fn new(path: PathBuf, bounds: Bounds) -> Self {
        Self {
            directory: Some(FollowedDirectory::new(path, bounds)),
            wait: Duration::ZERO,
        }
    }

    /// The next news. Nothing when a look panicked or this was dropped half-way before: then there are none any more.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            tokio::time::sleep(self.wait).await;
            let mut directory = self.directory.take()?;
            let looked = tokio::task::spawn_blocking(move || {
                let look = directory.look();
                (directory, look)
            });
            let look = match looked.await {
                Ok((directory, look)) => {
                    self.directory = Some(directory);
                    look
                }
                Err(error) => {
                    tracing::error!(%error, "a directory cannot be followed any more");
                    return None;
                }
            };
            self.wait = LOOK;
            return Some(match look {
                Ok(Look::Unrested) => {
                    self.wait = REST;
                    continue;
                }
                Ok(Look::Same) => News::Same,
                Ok(Look::New(found)) => News::New(found),
                Err(error) => News::Failed(error),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_are_told_once_they_rest_and_failures_take_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        let bounds = Bounds {
            endings: &["yaml"],
            files: 3,
            file_bytes: 10,
            bytes: 20,
        };
        let mut watch = DirectoryWatch::new(dir.path().to_owned(), bounds);
        assert!(matches!(watch.next().await, Some(News::New(found)) if found.len() == 1));
        assert!(matches!(watch.next().await, Some(News::Same)));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(
            watch.next().await,
            Some(News::Failed(LookError::Empty { .. }))
        ));
        std::fs::write(&file, "a").unwrap();
        assert!(
            matches!(watch.next().await, Some(News::Same)),
            "what was told is remembered"
        );
    }
}
