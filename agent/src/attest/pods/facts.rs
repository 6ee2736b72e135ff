//! What is taken from a Pod object: who it is, whose account it runs under, which containers it has and
//! whether they still run. The rest of the object is not even decoded.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::ObjectMeta;
use kube::core::Object;
use serde::Deserialize;

use crate::attest::cgroup::{ContainerId, PodUid};
use crate::policy::protocols::PodPort;

/// Most named ports of one pod that are kept.
const MAX_PORTS: usize = 256;

/// A Pod as it is decoded from the wire.
pub type PodObject = Object<Spec, Status>;

/// The part of a pod's specification that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    service_account_name: Option<String>,
    node_name: Option<String>,
    containers: Option<Vec<ContainerSpec>>,
    init_containers: Option<Vec<ContainerSpec>>,
}

/// The part of a container's specification that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerSpec {
    ports: Option<Vec<PortSpec>>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortSpec {
    name: Option<String>,
    container_port: u16,
    protocol: Option<String>,
}

impl Spec {
    /// Named TCP ports, of containers first: those of init containers are reachable while these run beside them.
    fn named_ports(&self) -> Vec<PodPort> {
        let containers = [&self.containers, &self.init_containers];
        let all = containers.into_iter().flatten().flatten();
        let ports = all.filter_map(|container| container.ports.as_ref()).flatten();
        let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        let named = tcp.filter_map(|port| {
            let name = port.name.clone().filter(|name| !name.is_empty())?;
            let number = port.container_port;
            Some(PodPort { name, number })
        });
        named.take(MAX_PORTS).collect()
    }
}

/// The part of a pod's status that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    phase: Option<String>,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

/// The part of a container's status that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    state: Option<ContainerState>,
}

impl ContainerStatus {
    fn is_terminated(&self) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
    }
}

/// Only the one state matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    terminated: Option<serde::de::IgnoredAny>,
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Uid of the object.
    pub uid: PodUid,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Service account; empty for a mirror of a static pod.
    pub account: String,
    /// Its labels, by which policies select it.
    pub labels: BTreeMap<String, String>,
    /// Its containers, of every kind, that have an id.
    pub containers: BTreeSet<ContainerId>,
    /// Its named TCP ports.
    pub ports: Vec<PodPort>,
    /// Whether nothing of it runs any more and nothing will: it succeeded, failed, or is being deleted and
    /// all its containers have terminated.
    pub over: bool,
}

/// Why an object is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// It has no uid of the usual form.
    #[error("it has no uid of the form 8-4-4-4-12")]
    Uid,
    /// It has no name or namespace.
    #[error("it has no name or namespace")]
    Name,
    /// It is of another node: the selector was not obeyed.
    #[error("it is not of this node")]
    Node,
}

/// Uid of an object.
///
/// # Errors
/// [`FactsError::Uid`].
pub fn uid(meta: &ObjectMeta) -> Result<PodUid, FactsError> {
    meta.uid.as_deref().and_then(PodUid::parse).ok_or(FactsError::Uid)
}

