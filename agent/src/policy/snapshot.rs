//! What concerns one workload, and its version. Pure.

use std::fmt::Write as _;
use std::sync::Arc;

use prost::Message as _;
use ring::digest;
use signet_policy::scope::Workload;
use signet_proto::policy::MAX_SNAPSHOT_BYTES;
use signet_proto::wire::signet::policy::v1 as wire;

use super::Mesh;
use super::space::{Item, Message, Space, Spaces};

/// What a workload's snapshot is made of, to tell at a glance whether it has to be made anew.
#[derive(Clone, Debug)]
pub struct Basis {
    workload: Workload,
    everywhere: Option<Arc<Space>>,
    root: Option<Arc<Space>>,
    own: Option<Arc<Space>>,
}

impl Basis {
    /// Of these.
    #[must_use]
    pub fn new(spaces: &Spaces, mesh: &Mesh, workload: Workload) -> Self {
        let root = mesh.settings.root_namespace.as_str();
        let own = Some(workload.namespace.as_str()).filter(|own| *own != root);
        Self {
            everywhere: spaces.space(None).cloned(),
            root: spaces.space(Some(root)).cloned(),
            own: own.and_then(|own| spaces.space(Some(own)).cloned()),
            workload,
        }
    }

    /// Whether a snapshot of both is the same for certain.
    #[must_use]
    pub fn is_that_of(&self, other: &Self) -> bool {
        let same = |one: &Option<Arc<Space>>, other: &Option<Arc<Space>>| match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same(&self.everywhere, &other.everywhere)
            && same(&self.root, &other.root)
            && same(&self.own, &other.own)
            && self.workload == other.workload
    }

    /// The snapshot.
    ///
    /// # Errors
    /// Its size, if it has more than [`MAX_SNAPSHOT_BYTES`].
    pub fn snapshot(&self, mesh: &Mesh) -> Result<wire::PolicySnapshot, usize> {
        let root = mesh.settings.root_namespace.as_str();
        let spaces = [&self.everywhere, &self.root, &self.own];
        let items = spaces.into_iter().flatten().flat_map(|space| space.values());
        let items: Vec<&Arc<Item>> = items.filter(|item| item.concerns(&self.workload, root)).collect();
        let mut snapshot = wire::PolicySnapshot {
            version: String::new(),
            namespace: self.workload.namespace.clone(),
            labels: self.workload.labels.clone(),
            mesh: Some(wire::Mesh {
                root_namespace: root.to_owned(),
                trust_domain: mesh.domain.as_str().to_owned(),
                trust_domain_aliases: mesh
                    .settings
                    .aliases
                    .iter()
                    .map(|a| a.as_str().to_owned())
                    .collect(),
            }),
            objects: Vec::new(),
            faulty: Vec::new(),
        };
        // The version: of all but the objects as they travel, then of the objects' own digests.
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&snapshot.encode_to_vec());
        for item in items {
            context.update(&item.digest);
            match &item.message {
                Message::Sound(object) => snapshot.objects.push(object.clone()),
                Message::Faulty(object, _) => snapshot.faulty.push(object.clone()),
            }
        }
        let hash = context.finish();
        for byte in hash.as_ref().iter().take(16) {
            // Writing into a text does not fail.
            let _ = write!(snapshot.version, "{byte:02x}");
        }
        match snapshot.encoded_len() {
            size if size <= MAX_SNAPSHOT_BYTES => Ok(snapshot),
            size => Err(size),
        }
    }
}
