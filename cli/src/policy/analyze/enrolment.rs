//! Pods that policies reach and no proxy guards. Labels that enrol pods in an Istio mean nothing here: where its
//! proxies run, the pods show it.

use std::collections::BTreeMap;

use signet_policy::model::{Attachment, Object, Rule};

use super::super::inventory::{Workload, carries};
use super::Findings;
use super::around::name;
use super::finding::Code;
use super::subject::reaches;

/// What enrols pods in an Istio's ambient mode, as a label.
const AMBIENT: (&str, &str) = ("istio.io/dataplane-mode", "ambient");
/// What has an Istio inject its sidecar, as a label; of the last one any value.
const INJECTED: [(&str, &str); 3] = [
    ("istio-injection", "enabled"),
    ("sidecar.istio.io/inject", "true"),
    ("istio.io/rev", ""),
];

pub(super) fn look(findings: &mut Findings<'_>) {
    let workloads: Vec<&Workload> = findings.evidence.inventory.real().collect();
    for workload in workloads {
        if guarded(findings, workload) {
            continue;
        }
        not_enrolled(findings, workload);
        if labels(findings, workload).get(AMBIENT.0).copied() == Some(AMBIENT.1) {
            http_in_ambient(findings, workload);
        }
    }
}

/// Whether its pods have a proxy: those that it would make, or those of it that are there.
fn guarded(findings: &Findings<'_>, workload: &Workload) -> bool {
    let mut all = findings.evidence.inventory.workloads.iter();
    workload.has_proxy()
        || all.any(|pod| {
            pod.meta.kind == "Pod"
                && pod.meta.namespace == workload.meta.namespace
                && !workload.meta.labels.is_empty()
                && carries(&pod.meta.labels, &workload.meta.labels)
                && pod.has_proxy()
        })
}

/// The labels that enrol: those of the pods, before those of the namespace.
fn labels<'e>(findings: &Findings<'e>, workload: &'e Workload) -> BTreeMap<&'e str, &'e str> {
    let namespaces = findings.evidence.inventory.namespaces.iter();
    let own = namespaces.filter(|one| one.name == workload.meta.namespace);
    let all = own.map(|one| &one.labels).chain([&workload.meta.labels]);
    all.flatten().map(|(name, value)| (&**name, &**value)).collect()
}

fn not_enrolled(findings: &mut Findings<'_>, workload: &Workload) {
    let evidence = findings.evidence;
    let policy = workload.as_policy();
    let mut objects = evidence.set.objects();
    let Some(object) = objects.find(|object| reaches(evidence, object, &policy)) else {
        return;
    };
    let labels = labels(findings, workload);
    let enrols = |(name, value): &&(&str, &str)| match labels.get(name) {
        Some(own) => value.is_empty() || own == value,
        None => false,
    };
    let (beside, fix) = match [AMBIENT].iter().chain(&INJECTED).find(enrols) {
        Some((label, _)) => (
            format!("; the label {label} is for an Istio, and enrols nothing here"),
            "run signet-proxy beside the workload, as deploy shows; if an Istio is to guard it, its pods have to show \
             istio-proxy, or suppress this finding",
        ),
        None => (
            String::new(),
            "run signet-proxy beside the workload, as deploy shows; nothing is injected by itself",
        ),
    };
    let problem = format!(
        "{} is meant for it, and no proxy runs in the pod to enforce it{beside}",
        object.key()
    );
    put(findings, Code::NotEnrolled, (workload, problem, fix));
}

/// The first policy with HTTP fields that an Istio's node proxy would be given. What is bound to a waypoint by
/// `targetRefs` reaches no workload, and is the waypoint's.
fn http_in_ambient(findings: &mut Findings<'_>, workload: &Workload) {
    let evidence = findings.evidence;
    let policy = workload.as_policy();
    let http = |rule: &Rule| rule.terms().any(|term| term.attribute.is_http());
    let found = evidence.set.objects().find(|object| match &***object {
        Object::Authorization(one) => {
            !matches!(object.attachment(), Attachment::Targets(_))
                && one.rules.iter().any(http)
                && reaches(evidence, object, &policy)
        }
        Object::Peer(_) | Object::Request(_) => false,
    });
    if let Some(object) = found {
        let problem = format!(
            "{} has HTTP fields, which the node proxy of ambient mode does not see: its ALLOW rules with such fields match \
             nothing there, and its DENY rules may deny nothing",
            object.key()
        );
        let fix = "run signet-proxy beside the workload; or, with an Istio, bind the policy to a waypoint by targetRefs";
        put(findings, Code::HttpInAmbient, (workload, problem, fix));
    }
}

fn put(findings: &mut Findings<'_>, code: Code, (workload, problem, fix): (&Workload, String, &str)) {
    let at = (
        name(&workload.meta),
        "spec.containers".to_owned(),
        Some(workload.meta.place.clone()),
    );
    findings.put(code, at, (problem, fix));
}
