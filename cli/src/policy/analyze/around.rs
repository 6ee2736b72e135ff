//! What stands around policies: workloads that nothing selects, ports of services, accounts, waypoints.

use std::collections::BTreeMap;

use serde_json::Value;
use signet_policy::model::{Attachment, Attribute, Object, ObjectKey, TargetKind, TargetRef, Values};

use super::super::inventory::{Inventory, Plain, Target, Workload};
use super::Findings;
use super::finding::Code;
use super::subject::{Subject, reaches};

/// What concerns waypoints, as labels of namespaces, services and pods.
const WAYPOINT_LABELS: [&str; 4] = [
    "istio.io/use-waypoint",
    "istio.io/use-waypoint-namespace",
    "istio.io/ingress-use-waypoint",
    "istio.io/waypoint-for",
];

pub(super) fn look(findings: &mut Findings<'_>) {
    let evidence = findings.evidence;
    for object in evidence.set.objects() {
        selects_nothing(findings, object);
        let Object::Authorization(policy) = &**object else {
            continue;
        };
        let (key, subjects) = (object.key(), findings.subjects(object));
        for (at, rule) in policy.rules.iter().enumerate() {
            for term in rule.terms() {
                let field = format!("spec.rules[{at}].{}", term.place);
                match (&term.attribute, &term.values) {
                    (Attribute::DestinationPort, Values::Ports(ports)) => {
                        for port in ports {
                            service_port(findings, (&key, &field), (*port, &subjects));
                        }
                    }
                    (Attribute::SourceIp, _) => balancer(findings, (&key, &field), &subjects),
                    _ => {}
                }
            }
        }
    }
    accounts(findings);
    waypoints(findings);
}

fn selects_nothing(findings: &mut Findings<'_>, object: &Object) {
    let evidence = findings.evidence;
    let (key, inventory) = (object.key(), evidence.inventory);
    match object.attachment() {
        Attachment::Everything => {}
        Attachment::Labels(labels) => {
            let root = key.namespace == evidence.mesh.root_namespace;
            let gateway = labels.keys().any(|name| super::rules::is_gateway_label(name));
            if gateway || root && matches!(object, Object::Peer(_)) {
                // These have a finding of their own.
                return;
            }
            let own = |one: &&Workload| root || one.meta.namespace == key.namespace;
            let mut candidates = inventory.real().filter(own).peekable();
            if candidates.peek().is_none()
                || candidates.any(|one| reaches(evidence, object, &one.as_policy()))
            {
                return;
            }
            let labels: Vec<String> = labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            findings.add(
                Code::SelectsNothing,
                (&key, "spec.selector"),
                format!("no workload of namespace {} carries {}", key.namespace, labels.join(",")),
                "select by the labels of the pods (spec.template.metadata.labels), not of the Deployment or Service",
            );
        }
        Attachment::Targets(targets) => names_nothing(findings, &key, targets),
    }
}

/// References to what is not there.
fn names_nothing(findings: &mut Findings<'_>, key: &ObjectKey, targets: &[TargetRef]) {
    let inventory = findings.evidence.inventory;
    for target in targets {
        let (known, word) = match target.kind {
            TargetKind::Service => (
                inventory.services.iter().map(|one| &one.meta).collect(),
                "Service",
            ),
            TargetKind::Gateway => (inventory.gateways.iter().collect::<Vec<_>>(), "Gateway"),
            TargetKind::GatewayClass | TargetKind::ServiceEntry => continue,
        };
        let own: Vec<&&Plain> = known
            .iter()
            .filter(|one| one.namespace == key.namespace)
            .collect();
        if !own.is_empty() && !own.iter().any(|one| one.name == target.name) {
            findings.add(
                Code::SelectsNothing,
                (key, "spec.targetRefs"),
                format!("namespace {} has no {word} {:?}", key.namespace, target.name),
                "correct the name",
            );
        }
    }
}

