//! What stands around policies: workloads, services, namespaces and gateways, as far as documents show them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use signet_policy::Spoken;

use super::documents::{Documents, Other, Place};

/// Kinds that hold a pod, and where.
const TEMPLATES: [(&str, &str); 8] = [
    ("Pod", ""),
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];
/// Labels that tell the pods of one workload apart.
const POD_LABELS: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];
/// The namespace of objects that name none, as `kubectl` has it.
const DEFAULT_NAMESPACE: &str = "default";

/// What stands around policies.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Pods and what makes pods.
    pub workloads: Vec<Workload>,
    /// Services.
    pub services: Vec<Service>,
    /// Namespaces.
    pub namespaces: Vec<Plain>,
    /// Gateways of the Gateway API.
    pub gateways: Vec<Plain>,
}

/// An object of which name, labels and annotations matter.
#[derive(Debug)]
pub struct Plain {
    /// Where it is.
    pub place: Place,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for a namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Class of a gateway.
    pub class: String,
}

/// A pod, or what makes pods.
#[derive(Debug)]
pub struct Workload {
    /// Name, labels of its pods, annotations of its pods.
    pub meta: Plain,
    /// Its service account; nothing if it names none.
    pub account: Option<String>,
    /// The ports of its containers.
    pub ports: Vec<Port>,
    /// Names and images of its containers, init containers included.
    pub containers: Vec<(String, String)>,
    /// Whether it belongs to another object that is looked at in its place.
    pub owned: bool,
}

/// A port of a container, or of a service.
#[derive(Clone, Debug)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// Its name.
    pub name: Option<String>,
    /// `appProtocol` of a service.
    pub app_protocol: Option<String>,
    /// Where a service sends it: a number or a name; nothing for the same number.
    pub target: Option<Target>,
}

