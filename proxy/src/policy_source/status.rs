//! What an operator sees of the source of policies.

use std::collections::BTreeMap;

use serde::Serialize;
use signet_policy::Workload;
use signet_proto::policy::Ports;
use signet_proto::policy::ports::Port;
use signet_runtime::UnixTime;
use signet_runtime::clock::rfc3339;

use super::held::Outstanding;

/// Which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The agent's stream.
    Agent,
    /// A directory.
    Files,
}

/// How the source is, and what it said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// Which one.
    pub source: Source,
    /// The version in force; nothing before the first.
    pub version: Option<String>,
    /// Since when.
    pub since: Option<String>,
    /// Whose policies these are.
    pub namespace: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What is spoken on its ports, by number, as far as the source knows.
    pub ports: BTreeMap<u16, PortView>,
    /// Objects that cannot be read.
    pub faults: Vec<FaultView>,
    /// Why there is no news, as a word and a sentence.
    pub failure: Option<(&'static str, String)>,
}

/// What is spoken on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortView {
    /// `http`, `http2` or `tcp`.
    pub protocol: &'static str,
    /// Who says so.
    pub origin: String,
    /// Whether others say otherwise; then it is judged as HTTP.
    pub disputed: bool,
}

/// An object that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultView {
    /// The object, or the document.
    pub policy: String,
    /// Where it came from.
    pub origin: String,
    /// What is in force instead: `last_good`, or what it counts as.
    pub state: &'static str,
    /// What is wrong with it.
    pub faults: Vec<String>,
}

impl PolicyStatus {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            version: None,
            since: None,
            namespace: None,
            labels: BTreeMap::new(),
            ports: BTreeMap::new(),
            faults: Vec::new(),
            failure: None,
        }
    }

    pub(super) fn ports(&mut self, ports: &Ports) {
        let view = |port: &Port| PortView {
            protocol: port.spoken.as_str(),
            origin: port.origin.clone(),
            disputed: port.disputed,
        };
        self.ports = ports.iter().map(|(number, port)| (*number, view(port))).collect();
    }

    pub(super) fn in_force(
        &mut self,
        version: &str,
        workload: &Workload,
        outstanding: &[Outstanding],
        now: UnixTime,
    ) {
        self.version = Some(version.to_owned());
        self.since = Some(rfc3339(now));
        self.namespace = Some(workload.namespace.clone());
        self.labels.clone_from(&workload.labels);
        self.failure = None;
        self.faults = outstanding
            .iter()
            .map(|object| FaultView {
                policy: object.name.to_string(),
                origin: object.origin.clone(),
                state: object.state(),
                faults: object.faults.clone(),
            })
            .collect();
    }
}
