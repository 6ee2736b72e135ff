//! What concerns one workload, and its version. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use ring::digest;
use signet_policy::KeyAddress;
use signet_policy::scope::Workload;
use signet_proto::policy::keys::{digest as digest_of, keys_message};
use signet_proto::policy::ports::port_messages;
use signet_proto::policy::{MAX_SNAPSHOT_BYTES, Ports};
use signet_proto::wire::signet::policy::v1 as wire;

use super::Mesh;
use super::issuers::{Issuer, Known, Wanted};
use super::space::{Item, Message, Space, Spaces};

/// What a workload's snapshot is made of, to tell at a glance whether it has to be made anew.
#[derive(Clone, Debug)]
pub struct Basis {
    workload: Workload,
    everywhere: Option<Arc<Space>>,
    root: Option<Arc<Space>>,
    own: Option<Arc<Space>>,
    ports: Ports,
    keys: Known,
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
            ports: Ports::new(),
            keys: Known::new(),
        }
    }

    /// The same, with what is spoken on the workload's ports.
    #[must_use]
    pub fn with_ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// The same, with key sets of token issuers.
    #[must_use]
    pub fn with_keys(mut self, keys: Known) -> Self {
        self.keys = keys;
        self
    }

    /// What is spoken on the workload's ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The key sets that the workload's policies ask for, those of the root namespace before its own's. One that several rules ask for is given the longest time that
    /// one of them allows.
    #[must_use]
    pub fn issuers(&self, mesh: &Mesh) -> Wanted {
        let mut wanted: BTreeMap<&KeyAddress, (Duration, &str)> = BTreeMap::new();
        for item in self.items(mesh) {
            let namespace = item.namespace.as_deref().unwrap_or_default();
            for issuer in &item.issuers {
                let (patience, _) = wanted
                    .entry(&issuer.address)
                    .or_insert((issuer.patience, namespace));
                *patience = issuer.patience.max(*patience);
            }
        }
        let issuers = wanted.into_iter().map(|(address, (patience, namespace))| {
            let address = address.clone();
            (Issuer { address, patience }, namespace.to_owned())
        });
        issuers.collect()
    }

    fn items(&self, mesh: &Mesh) -> impl Iterator<Item = &Arc<Item>> {
        let root = mesh.settings.root_namespace.clone();
        let spaces = [&self.everywhere, &self.root, &self.own];
        let items = spaces.into_iter().flatten().flat_map(|space| space.values());
        items.filter(move |item| item.concerns(&self.workload, &root))
    }

    /// Whether a snapshot of both is the same for certain.
    #[must_use]
    pub fn is_that_of(&self, other: &Self) -> bool {
        let same = |one: &(KeyAddress, _), other: &(KeyAddress, _)| {
            one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1)
        };
        let mut pairs = self.keys.iter().zip(&other.keys);
        let keys = self.keys.len() == other.keys.len() && pairs.all(|(one, other)| same(one, other));
        keys && self.ports == other.ports && self.has_policies_of(other)
    }

    /// Whether both are of the same workload and the same policies, for certain.
    #[must_use]
    pub fn has_policies_of(&self, other: &Self) -> bool {
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
            keys: Vec::new(),
            ports: port_messages(&self.ports),
        };
        // The version: of all but the objects as they travel, then of the objects' own digests.
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&snapshot.encode_to_vec());
        for item in self.items(mesh) {
            context.update(&item.digest);
            match &item.message {
                Message::Sound(object) => snapshot.objects.push(object.clone()),
                Message::Faulty(object, _) => snapshot.faulty.push(object.clone()),
            }
        }
        for (address, set) in &self.keys {
            let message = keys_message(address, set.jwks.clone());
            context.update(&digest_of(&message.encode_to_vec()));
            snapshot.keys.push(message);
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
