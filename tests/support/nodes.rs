//! Node agents and what they ask for: pods on nodes, their tokens, and requests as ztunnel sends them.

use serde_json::json;
use signet_devcluster::{PodSpec, TokenSpec};

use crate::agent::{Agent, AgentSetup};
use crate::ca::{Ca, CaSetup};
use crate::client::Ask;
use crate::cluster::{AUDIENCE, Cluster};
use crate::csrs;

/// Namespace and name of the trusted node account.
pub const NODE_ACCOUNT: (&str, &str) = ("signet-system", "signet-agent");

/// A CA that trusts [`NODE_ACCOUNT`].
#[must_use]
pub fn trusting(cluster: &Cluster) -> CaSetup {
    let account = format!("{}/{}", NODE_ACCOUNT.0, NODE_ACCOUNT.1);
    CaSetup::new(cluster).set("trusted_node_accounts", vec![account])
}

/// The agent of a node, with the cluster's policies for its workloads. Whatever runs as our own user is the workload
/// `data/backend`, with the label `app: backend`. The CA has to trust [`NODE_ACCOUNT`].
pub async fn with_policies(cluster: &Cluster, ca: &Ca) -> Agent {
    cluster.workload("data", "backend");
    let rule = json!({
        "service_account": "data/backend", "uid": signet_runtime::socket::own_uid(), "labels": {"app": "backend"},
    });
    AgentSetup::new(cluster, ca, NODE_ACCOUNT.0, NODE_ACCOUNT.1)
        .await
        .set("attestor", "unix")
        .set("workloads", vec![rule])
        .set("kubeconfig", cluster.kubeconfig().display().to_string())
        .set("policies", json!({"source": "kubernetes"}))
        .start()
        .await
}

/// A running pod of an account on a node; what is missing for it is made.
///
/// # Panics
/// When the cluster refuses.
pub fn pod(cluster: &Cluster, (namespace, account): (&str, &str), name: &str, node: Option<&str>) {
    if cluster.get("namespaces", "", namespace).is_none() {
        cluster.api.create_namespace(namespace).expect("namespace");
    }
    if cluster.get("serviceaccounts", namespace, account).is_none() {
        cluster
            .api
            .create_service_account(namespace, account)
            .expect("service account");
    }
    let spec = PodSpec::new(namespace, name).service_account(account);
    let spec = match node {
        Some(node) => spec.node(node),
        None => spec,
    };
    cluster.api.create_pod(spec).expect("pod");
}

/// The name of the agent's pod on a node.
#[must_use]
pub fn agent_pod(node: &str) -> String {
    format!("agent-{node}")
}

/// The token of the agent's pod on `node`; the pod is made.
#[must_use]
pub fn agent(cluster: &Cluster, node: &str) -> String {
    pod(cluster, NODE_ACCOUNT, &agent_pod(node), Some(node));
    agent_token(cluster, node)
}

/// A token of the agent's pod on `node`, as that pod is now.
#[must_use]
pub fn agent_token(cluster: &Cluster, node: &str) -> String {
    let (namespace, account) = NODE_ACCOUNT;
    let spec = TokenSpec::new(namespace, account).audience(AUDIENCE);
    cluster.mint(&spec.pod(agent_pod(node)))
}

/// The identity of an account.
#[must_use]
pub fn identity(namespace: &str, account: &str) -> String {
    format!("spiffe://cluster.local/ns/{namespace}/sa/{account}")
}

/// A node asks for `id` as ztunnel does: P-256, no subject, the wanted name as the one URI of the CSR, a
/// day, and the name again beside it.
#[must_use]
pub fn asking(token: &str, id: &str) -> Ask {
    Ask::csr(csrs::with_uris(&[id]))
        .token(token)
        .header("clusterid", "Kubernetes")
        .metadata("ImpersonatedIdentity", id)
        .seconds(86_400)
}
