//! What there is in each namespace, shared by all who look. Pure.
//!
//! A change copies the namespace it is in and no other, so who looks can tell at a glance that nothing of its
//! own has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use ring::digest;
use signet_policy::decision::PolicyName;
use signet_policy::model::{Attachment, Kind};
use signet_policy::scope::{Workload, level, peer_level};
use signet_proto::wire::signet::policy::v1::{FaultyObject, SoundObject};

use super::issuers::Issuer;

/// SHA-256.
pub type Digest = [u8; 32];

/// An object as it travels.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its kind, if known.
    pub kind: Option<Kind>,
    /// Its namespace; without one it reaches the whole mesh.
    pub namespace: Option<String>,
    /// What it applies to there.
    pub attachment: Attachment,
    /// Where it came from.
    pub origin: String,
    /// What travels.
    pub message: Message,
    /// Of what travels.
    pub digest: Digest,
    /// Key sets that it asks for.
    pub issuers: Vec<Issuer>,
}

/// What travels of an object.
#[derive(Clone, Debug)]
pub enum Message {
    /// Its last good version.
    Sound(SoundObject),
    /// What it counts as without one.
    Faulty(FaultyObject, &'static str),
}

impl Message {
    fn digest(&self) -> Digest {
        let bytes = match self {
            Self::Sound(object) => object.encode_to_vec(),
            Self::Faulty(object, _) => object.encode_to_vec(),
        };
        let hash = digest::digest(&digest::SHA256, &bytes);
        let mut out = Digest::default();
        out.copy_from_slice(hash.as_ref());
        out
    }
}

impl Item {
    /// Of these parts.
    #[must_use]
    pub fn new(
        (kind, namespace): (Option<Kind>, Option<String>),
        attachment: Attachment,
        origin: &str,
        message: Message,
    ) -> Self {
        Self {
            kind,
            namespace,
            attachment,
            origin: origin.to_owned(),
            digest: message.digest(),
            message,
            issuers: Vec::new(),
        }
    }

    /// The same, asking for these key sets.
    #[must_use]
    pub fn asking(mut self, issuers: Vec<Issuer>) -> Self {
        self.issuers = issuers;
        self
    }

    /// Whether it concerns the workload at all.
    #[must_use]
    pub fn concerns(&self, workload: &Workload, root: &str) -> bool {
        let level = if self.kind == Some(Kind::PeerAuthentication) {
            peer_level
        } else {
            level
        };
        level(self.namespace.as_deref(), &self.attachment, workload, root).is_ok()
    }

    /// What is in force: `sound`, `last_good` while a newer version cannot be read, or what it counts as.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.message {
            Message::Sound(object) if object.faults.is_empty() => "sound",
            Message::Sound(_) => "last_good",
            Message::Faulty(_, effect) => effect,
        }
    }

    /// What is wrong with its newest version, as sentences.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let (faults, line) = match &self.message {
            Message::Sound(object) => (&object.faults, 0),
            Message::Faulty(object, _) => (&object.faults, object.line),
        };
        let sentence = |fault: &signet_proto::wire::signet::policy::v1::Fault| {
            let line = if fault.line > 0 { fault.line } else { line };
            let place = if line > 0 {
                format!("line {line}: ")
            } else {
                String::new()
            };
            let path = if fault.path.is_empty() {
                String::new()
            } else {
                format!("{}: ", fault.path)
            };
            format!("{place}{path}{}; {}", fault.problem, fault.hint)
        };
        faults.iter().map(sentence).collect()
    }
}

/// The items of a namespace, by name.
pub type Space = BTreeMap<PolicyName, Arc<Item>>;

/// All namespaces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Spaces(Arc<BTreeMap<Option<String>, Arc<Space>>>);

impl Spaces {
    /// The items of a namespace, or those that reach everything.
    #[must_use]
    pub fn space(&self, namespace: Option<&str>) -> Option<&Arc<Space>> {
        self.0.get(&namespace.map(str::to_owned))
    }

    /// All items by name, those that reach everything first.
    pub fn items(&self) -> impl Iterator<Item = (&PolicyName, &Arc<Item>)> {
        self.0.values().flat_map(|space| space.iter())
    }

    /// Puts an item in its place; says whether that changed anything.
    pub fn put(&mut self, name: PolicyName, item: Item) -> bool {
        let same = |known: &Arc<Item>| known.digest == item.digest;
        let known = self.0.get(&item.namespace).and_then(|space| space.get(&name));
        if known.is_some_and(same) {
            return false;
        }
        let spaces = Arc::make_mut(&mut self.0);
        let space = spaces.entry(item.namespace.clone()).or_default();
        Arc::make_mut(space).insert(name, Arc::new(item));
        true
    }

    /// Takes an item out; says whether there was one.
    pub fn remove(&mut self, namespace: Option<&str>, name: &PolicyName) -> bool {
        let namespace = namespace.map(str::to_owned);
        if !self
            .0
            .get(&namespace)
            .is_some_and(|space| space.contains_key(name))
        {
            return false;
        }
        let spaces = Arc::make_mut(&mut self.0);
        if let Some(space) = spaces.get_mut(&namespace) {
            Arc::make_mut(space).remove(name);
            if space.is_empty() {
                spaces.remove(&namespace);
            }
        }
        true
    }

    /// Keeps the items that are among `named`; says whether any went.
    pub fn retain(&mut self, named: impl Fn(Option<&str>, &PolicyName) -> bool) -> bool {
        let gone: Vec<(Option<String>, PolicyName)> = self
            .0
            .iter()
            .flat_map(|(namespace, space)| space.keys().map(move |name| (namespace.clone(), name.clone())))
            .filter(|(namespace, name)| !named(namespace.as_deref(), name))
            .collect();
        gone.iter().fold(false, |any, (namespace, name)| {
            self.remove(namespace.as_deref(), name) || any
        })
    }
}
