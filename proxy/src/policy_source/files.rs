//! A directory of YAML, followed by its contents.
//!
//! An object that is gone from its file is gone. One that cannot be read any more stays in its last good version,
//! and so do the objects of a file that cannot be read. A directory that cannot be read changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use ring::digest;
use signet_policy::document::{Reading, read_text, unreadable};
use signet_policy::{Mesh, Workload};
use signet_runtime::directory::{Bounds, FollowedDirectory, Found, Look};

use super::held::Held;
use super::{Writer, compile};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Time until a change is confirmed.
const REST: Duration = Duration::from_millis(100);
/// What is read. A document alone may have 4 MiB.
const BOUNDS: Bounds = Bounds {
    endings: &["yaml", "yml", "json"],
    files: 10_000,
    file_bytes: 16 << 20,
    bytes: 64 << 20,
};

/// The directory, and whose policies are wanted.
#[derive(Debug)]
pub struct Files {
    directory: FollowedDirectory,
    workload: Workload,
    mesh: Mesh,
    held: Held,
}

impl Files {
    /// Follows `directory`. Objects without a namespace lie in the workload's.
    #[must_use]
    pub fn new(directory: PathBuf, workload: Workload, mesh: Mesh) -> Self {
        Self {
            directory: FollowedDirectory::new(directory, BOUNDS),
            workload,
            mesh,
            held: Held::default(),
        }
    }

    /// Follows until dropped.
    pub async fn follow(mut self, mut writer: Writer) {
        loop {
            let Some((files, wait)) = self.step(&mut writer).await else {
                return;
            };
            self = files;
            tokio::time::sleep(wait).await;
        }
    }

    /// Looks once, on a thread that may wait for a disk; says when to look again. Nothing when that thread
    /// panicked, which is logged.
    async fn step(mut self, writer: &mut Writer) -> Option<(Self, Duration)> {
        let looked = tokio::task::spawn_blocking(move || {
            let look = self.directory.look();
            (self, look)
        });
        let (mut this, look) = match looked.await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "policies cannot be read");
                return None;
            }
        };
        let wait = match look {
            Ok(Look::Same) => {
                writer.well();
                LOOK
            }
            Ok(Look::Unrested) => REST,
            Ok(Look::New(found)) => {
                this = this.take(found, writer).await?;
                LOOK
            }
            Err(error) => {
                writer.failing("directory", &error.to_string());
                LOOK
            }
        };
        Some((this, wait))
    }

    async fn take(self, found: Vec<Found>, writer: &mut Writer) -> Option<Self> {
        let Self {
            directory,
            workload,
            mesh,
            mut held,
        } = self;
        let version = version(&found);
        let namespace = workload.namespace.clone();
        let take = move || {
            let readings = found.iter().flat_map(|file| readings(file, &namespace));
            held.take_files(readings.collect());
            held
        };
        match compile(take, workload.clone(), mesh.clone()).await {
            Ok(compiled) => {
                writer.well();
                let held = writer.publish(compiled, version);
                Some(Self {
                    directory,
                    workload,
                    mesh,
                    held,
                })
            }
            Err(error) => {
                tracing::error!(%error, "policies cannot be read");
                None
            }
        }
    }
}

fn readings(file: &Found, namespace: &str) -> Vec<Reading> {
    let text = match &file.contents {
        Ok(bytes) => std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned()),
        Err(error) => Err(error.clone()),
    };
    match text {
        Ok(text) => read_text(&file.name, text, Some(namespace)),
        Err(why) => vec![unreadable(&file.name, &why)],
    }
}

/// Of the contents, names included.
fn version(found: &[Found]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for file in found {
        let contents = match &file.contents {
            Ok(bytes) => bytes.as_slice(),
            Err(error) => error.as_bytes(),
        };
        for part in [file.name.as_bytes(), contents] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
    }
    let hash = context.finish();
    let short = hash.as_ref().iter().take(8);
    short.map(|byte| format!("{byte:02x}")).collect()
}
