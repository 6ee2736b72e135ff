//! A directory of YAML, followed by its contents.
//!
//! An object that is gone from its file is gone. One that cannot be read any more stays in its last good version,
//! and so do the objects of a file that cannot be read. A directory that cannot be read, or has no file, changes nothing.

use std::path::PathBuf;

use ring::digest;
use signet_policy::document::{Reading, read_text, unreadable};
use signet_policy::tokens::TokenRules;
use signet_policy::{Mesh, Workload};
use signet_proto::policy::Ports;
use signet_runtime::directory::{Bounds, DirectoryWatch, Found, News};

use super::held::Held;
use super::{Writer, compile};

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
    directory: PathBuf,
    workload: Workload,
    mesh: Mesh,
    held: Held,
}

impl Files {
    /// Follows `directory`. Objects without a namespace lie in the workload's.
    #[must_use]
    pub fn new(directory: PathBuf, workload: Workload, mesh: Mesh) -> Self {
        Self {
            directory,
            workload,
            mesh,
            held: Held::default(),
        }
    }

    /// Follows until dropped.
    pub async fn follow(mut self, mut writer: Writer) {
        let mut directory = DirectoryWatch::new(self.directory.clone(), BOUNDS);
        while let Some(news) = directory.next().await {
            match news {
                News::Same => writer.well(),
                News::New(found) => match self.take(found, &mut writer).await {
                    Some(taken) => self = taken,
                    None => return,
                },
                News::Failed(error) => writer.failing(error.as_str(), &error.to_string()),
            }
        }
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
                let keys = |writer: &Writer, rules: &TokenRules| writer.parts.issuers.key_sets(rules);
                // What is spoken on ports only the configuration says.
                let held = writer.publish(compiled, version, Ports::new(), keys);
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