/// A port that only a service has.
pub(super) fn service_port(
    findings: &mut Findings<'_>,
    at: (&ObjectKey, &str),
    (port, subjects): (u16, &[Subject<'_>]),
) {
    let inventory = findings.evidence.inventory;
    for real in subjects.iter().filter_map(|subject| subject.real) {
        let own = inventory.ports(real);
        if own.is_empty() || own.contains_key(&port) {
            continue;
        }
        for service in inventory.services_of(real) {
            let sent = service.ports.iter().find(|one| one.number == port);
            let target = match sent.and_then(|one| one.target.clone()) {
                Some(Target::Number(number)) => number.to_string(),
                Some(Target::Name(name)) => format!("the one named {name}"),
                None => continue,
            };
            findings.add(
                Code::ServicePort,
                at,
                format!(
                    "{port} is a port of Service {}; the workload's own, which rules are compared with, is {target}",
                    service.meta.name
                ),
                "write the targetPort of the service",
            );
            return;
        }
    }
}

fn balancer(findings: &mut Findings<'_>, at: (&ObjectKey, &str), subjects: &[Subject<'_>]) {
    let inventory = findings.evidence.inventory;
    let mut services = subjects
        .iter()
        .filter_map(|subject| subject.real)
        .flat_map(|real| inventory.services_of(real));
    let hiding =
        services.find(|one| matches!(&*one.kind, "LoadBalancer" | "NodePort") && !one.keeps_addresses);
    if let Some(service) = hiding {
        findings.add(
            Code::BehindBalancer,
            at,
            format!("Service {} is a {}: the address is that of the balancer or of a node", service.meta.name, service.kind),
            "set externalTrafficPolicy: Local, or use remoteIpBlocks with a trusted hop that names the client",
        );
    }
}

pub(super) fn name(one: &Plain) -> String {
    match &*one.namespace {
        "" => format!("{} {}", one.kind, one.name),
        namespace => format!("{} {namespace}/{}", one.kind, one.name),
    }
}

fn accounts(findings: &mut Findings<'_>) {
    let evidence = findings.evidence;
    if evidence.policies().next().is_none() {
        return;
    }
    let mut owners: BTreeMap<(&str, &str), Vec<&Workload>> = BTreeMap::new();
    for workload in evidence.inventory.real() {
        let account = workload.account.as_deref().unwrap_or("default");
        let at = (
            name(&workload.meta),
            "spec.serviceAccountName".to_owned(),
            Some(workload.meta.place.clone()),
        );
        if account == "default" {
            let problem =
                "it runs as the default account, which every pod of the namespace has that names none";
            let fix = "give it a ServiceAccount of its own, and name that in policies";
            findings.put(Code::DefaultAccount, at, (problem.to_owned(), fix));
            continue;
        }
        let sharing = owners.entry((&workload.meta.namespace, account)).or_default();
        match sharing
            .iter()
            .find(|other| other.common_labels() != workload.common_labels())
        {
            Some(other) => {
                let other = name(&other.meta);
                let problem =
                    format!("it runs as {account}, as {other} does: policies cannot tell them apart");
                findings.put(
                    Code::SharedAccount,
                    at,
                    (problem, "give each workload a ServiceAccount of its own"),
                );
            }
            None => sharing.push(workload),
        }
    }
}

fn waypoints(findings: &mut Findings<'_>) {
    let inventory = findings.evidence.inventory;
    for one in labelled(inventory) {
        let at = |field: String| (name(one), field, Some(one.place.clone()));
        let of_istio = |key: &str| key.contains("waypoint") && key.split('/').next().is_some_and(is_istio);
        for key in one.labels.keys().filter(|key| of_istio(key)) {
            if !WAYPOINT_LABELS.contains(&key.as_str()) {
                let problem = format!("label {key} means nothing: traffic does not go through the waypoint");
                let fix = "write istio.io/use-waypoint: NAME";
                findings.put(
                    Code::WaypointLabel,
                    at(format!("metadata.labels[{key}]")),
                    (problem, fix),
                );
            }
        }
        for key in one.annotations.keys().filter(|key| of_istio(key)) {
            let problem = format!("{key} is an annotation here, and counts as a label only");
            let fix = "move it to metadata.labels, as istio.io/use-waypoint: NAME";
            findings.put(
                Code::WaypointLabel,
                at(format!("metadata.annotations[{key}]")),
                (problem, fix),
            );
        }
    }
    let documents = findings.evidence.documents;
    for other in &documents.others {
        if other.value.get("kind").and_then(Value::as_str) == Some("Waypoint") {
            let name = other
                .value
                .pointer("/metadata/name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let problem = "there is no such kind".to_owned();
            let fix = "a waypoint is a Gateway of gatewayClassName: istio-waypoint; name it by istio.io/use-waypoint";
            let at = (
                format!("Waypoint {name}"),
                "kind".to_owned(),
                Some(other.place.clone()),
            );
            findings.put(Code::WaypointLabel, at, (problem, fix));
        }
    }
}

fn is_istio(domain: &str) -> bool {
    domain == "istio.io" || domain.ends_with(".istio.io")
}

/// Everything with labels that waypoints heed.
fn labelled(inventory: &Inventory) -> impl Iterator<Item = &Plain> {
    let workloads = inventory.real().map(|one| &one.meta);
    let services = inventory.services.iter().map(|one| &one.meta);
    inventory.namespaces.iter().chain(services).chain(workloads)
}
