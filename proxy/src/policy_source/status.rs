//! What an operator sees of the source of policies.

use std::collections::BTreeMap;

use serde::Serialize;
use signet_policy::Workload;
use signet_proto::policy::Ports;
use signet_proto::policy::ports::Port;
use signet_runtime::UnixTime;
use signet_runtime::clock::rfc3339;

use super::held::Outstanding;
use super::lost::Lost;
use crate::spoken::{self, Listeners};

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
    /// What of the policies in force cannot be enforced; the page shows it with them.
    #[serde(skip)]
    pub lost: Lost,
    /// Why there is no news, as a word and a sentence.
    pub failure: Option<(&'static str, String)>,
}

/// What is spoken on a port of which Services or the pod say something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortView {
    /// What it is judged as: `http`, `http1`, `http2` or `tcp`.
    pub protocol: &'static str,
    /// Who says so.
    pub origin: String,
    /// Whether others say otherwise; then it is judged as HTTP.
    pub disputed: bool,
}

impl PortView {
    /// What becomes of what Services and pod say with what the configuration says.
    fn of(ports: &Ports, (number, port): (u16, &Port), listeners: &Listeners) -> Self {
        let told = spoken::told(ports, number);
        let mut view = Self {
            protocol: port.spoken.as_str(),
            origin: port.origin.clone(),
            disputed: port.disputed,
        };
        for said in listeners.said(number) {
            let settled = spoken::settle(said, told);
            view.protocol = spoken::word(settled.protocol);
            if let Some(said) = said.filter(|_| settled.disputed) {
                view.disputed = true;
                view.origin += "; but the configuration says ";
                view.origin += spoken::word(said);
            }
        }
        view
    }
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
            lost: Lost::default(),
            failure: None,
        }
    }

    pub(super) fn ports(&mut self, ports: &Ports, listeners: &Listeners) {
        let view = |(number, port): (&u16, &Port)| (*number, PortView::of(ports, (*number, port), listeners));
        self.ports = ports.iter().map(view).collect();
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
