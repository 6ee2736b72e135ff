//! What a node's agent says of its workloads and of federation, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::wire::Failure;
use crate::times::Moment;

/// `GET /v1/workloads`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workloads {
    /// Who tells workloads apart: `own`, `unix` or `kubernetes`.
    pub attestor: String,
    /// One per workload and identity, in a stable order.
    pub workloads: Vec<Workload>,
}

/// One identity of one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// `pod`, `process`, `own`, or `identity` for one that nobody uses now.
    pub kind: String,
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// Name of the pod.
    pub pod: Option<String>,
    /// UID of the pod.
    pub pod_uid: Option<String>,
    /// Process id.
    pub pid: Option<u32>,
    /// User of the process.
    pub uid: Option<u32>,
    /// The file the process runs, where that is asked for.
    pub executable: Option<String>,
    /// Service account, as `namespace/name`.
    pub account: Option<String>,
    /// The identity, once it is known.
    pub spiffe_id: Option<String>,
    /// `served`, `waiting` or `lingering`.
    pub state: String,
    /// Open streams by kind; a kind without any is left out.
    #[serde(default)]
    pub clients: BTreeMap<String, u64>,
    /// When the agent got its SVID.
    pub received_at: Option<Moment>,
    /// Seconds since then.
    pub age_seconds: Option<u64>,
    /// Last second of its validity.
    pub not_after: Option<Moment>,
    /// When the agent asks for the next one.
    pub renews_at: Option<Moment>,
    /// Successful renewals so far.
    #[serde(default)]
    pub renewals: u64,
    /// The last failure since the last success.
    pub last_failure: Option<Failure>,
}

/// `GET /v1/federation` of an agent or a CA.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Federation {
    /// The own trust domain.
    pub trust_domain: String,
    /// Sequence of its bundle; only an agent says it here.
    pub sequence: Option<u64>,
    /// The foreign ones.
    pub federated: Vec<FederatedDomain>,
}

/// One foreign trust domain. Of a domain whose bundle never came there is only the name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FederatedDomain {
    /// Its name.
    pub trust_domain: String,
    /// Sequence of its bundle.
    pub sequence: Option<u64>,
    /// Its roots.
    pub roots: Option<u64>,
    /// Its JWT keys.
    pub jwt_keys: Option<u64>,
    /// How soon its publisher wants to be asked again.
    pub refresh_hint_seconds: Option<u64>,
    /// When the agent got this version, or the CA last fetched it.
    #[serde(alias = "last_success")]
    pub received_at: Option<Moment>,
    /// When the CA asks again; an agent is told by its CA.
    pub next_poll: Option<Moment>,
    /// Why the last poll gave nothing.
    pub error: Option<String>,
}

/// `GET /v1/policies` of an agent: what it knows of policies, and which proxy has which version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodePolicies {
    /// `kubernetes` or `directory`.
    pub source: String,
    /// The namespace whose policies reach every namespace.
    pub root_namespace: String,
    /// Whether everything is known that there is. Before, nothing is sent.
    pub synced: bool,
    /// How each source is, by what it is of.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceHealth>,
    /// The policies of the node's workloads.
    pub policies: Vec<NodePolicy>,
    /// Services that say what is spoken on ports.
    pub services: Option<u64>,
    /// The key sets of token issuers, where the agent fetches them.
    #[serde(default)]
    pub key_sets: Option<Vec<NodeKeySet>>,
    /// The proxies that are connected.
    pub proxies: Vec<PolicyStream>,
}

/// How one source is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceHealth {
    /// `unknown`, `listed` or `absent`.
    pub state: String,
    /// The version that is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The last failure, unless it went well since: a word and a sentence.
    pub failure: Option<(String, String)>,
}

/// One policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodePolicy {
    /// Its kind, namespace and name.
    pub policy: String,
    /// Its kind, where it can be read.
    pub kind: Option<String>,
    /// Its namespace, where it can be read.
    pub namespace: Option<String>,
    /// Where it came from.
    pub origin: String,
    /// `sound`, or what is in force in its place.
    pub state: String,
    /// What is wrong with it, as sentences.
    #[serde(default)]
    pub faults: Vec<String>,
}

/// The key set of an issuer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeKeySet {
    /// Where it is fetched.
    pub address: String,
    /// How many usable keys the last good one has; nothing before the first.
    pub keys: Option<u64>,
    /// Why the last attempt gave nothing.
    pub failure: Option<String>,
}

/// A proxy that asks for policies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyStream {
    /// What it was attested as.
    pub workload: Option<String>,
    /// What it calls itself; not proven.
    pub node: String,
    /// Its process.
    pub pid: Option<i32>,
    /// Its user.
    pub uid: u32,
    /// The version that was sent last.
    pub version: Option<String>,
    /// The version that it put in force last.
    pub acked: Option<String>,
    /// Why it refused one.
    pub last_nack: Option<String>,
}