/// The facts of `pod`, which must be of `node`.
///
/// # Errors
/// A [`FactsError`].
pub fn facts(pod: PodObject, node: &str) -> Result<PodFacts, FactsError> {
    let uid = uid(&pod.metadata)?;
    if pod.spec.node_name.as_deref() != Some(node) {
        return Err(FactsError::Node);
    }
    let being_deleted = pod.metadata.deletion_timestamp.is_some();
    let (Some(namespace), Some(name)) = (pod.metadata.namespace, pod.metadata.name) else {
        return Err(FactsError::Name);
    };
    let status = pod.status.unwrap_or_default();
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let statuses: Vec<ContainerStatus> = [
        status.container_statuses,
        status.init_container_statuses,
        status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .collect();
    // A container that waits to be started keeps the pod alive; the kubelet starts none in a pod that is
    // being deleted, and then shows it as terminated.
    let stopped = !statuses.is_empty() && statuses.iter().all(ContainerStatus::is_terminated);
    Ok(PodFacts {
        uid,
        namespace,
        name,
        ports: pod.spec.named_ports(),
        account: pod.spec.service_account_name.unwrap_or_default(),
        labels: pod.metadata.labels.unwrap_or_default(),
        containers: statuses
            .iter()
            .filter_map(|s| ContainerId::of_status(s.container_id.as_deref()?))
            .collect(),
        over: ended || (being_deleted && stopped),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "2fc932ce-fdcc-454b-97bd-aadfdeb4c340";

    fn read(pod: Value) -> Result<PodFacts, FactsError> {
        facts(serde_json::from_value(pod).unwrap(), "n1")
    }

    fn pod() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"uid": UID, "namespace": "shop", "name": "cart-0", "labels": {"a": "b"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "cart", "hostNetwork": true, "containers": [
                {"name": "app", "ports": [{"containerPort": 80}, {"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
            ], "initContainers": [{"name": "init", "ports": [{"name": "side", "containerPort": 9}]}]},
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {"name": "app", "containerID": format!("containerd://{}", "a".repeat(64)), "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
                    {"name": "late", "state": {"waiting": {"reason": "ContainerCreating"}}},
                ],
                "initContainerStatuses": [{"name": "init", "containerID": format!("cri-o://{}", "b".repeat(64)), "state": {"terminated": {"exitCode": 0}}}],
                "ephemeralContainerStatuses": [{"name": "debug", "containerID": format!("docker://{}", "c".repeat(64)), "state": {"running": {}}}],
            },
        })
    }

    #[test]
    fn containers_of_every_kind_and_runtime_are_the_pods() {
        let facts = read(pod()).unwrap();
        let ids: Vec<String> = facts.containers.iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["a", "b", "c"].map(|c| c.repeat(64)));
        assert_eq!(
            (facts.namespace.as_str(), facts.account.as_str(), facts.over),
            ("shop", "cart", false)
        );
        let ports: Vec<(&str, u16)> = facts
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.number))
            .collect();
        assert_eq!(ports, [("http", 8080), ("side", 9)]);
    }

    #[test]
    fn a_pod_being_deleted_lives_until_its_last_container_has_terminated() {
        let mut pod = pod();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!read(pod.clone()).unwrap().over);
        let done = json!({"terminated": {"exitCode": 0}});
        for kind in [
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ] {
            for status in pod["status"][kind].as_array_mut().unwrap() {
                status["state"] = done.clone();
            }
        }
        assert!(read(pod.clone()).unwrap().over);
        // Without statuses nothing is known to have ended; without deletion they may be started again.
        let mut bare = pod.clone();
        bare["status"] = json!({"phase": "Pending"});
        assert!(!read(bare).unwrap().over);
        pod["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("deletionTimestamp");
        assert!(!read(pod).unwrap().over);
    }

    #[test]
    fn a_pod_that_succeeded_or_failed_is_over() {
        for phase in ["Succeeded", "Failed"] {
            let mut pod = pod();
            pod["status"]["phase"] = json!(phase);
            assert!(read(pod).unwrap().over, "{phase}");
        }
    }

    #[test]
    fn a_pod_without_status_or_account_is_read() {
        let mut pod = pod();
        pod.as_object_mut().unwrap().remove("status");
        pod["spec"] = json!({"nodeName": "n1"});
        let facts = read(pod).unwrap();
        assert!(facts.account.is_empty() && facts.containers.is_empty() && !facts.over);
    }

    #[test]
    fn objects_of_another_node_or_without_uid_are_left_out() {
        let mut other = pod();
        other["spec"]["nodeName"] = json!("n2");
        assert_eq!(read(other), Err(FactsError::Node));
        let mut odd = pod();
        odd["metadata"]["uid"] = json!("cart");
        assert_eq!(read(odd), Err(FactsError::Uid));
        let mut nameless = pod();
        nameless["metadata"].as_object_mut().unwrap().remove("name");
        assert_eq!(read(nameless), Err(FactsError::Name));
    }
}
