//! The files of `deploy/`, one object each.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its path below the repository.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// The object in it.
    pub object: Value,
}

impl Manifest {
    /// The object's kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the repository").to_owned()
}

/// A text file of the repository.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn text(file: impl AsRef<Path>) -> String {
    let path = repository().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// YAML as JSON, without losing a key: a key that is there twice fails.
///
/// # Panics
/// When it is no YAML.
#[must_use]
pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("not YAML: {e}\n{text}"))
}

/// What the kustomization in `folder` (as in `deploy/ca`) lists, in its order.
///
/// # Panics
/// When it lists anything but files beside it, or they cannot be read.
#[must_use]
pub fn of(folder: &str) -> Vec<Manifest> {
    let kustomization = yaml(&text(Path::new(folder).join("kustomization.yaml")));
    let listed = kustomization["resources"].as_array().expect("resources");
    listed
        .iter()
        .map(|name| {
            let name = name.as_str().expect("a file name");
            assert!(
                !name.contains('/'),
                "{folder}: {name} is no plain file beside the kustomization"
            );
            let file = Path::new(folder).join(name);
            let text = text(&file);
            let object = yaml(&text);
            Manifest { file, text, object }
        })
        .collect()
}

/// The folders that hold a kustomization.
pub const FOLDERS: [&str; 7] = [
    "deploy/ca",
    "deploy/ca-federation",
    "deploy/agent-sidecar",
    "deploy/agent-node",
    "deploy/csi-example",
    "deploy/proxy-sidecar",
    "deploy/crds",
];
