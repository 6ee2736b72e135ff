//! A directory of YAML in place of the API server, for machines without Kubernetes. Every object names its
//! namespace, since one directory is for many workloads. What is spoken on ports is not known there.

use std::path::PathBuf;

use bytes::Bytes;
use signet_policy::document::{Reading, read_text_as_json, unreadable};
use signet_runtime::directory::{Bounds, DirectoryWatch, Found, News};
use tokio::time::Instant;

use super::keeper::{Ear, Heard};
use super::status::{Part, State};
use super::store::{BOUNDS, Event};
use crate::metrics::Metrics;
use crate::quiet::Quiet;

/// What is read.
const FILES: Bounds = Bounds {
    endings: &["yaml", "yml", "json"],
    files: 10_000,
    file_bytes: 16 << 20,
    bytes: BOUNDS.bytes,
};

/// Follows `path` until nobody listens any more.
pub async fn follow(path: PathBuf, ear: Ear, metrics: Metrics) {
    let mut directory = DirectoryWatch::new(path, FILES);
    let (mut quiet, mut failing) = (Quiet::default(), false);
    while let Some(news) = directory.next().await {
        let heard = match news {
            News::Same if failing => Heard::Recovered(Part::Directory),
            News::Same => continue,
            News::New(files) => {
                let read = tokio::task::spawn_blocking(move || files.iter().flat_map(of_file).collect());
                let Ok(all) = read.await else { return };
                let state = State::Listed { version: None };
                Heard::Well(Part::Directory, state, Event::Files(all))
            }
            News::Failed(error) => {
                let (reason, error) = (error.as_str(), error.to_string());
                Metrics::blame(&metrics.policy_watch_failures, reason);
                if quiet.may_log(reason, Instant::now()) {
                    tracing::error!(
                        reason,
                        error,
                        "policies cannot be read; what is known of them stays in use"
                    );
                }
                Heard::Failed(Part::Directory, reason, error)
            }
        };
        failing = matches!(heard, Heard::Failed(..));
        if ear.send(heard).await.is_err() {
            return;
        }
    }
}

type Documents = Vec<(Reading, Option<Bytes>)>;

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
