//! A node of Kubernetes without root: the agent attests pods by a process table of the test's, the pods
//! are objects of the in-memory cluster, and their processes are [`Guest`]s.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::agent::{Agent, AgentSetup};
use crate::ca::{Ca, CaSetup};
use crate::cluster::Cluster;
use crate::dir::Dir;
use crate::guest::Guest;
use crate::local::{NODE, Table, cgroup};
use crate::nodes::{NODE_ACCOUNT, identity, trusting};
use crate::wait::{SOON, until, until_some};

/// A pod of the node, as it was made.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its service account.
    pub account: String,
    /// Uid of the object.
    pub uid: String,
    /// Its first container.
    pub container: String,
}

impl Pod {
    /// The identity of its account.
    #[must_use]
    pub fn id(&self) -> String {
        identity(&self.namespace, &self.account)
    }
}

/// A container that no other has: 64 digits, as runtimes make them.
#[must_use]
pub fn container() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:064x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The status of a container that runs.
#[must_use]
pub fn running(name: &str, container: &str) -> Value {
    json!({
        "name": name, "image": "none", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("containerd://{container}"), "state": {"running": {}},
    })
}

/// Makes namespace and service account where they are missing.
///
/// # Panics
/// When the cluster refuses.
pub fn account(cluster: &Cluster, (namespace, account): (&str, &str)) {
    if cluster.get("namespaces", "", namespace).is_none() {
        cluster.api.create_namespace(namespace).expect("namespace");
    }
    if cluster.get("serviceaccounts", namespace, account).is_none() {
        cluster
            .api
            .create_service_account(namespace, account)
            .expect("service account");
    }
}

/// A pod of an account, which must be there, with these container statuses, on [`NODE`].
///
/// # Panics
/// When the cluster refuses.
#[must_use]
pub fn pod(cluster: &Cluster, (namespace, account): (&str, &str), name: &str, containers: &Value) -> Pod {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "serviceAccountName": account, "nodeName": NODE,
            "containers": [{"name": "main", "image": "none"}],
        },
        "status": {"phase": "Running", "containerStatuses": containers},
    });
    let object = cluster.api.put(object).expect("a pod");
    let first = object["status"]["containerStatuses"][0]["containerID"].as_str();
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        account: account.into(),
        uid: object["metadata"]["uid"].as_str().expect("its uid").to_owned(),
        container: first.map_or_else(container, |text| text.replace("containerd://", "")),
    }
}

/// The node with everything around it. Processes end first, the cluster last.
#[derive(Debug)]
pub struct Node {
    /// Its agent.
    pub agent: Agent,
    /// The CA, which trusts the agent's account.
    pub ca: Ca,
    /// Which process is of which pod.
    pub table: Table,
    /// The cluster.
    pub cluster: Cluster,
    logs: Dir,
}

impl Node {
    /// A node whose SVIDs live so long, and a CA that issues such.
    pub async fn start(ttl: &str) -> Self {
        let cluster = Cluster::start();
        let ca = trusting(&cluster).set("min_svid_ttl", "10s");
        Self::on(cluster, ca, |agent| agent.set("svid_ttl", ttl)).await
    }

    /// As [`Node::start`], with any cluster and CA, and an agent as `change` would have it.
    pub async fn on(cluster: Cluster, ca: CaSetup, change: impl FnOnce(AgentSetup) -> AgentSetup) -> Self {
        let ca = ca.start().await;
        let table = Table::default();
        let agent = Self::agent(&cluster, &ca, &table).await;
        let agent = change(agent).start().await;
        Self {
            agent,
            ca,
            table,
            cluster,
            logs: Dir::new(),
        }
    }

    /// The agent of [`NODE`], by this process table, in a pod of its own.
    pub async fn agent(cluster: &Cluster, ca: &Ca, table: &Table) -> AgentSetup {
        account(cluster, NODE_ACCOUNT);
        let name = format!("{}-0", NODE_ACCOUNT.1);
        let own = pod(
            cluster,
            NODE_ACCOUNT,
            &name,
            &json!([running("agent", &container())]),
        );
        AgentSetup::new(cluster, ca, NODE_ACCOUNT.0, NODE_ACCOUNT.1)
            .await
            .set("attestor", "kubernetes")
            .set("node_name", NODE)
            .set("pod_uid", own.uid)
            .set("kubeconfig", cluster.kubeconfig().display().to_string())
            .set("host_proc", table.path().display().to_string())
    }

    /// A running pod with one container; its account is made if missing.
    #[must_use]
    pub fn run(&self, of: (&str, &str), name: &str) -> Pod {
        account(&self.cluster, of);
        pod(&self.cluster, of, name, &json!([running("main", &container())]))
    }

    /// Takes a pod away, as the kubelet does when nothing of it runs any more.
    ///
    /// # Panics
    /// When the cluster refuses.
    pub fn delete(&self, pod: &Pod) {
        self.cluster
            .api
            .delete_pod(&pod.namespace, &pod.name)
            .expect("deleted");
    }

    /// A process in the first container of a pod.
    #[must_use]
    pub fn guest(&self, pod: &Pod) -> Guest {
        self.guest_in(&cgroup(&pod.uid, &pod.container))
    }

    /// A process with these cgroups.
    #[must_use]
    pub fn guest_in(&self, cgroup: &str) -> Guest {
        let guest = Guest::start(self.logs.path(), &self.agent.socket());
        self.table.show(guest.pid(), cgroup);
        guest
    }

    /// What the agent says of the SVID of an identity, if one is served.
    pub async fn kept(&self, id: &str) -> Option<Value> {
        let page = self.agent.admin().get("/v1/svids").await;
        let svids = page["svids"].as_array().cloned().unwrap_or_default();
        svids.into_iter().find(|svid| svid["spiffe_id"] == id)
    }

    /// As [`Node::kept`], once it is there.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn wait_kept(&self, id: &str) -> Value {
        let what = format!("an SVID of {id}");
        until_some(&what, SOON, async || self.kept(id).await).await
    }

    /// Starts the agent again after its process ended; nothing is waited for.
    pub fn spawn_agent(&mut self) {
        self.agent.process = self.agent.setup.spawn();
    }

    /// Waits until the agent knows so many pods, its own among them.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn wait_pods(&self, count: u32) {
        let what = format!("{count} pods at the agent");
        until(&what, SOON, async || {
            let known = self.agent.scrape().await.value("signet_agent_pods", &[]);
            (known - f64::from(count)).abs() < 0.5
        })
        .await;
    }
}
