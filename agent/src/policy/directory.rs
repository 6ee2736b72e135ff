//! A directory of YAML in place of the API server, for machines without Kubernetes. Every object names its
//! namespace, since one directory is for many workloads.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use signet_policy::document::{Reading, read_text_as_json, unreadable};
use signet_runtime::directory::{Bounds, FollowedDirectory, Found, Look};
use tokio::time::Instant;

use super::keeper::{Ear, Heard};
use super::status::{Part, State};
use super::store::{BOUNDS, Event};
use crate::metrics::Metrics;
use crate::quiet::Quiet;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Time until a change is confirmed.
const REST: Duration = Duration::from_millis(100);
/// What is read.
const FILES: Bounds = Bounds {
    endings: &["yaml", "yml", "json"],
    files: 10_000,
    file_bytes: 16 << 20,
    bytes: BOUNDS.bytes,
};

/// Follows `path` until nobody listens any more.
pub async fn follow(path: PathBuf, ear: Ear, metrics: Metrics) {
    let mut directory = FollowedDirectory::new(path, FILES);
    let mut quiet = Quiet::default();
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            let look = directory.look().map(documents);
            (directory, look)
        });
        let Ok((back, look)) = looked.await else { return };
        directory = back;
        let (heard, wait) = match look {
            Ok(None) => (None, REST),
            Ok(Some(None)) => (None, LOOK),
            Ok(Some(Some(all))) => {
                let state = State::Listed { version: None };
                (Some(Heard::Well(Part::Directory, state, Event::Files(all))), LOOK)
            }
            Err(error) => {
                let error = error.to_string();
                Metrics::blame(&metrics.policy_watch_failures, "directory");
                if quiet.may_log("directory", Instant::now()) {
                    tracing::warn!(
                        reason = "directory",
                        error,
                        "policies cannot be read; what is known of them stays in use"
                    );
                }
                (Some(Heard::Failed(Part::Directory, "directory", error)), LOOK)
            }
        };
        if let Some(heard) = heard
            && ear.send(heard).await.is_err()
        {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

type Documents = Vec<(Reading, Option<Bytes>)>;

/// The documents of what was found; nothing inside for nothing new, nothing at all while it does not rest.
#[expect(clippy::option_option, reason = "outside: is it at rest; inside: is it new")]
fn documents(look: Look) -> Option<Option<Documents>> {
    match look {
        Look::Unrested => None,
        Look::Same => Some(None),
        Look::New(files) => Some(Some(files.iter().flat_map(of_file).collect())),
    }
}

fn of_file(file: &Found) -> Documents {
    let text = match &file.contents {
        Ok(bytes) => std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned()),
        Err(error) => Err(error.clone()),
    };
    match text {
        Ok(text) => read_text_as_json(&file.name, text)
            .into_iter()
            .map(|(reading, json)| (reading, json.map(|json| Bytes::from(json.to_string()))))
            .collect(),
        Err(why) => vec![(unreadable(&file.name, &why), None)],
    }
}