/// Where a service sends a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this port.
    Number(u16),
    /// To the container's port of this name.
    Name(String),
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// Name and labels.
    pub meta: Plain,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`.
    pub kind: String,
    /// Whether it keeps the addresses of clients.
    pub keeps_addresses: bool,
    /// The labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// What a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, as its name or `appProtocol` says.
    Http,
    /// Something else, as its name or `appProtocol` says.
    Tcp,
    /// Nobody says; judged as TCP.
    Unsaid,
}

impl Inventory {
    /// What the documents show.
    #[must_use]
    pub fn of(documents: &Documents) -> Self {
        let mut inventory = Self::default();
        for other in &documents.others {
            inventory.add(other);
        }
        // Of many pods that differ in nothing that matters, one stands for all.
        let mut seen = BTreeSet::new();
        inventory
            .workloads
            .retain(|one| one.meta.kind != "Pod" || seen.insert(one.likeness()));
        inventory
    }

    fn add(&mut self, other: &Other) {
        let kind = text(&other.value, "/kind").unwrap_or_default();
        if let Some((_, template)) = TEMPLATES.iter().find(|(name, _)| *name == kind) {
            self.workloads.extend(workload(other, &kind, template));
            return;
        }
        let group = text(&other.value, "/apiVersion").unwrap_or_default();
        match (&*kind, group.split('/').next().unwrap_or_default()) {
            ("Service", "v1") => self.services.push(service(other)),
            ("Namespace", "v1") => self.namespaces.push(plain(other, "", "Namespace")),
            ("Gateway", "gateway.networking.k8s.io") => self.gateways.push(plain(other, "", "Gateway")),
            _ => {}
        }
    }

    /// The workload of this name, or of a pod whose name begins with it.
    #[must_use]
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Workload> {
        let own = || {
            self.workloads
                .iter()
                .filter(|one| one.meta.namespace == namespace)
        };
        let pod_of = |one: &&Workload| {
            let rest = one.meta.name.strip_prefix(name);
            one.meta.kind == "Pod" && rest.is_some_and(|rest| rest.starts_with('-'))
        };
        own()
            .find(|one| one.meta.name == name)
            .or_else(|| own().find(pod_of))
    }

    /// Workloads that count: those that no other one makes.
    pub fn real(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(|one| !one.owned)
    }

    /// The services that select a workload.
    pub fn services_of<'i>(&'i self, workload: &'i Workload) -> impl Iterator<Item = &'i Service> {
        self.services.iter().filter(move |service| {
            service.meta.namespace == workload.meta.namespace
                && !service.selector.is_empty()
                && carries(&workload.meta.labels, &service.selector)
        })
    }

    /// The ports of a workload and what they carry: those of its containers and those that services send to it.
    #[must_use]
    pub fn ports(&self, workload: &Workload) -> BTreeMap<u16, Protocol> {
        let mut ports = BTreeMap::new();
        let mut said: BTreeMap<u16, Spoken> = BTreeMap::new();
        for port in self.services_of(workload).flat_map(|service| &service.ports) {
            let number = match &port.target {
                None => Some(port.number),
                Some(Target::Number(number)) => Some(*number),
                Some(Target::Name(name)) => {
                    let mut named = workload.ports.iter();
                    named
                        .find(|own| own.name.as_ref() == Some(name))
                        .map(|own| own.number)
                }
            };
            let Some(number) = number else {
                continue;
            };
            ports.insert(number, Protocol::Unsaid);
            if let Some(spoken) = port.said() {
                let known = said.entry(number).or_insert(spoken);
                *known = known.beside(spoken).0;
            }
        }
        // A port of which no service says anything is what the pod calls it, and what it calls HTTP is HTTP.
        for port in &workload.ports {
            ports.insert(port.number, Protocol::Unsaid);
            if let Some(own) = port.said() {
                let known = said.entry(port.number).or_insert(own);
                if *known == Spoken::Tcp {
                    *known = own;
                }
            }
        }
        let said = said.into_iter().map(|(number, spoken)| (number, spoken.into()));
        ports.extend(said);
        ports
    }
}

impl Workload {
    /// The workload as policies see it.
    #[must_use]
    pub fn as_policy(&self) -> signet_policy::Workload {
        signet_policy::Workload {
            namespace: self.meta.namespace.clone(),
            labels: self.meta.labels.clone(),
            role: signet_policy::scope::Role::Sidecar,
        }
    }

    /// The labels that all pods of one workload have.
    #[must_use]
    pub fn common_labels(&self) -> BTreeMap<&str, &str> {
        let labels = self.meta.labels.iter().map(|(name, value)| (&**name, &**value));
        labels.filter(|(name, _)| !POD_LABELS.contains(name)).collect()
    }

    /// All that matters of a pod but its name.
    fn likeness(&self) -> String {
        let labels = self.common_labels();
        let (ports, containers) = (&self.ports, &self.containers);
        format!(
            "{} {labels:?} {:?} {ports:?} {containers:?} {:?}",
            self.meta.namespace,
            self.account,
            self.meta.annotations.keys()
        )
    }

    /// Whether a proxy that enforces policies runs beside it.
    #[must_use]
    pub fn has_proxy(&self) -> bool {
        let proxies = ["signet-proxy", "istio-proxy"];
        let is = |(name, image): &(String, String)| {
            proxies.contains(&&**name) || proxies.iter().any(|proxy| image.contains(proxy))
        };
        self.containers.iter().any(is)
    }
}

impl Port {
    fn said(&self) -> Option<Spoken> {
        Spoken::said(self.app_protocol.as_deref(), self.name.as_deref())
    }
}

impl From<Spoken> for Protocol {
    fn from(spoken: Spoken) -> Self {
        match spoken {
            Spoken::Tcp => Self::Tcp,
            Spoken::Http | Spoken::Http2 => Self::Http,
        }
    }
}

/// Whether `labels` holds all of `wanted`.
#[must_use]
pub fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

fn texts(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let fields = value.pointer(pointer).and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    fields.into_iter().flatten().filter_map(text).collect()
}

fn plain(other: &Other, template: &str, kind: &str) -> Plain {
    let value = &other.value;
    let namespace = text(value, "/metadata/namespace");
    Plain {
        place: other.place.clone(),
        kind: kind.to_owned(),
        namespace: match kind {
            "Namespace" => String::new(),
            _ => namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        },
        name: text(value, "/metadata/name").unwrap_or_default(),
        labels: texts(value, &format!("{template}/metadata/labels")),
        annotations: texts(value, &format!("{template}/metadata/annotations")),
        class: text(value, "/spec/gatewayClassName").unwrap_or_default(),
    }
}

fn workload(other: &Other, kind: &str, template: &str) -> Option<Workload> {
    let pod = other.value.pointer(template)?;
    let spec = pod.get("spec")?;
    let lists = ["containers", "initContainers"];
    let containers = lists
        .iter()
        .filter_map(|list| spec.get(list)?.as_array())
        .flatten();
    let containers: Vec<&Value> = containers.collect();
    let named = |value: &&Value| {
        let own = |field| text(value, field).unwrap_or_default();
        (own("/name"), own("/image"))
    };
    let ports = containers.iter().filter_map(|one| one.get("ports")?.as_array());
    let owners = other.value.pointer("/metadata/ownerReferences");
    Some(Workload {
        meta: plain(other, template, kind),
        account: text(spec, "/serviceAccountName").or_else(|| text(spec, "/serviceAccount")),
        ports: ports
            .flatten()
            .filter_map(|one| port(one, "containerPort"))
            .collect(),
        containers: containers.iter().map(named).collect(),
        owned: kind != "Pod" && owners.is_some(),
    })
}

fn number(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok().filter(|port| *port > 0)
}

fn port(value: &Value, field: &str) -> Option<Port> {
    let target = value.get("targetPort").and_then(|target| match target {
        Value::String(name) => Some(Target::Name(name.clone())),
        other => number(other).map(Target::Number),
    });
    Some(Port {
        number: number(value.get(field)?)?,
        name: text(value, "/name"),
        app_protocol: text(value, "/appProtocol"),
        target,
    })
}

fn service(other: &Other) -> Service {
    let value = &other.value;
    let ports = value.pointer("/spec/ports").and_then(Value::as_array);
    Service {
        meta: plain(other, "", "Service"),
        kind: text(value, "/spec/type").unwrap_or_else(|| "ClusterIP".to_owned()),
        keeps_addresses: text(value, "/spec/externalTrafficPolicy").as_deref() == Some("Local"),
        selector: texts(value, "/spec/selector"),
        ports: ports
            .into_iter()
            .flatten()
            .filter_map(|one| port(one, "port"))
            .collect(),
    }
}
