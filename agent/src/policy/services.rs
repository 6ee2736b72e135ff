//! Services, cut down to what tells the protocol of a workload's ports: selectors and ports, by namespace. Pure.
//!
//! One that had to be left out counts as it was known before, if it was, and else not at all; what is known of others
//! stays. Since a word for HTTP is never taken back by another one, leaving one out cannot do that either.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::Object;
use serde::Deserialize;

/// Most services in all.
pub const MAX_SERVICES: usize = 50_000;
/// Most ports of one service.
const MAX_PORTS: usize = 256;

/// A Service as it is decoded from the wire.
pub type ServiceObject = Object<Spec, Nothing>;

/// The part of a specification that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    r#type: Option<String>,
    selector: Option<BTreeMap<String, String>>,
    ports: Option<Vec<RawPort>>,
}

/// The part of a status that is read: none.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Nothing {}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    app_protocol: Option<String>,
    port: u16,
    target_port: Option<Target>,
}

/// A port of the workload: by number, or by its name in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Target {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

/// A TCP port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Where it leads.
    pub target: Target,
    /// Its name; empty without one.
    pub name: String,
    /// What it says of its protocol.
    pub app_protocol: Option<String>,
}

/// A service that selects pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Labels that its pods carry; never empty.
    pub selector: BTreeMap<String, String>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
}

/// A service as it was told.
#[derive(Clone, Debug)]
pub struct Told {
    namespace: String,
    name: String,
    /// Nothing for one that selects no pods.
    service: Option<Service>,
    /// Whether it has more ports than are kept.
    cut: bool,
}

/// What the watch says.
#[derive(Clone, Debug)]
pub enum Event {
    /// A service is there, or changed.
    Applied(Told),
    /// A service is gone: namespace and name.
    Deleted(String, String),
    /// These are all services.
    Listed(Vec<Told>),
}

/// The services of one namespace, by name.
pub type Space = BTreeMap<String, Arc<Service>>;

/// All services. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Services {
    spaces: Arc<BTreeMap<String, Arc<Space>>>,
    count: usize,
}

/// What is kept of a Service. Nothing for one without name or namespace, which the API server does not have.
#[must_use]
pub fn told(object: ServiceObject) -> Option<Told> {
    let (namespace, name) = (object.metadata.namespace?, object.metadata.name?);
    let Spec {
        r#type,
        selector,
        ports,
    } = object.spec;
    let selector = selector.unwrap_or_default();
    let selects = !selector.is_empty() && r#type.as_deref() != Some("ExternalName");
    let ports = ports.unwrap_or_default();
    let cut = selects && ports.len() > MAX_PORTS;
    let is_tcp = |port: &RawPort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let kept = ports.into_iter().take(MAX_PORTS).filter(is_tcp);
    let service = Service {
        selector,
        ports: kept.map(ServicePort::from).collect(),
    };
    Some(Told {
        namespace,
        name,
        service: Some(service).filter(|service| selects && !service.ports.is_empty()),
        cut,
    })
}

impl From<RawPort> for ServicePort {
    fn from(raw: RawPort) -> Self {
        Self {
            target: raw.target_port.unwrap_or(Target::Number(raw.port)),
            name: raw.name.unwrap_or_default(),
            app_protocol: raw.app_protocol.filter(|text| !text.is_empty()),
        }
    }
}

impl Services {
    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The services of a namespace; nothing where none is known.
    #[must_use]
    pub fn space(&self, namespace: &str) -> Option<&Arc<Space>> {
        self.spaces.get(namespace)
    }

    fn known(&self, told: &Told) -> Option<&Arc<Service>> {
        self.spaces.get(&told.namespace)?.get(&told.name)
    }

    /// Takes an event in. Whether that changed anything, and how many services there was no room for.
    pub fn apply(&mut self, event: Event, most: usize) -> (bool, usize) {
        match event {
            Event::Applied(told) => self.put(&told, most),
            Event::Deleted(namespace, name) => (self.remove(&namespace, &name), 0),
            Event::Listed(all) => self.list(all, most),
        }
    }

    fn list(&mut self, all: Vec<Told>, most: usize) -> (bool, usize) {
        let mut fresh = Self::default();
        let mut left_out = 0;
        // Those that are known come first, so that nobody new takes their place.
        let (known, new): (Vec<_>, Vec<_>) = all.into_iter().partition(|told| self.known(told).is_some());
        for told in known.into_iter().chain(new) {
            if let Some(before) = self.known(&told).filter(|_| told.cut) {
                fresh.keep(&told, Arc::clone(before));
            }
            left_out += fresh.put(&told, most).1;
        }
        let mut changed = self.spaces.len() != fresh.spaces.len();
        // What is the same stays where it is, so that who looks can tell at a glance.
        let spaces = Arc::make_mut(&mut fresh.spaces);
        for (namespace, space) in spaces.iter_mut() {
            match self.spaces.get(namespace) {
                Some(known) if known == space => *space = Arc::clone(known),
                _ => changed = true,
            }
        }
        *self = fresh;
        (changed, left_out)
    }

    fn put(&mut self, told: &Told, most: usize) -> (bool, usize) {
        if told.cut {
            return (false, 1);
        }
        let Some(service) = &told.service else {
            return (self.remove(&told.namespace, &told.name), 0);
        };
        match self.known(told) {
            Some(known) if **known == *service => (false, 0),
            None if self.count >= most => (false, 1),
            _ => {
                let service = Arc::new(service.clone());
                self.keep(told, service);
                (true, 0)
            }
        }
    }

    fn keep(&mut self, told: &Told, service: Arc<Service>) {
        let spaces = Arc::make_mut(&mut self.spaces);
        let space = spaces.entry(told.namespace.clone()).or_default();
        let before = Arc::make_mut(space).insert(told.name.clone(), service);
        self.count += usize::from(before.is_none());
    }

    fn remove(&mut self, namespace: &str, name: &str) -> bool {
        let known = self
            .spaces
            .get(namespace)
            .is_some_and(|space| space.contains_key(name));
        if !known {
            return false;
        }
        self.count -= 1;
        let spaces = Arc::make_mut(&mut self.spaces);
        if let Some(space) = spaces.get_mut(namespace) {
            Arc::make_mut(space).remove(name);
            if space.is_empty() {
                spaces.remove(namespace);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
