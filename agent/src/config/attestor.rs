//! Who gets which identity: the keys of the attestors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use signet_certs::{ServiceAccountId, TrustDomain};
use signet_runtime::config::Faults;

use super::{Raw, RawPolicies};
use crate::attest::{Settings, UnixRule};

/// The agent's own identity for everybody admitted.
pub(super) const OWN: &str = "own";
/// Processes by the rules in `workloads`.
pub(super) const UNIX: &str = "unix";
/// The pods of this node.
pub(super) const KUBERNETES: &str = "kubernetes";

/// Most uids that may be admitted. A pod has a handful of containers.
const MAX_UIDS: usize = 64;
/// Most rules. Each may make a process ask the kernel for a file.
const MAX_RULES: usize = 256;
/// Longest hint; it is a word for people and programs, not a document.
const MAX_HINT_BYTES: usize = 128;
/// Longest name of a node, as Kubernetes has it.
const MAX_NODE_NAME_BYTES: usize = 253;

/// One of `workloads` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    service_account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
}

/// What the file calls it.
pub(super) fn name(settings: &Settings) -> &'static str {
    match settings {
        Settings::Own { .. } => OWN,
        Settings::Unix { .. } => UNIX,
        Settings::Kubernetes { .. } => KUBERNETES,
    }
}

/// The attestor's settings; `domain` is missing when it is faulty itself.
pub(super) fn settings(raw: &Raw, domain: Option<&TrustDomain>, faults: &mut Faults) -> Option<Settings> {
    let name = raw.attestor.as_deref().unwrap_or_default();
    if ![OWN, UNIX, KUBERNETES].contains(&name) {
        faults.add(
            "attestor",
            format!("{name:?} is not one of \"own\", \"unix\", \"kubernetes\""),
        );
        return None;
    }
    idle_keys(raw, name, faults);
    match name {
        OWN => Some(own(raw, faults)),
        UNIX => {
            let rules = rules(raw, domain, faults);
            let host_proc = host_proc(raw, faults)?;
            rules.map(|rules| Settings::Unix { host_proc, rules })
        }
        _ => kubernetes(raw, faults),
    }
}

/// A key that has no effect is a misunderstanding.
fn idle_keys(raw: &Raw, name: &str, faults: &mut Faults) {
    let policies = raw.policies.as_ref().is_some_and(RawPolicies::is_kubernetes);
    for (key, written, reader) in [
        ("allowed_uids", raw.allowed_uids.is_some(), &[OWN][..]),
        ("workloads", raw.workloads.is_some(), &[UNIX]),
        ("host_proc", raw.host_proc.is_some(), &[UNIX, KUBERNETES]),
        ("node_name", raw.node_name.is_some(), &[KUBERNETES]),
        ("pod_uid", raw.pod_uid.is_some(), &[KUBERNETES]),
        ("kubeconfig", raw.kubeconfig.is_some() && !policies, &[KUBERNETES]),
    ] {
        if written && !reader.contains(&name) {
            let readers = reader.join(" and ");
            faults.add(
                key,
                format!("has no effect with attestor: {name}; it belongs to {readers}"),
            );
        }
    }
}

fn own(raw: &Raw, faults: &mut Faults) -> Settings {
    let allowed_uids = raw.allowed_uids.clone().unwrap_or_default();
    if allowed_uids.len() > MAX_UIDS {
        faults.add(
            "allowed_uids",
            format!("has {} entries, at most {MAX_UIDS} are read", allowed_uids.len()),
        );
    }
    Settings::Own { allowed_uids }
}

fn host_proc(raw: &Raw, faults: &mut Faults) -> Option<PathBuf> {
    let path = raw.host_proc.clone()?;
    if !path.is_absolute() {
        faults.add(
            "host_proc",
            format!("{} must be an absolute path", path.display()),
        );
    }
    Some(path)
}

fn rules(raw: &Raw, domain: Option<&TrustDomain>, faults: &mut Faults) -> Option<Vec<UnixRule>> {
    let written = raw.workloads.as_deref().unwrap_or_default();
    if written.is_empty() {
        faults.add(
            "workloads",
            "names no workload; write a list such as [{service_account: shop/cart, uid: 1001}]",
        );
    }
    if written.len() > MAX_RULES {
        faults.add(
            "workloads",
            format!("has {} entries, at most {MAX_RULES} are read", written.len()),
        );
        return None;
    }
    let mut rules = Vec::with_capacity(written.len());
    for (place, rule) in written.iter().enumerate() {
        rules.extend(check(rule, &format!("workloads[{place}]"), domain, faults));
    }
    for (place, rule) in rules.iter().enumerate() {
        let differs = |other: &UnixRule| other.id == rule.id && other.labels != rule.labels;
        if rules.iter().take(place).any(differs) {
            let text = "labels: another rule gives this service account other labels; give it the same ones";
            faults.add(&format!("workloads[{place}]"), text);
        }
    }
    Some(rules)
}

fn check(rule: &RawRule, key: &str, domain: Option<&TrustDomain>, faults: &mut Faults) -> Option<UnixRule> {
    if rule.uid.is_none() && rule.gid.is_none() && rule.executable.is_none() {
        faults.add(
            key,
            "asks for nothing, so every process would match; give uid, gid or executable",
        );
    }
    if let Some(path) = rule.executable.as_ref().filter(|path| !path.is_absolute()) {
        faults.add(
            key,
            format!("executable: {} must be an absolute path", path.display()),
        );
    }
    let bad_hint =
        |hint: &&String| hint.is_empty() || hint.len() > MAX_HINT_BYTES || hint.contains(char::is_control);
    if rule.hint.as_ref().filter(bad_hint).is_some() {
        faults.add(
            key,
            format!("hint: must have 1 to {MAX_HINT_BYTES} bytes and no control characters"),
        );
    }
    let account = match rule.service_account.split_once('/') {
        Some((namespace, name)) => {
            let account = ServiceAccountId::new(namespace, name);
            faults.take(key, account.map_err(|e| format!("service_account: {e}")))
        }
        None => {
            let text = format!(
                "service_account: {:?} is not namespace/name, as in shop/cart",
                rule.service_account
            );
            faults.add(key, text);
            None
        }
    };
    Some(UnixRule {
        id: account?.spiffe_id(domain?),
        uid: rule.uid,
        gid: rule.gid,
        executable: rule.executable.clone(),
        hint: rule.hint.clone(),
        labels: rule.labels.clone().unwrap_or_default(),
    })
}

fn kubernetes(raw: &Raw, faults: &mut Faults) -> Option<Settings> {
    let host_proc = host_proc(raw, faults);
    let fits = |name: &&String| !name.is_empty() && name.len() <= MAX_NODE_NAME_BYTES;
    let node_name = raw.node_name.as_ref().filter(fits).cloned();
    if node_name.is_none() {
        faults.add(
            "node_name",
            "is not known; give the pod the environment variable NODE_NAME from spec.nodeName, or set the key",
        );
    }
    if raw.pod_uid.as_ref().is_some_and(String::is_empty) {
        faults.add(
            "pod_uid",
            "is empty; it is the uid of the agent's own pod, from metadata.uid",
        );
    }
    Some(Settings::Kubernetes {
        host_proc: host_proc?,
        node_name: node_name?,
        pod_uid: raw.pod_uid.clone(),
        kubeconfig: raw.kubeconfig.clone(),
    })
}
