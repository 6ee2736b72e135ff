//! The agent's watch of pods at a real API server, with the rights of `deploy/agent-node`: they are
//! enough, and each of them is needed.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use signet_agent::attest::Wanted;
use signet_agent::attest::pods::Reader;
use signet_agent::attest::pods::api::watch_client;
use signet_agent::attest::pods::watch::{Parts, PodWatch};
use signet_agent::metrics::{Metrics, Reason};
use signet_runtime::SystemClock;
use signet_tests::dir::Dir;
use signet_tests::kube::api_server::{ApiServer, shared};
use signet_tests::kube::install::{create, token};
use signet_tests::kube::manifests::{of, yaml};
use signet_tests::wait::{SOON, until};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is needed to watch; the rest belongs to pods.
const NEEDED: [&str; 4] = ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"];

/// The agent's watch of the pods of `node`.
struct Agent {
    pods: Reader,
    wanted: watch::Receiver<Arc<Wanted>>,
    metrics: Metrics,
    running: JoinHandle<()>,
    _dir: Dir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Installs the deployed account and rights as `name`, the rules as `change` would have them; answers a
/// kubeconfig of that account.
pub(super) async fn install(
    server: &ApiServer,
    name: &str,
    change: impl Fn(&mut Vec<Value>),
) -> (Dir, PathBuf) {
    let admin = server.admin().await;
    for manifest in of("deploy/agent-node")
        .iter()
        .filter(|m| NEEDED.contains(&m.kind()))
    {
        let mut object = yaml(&manifest.text.replace("signet-node", name));
        if manifest.kind().starts_with("ClusterRole") {
            object["metadata"]["name"] = json!(name);
        }
        if manifest.kind() == "ClusterRoleBinding" {
            object["roleRef"]["name"] = json!(name);
        }
        if manifest.kind() == "ClusterRole" {
            change(object["rules"].as_array_mut().unwrap());
        }
        create(&admin, &object).await;
    }
    let dir = Dir::new();
    let token = token(&admin, name, "signet-agent", &[], None).await;
    let kubeconfig = dir.write_secret("kubeconfig", server.kubeconfig(&token));
    (dir, kubeconfig)
}

impl Agent {
    /// Installs the deployed account and rights as `name`, without the verb `missing`, and watches with them.
    async fn start(server: &ApiServer, name: &str, missing: Option<&str>, node: &str) -> Self {
        let (dir, kubeconfig) = install(server, name, |rules| {
            let verbs = rules[0]["verbs"].as_array_mut().unwrap();
            verbs.retain(|verb| missing.is_none_or(|missing| verb != missing));
        })
        .await;
        let metrics = Metrics::default();
        let (watch, pods, wanted) = PodWatch::new(Parts {
            client: watch_client(Some(&kubeconfig)).await.unwrap(),
            node: node.into(),
            own: None,
            domain: "cluster.local".parse().unwrap(),
            clock: Arc::new(SystemClock),
            metrics: metrics.clone(),
        });
        Self {
            pods,
            wanted,
            metrics,
            running: tokio::spawn(watch.run()),
            _dir: dir,
        }
    }

    async fn wants(&self, what: &str, expected: &[&str]) {
        until(what, SOON, async || {
            let wanted = self.wanted.borrow().clone();
            let ids: Vec<&str> = wanted.ids.keys().map(|id| id.path()).collect();
            wanted.synced && ids == expected
        })
        .await;
    }

    fn failures(&self, reason: &'static str) -> u64 {
        self.metrics
            .pod_watch_failures
            .get_or_create(&Reason { reason })
            .get()
    }
}

async fn place(admin: &kube::Client, namespace: &str, account: &str, node: &str) {
    let named = json!({"name": account, "namespace": namespace});
    create(
        admin,
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named}),
    )
    .await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{account}-0"), "namespace": namespace},
        "spec": {"nodeName": node, "serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
    });
    create(admin, &pod).await;
}

#[tokio::test]
async fn with_the_deployed_rights_the_agent_follows_the_pods_of_its_node_and_no_others() {
    let Some(server) = shared().await else { return };
    let (admin, space) = (server.admin().await, "agent-pods");
    let agent = Agent::start(&server, space, None, "agent-pods-n1").await;
    agent.wants("an empty node", &[]).await;
    place(&admin, space, "cart", "agent-pods-n1").await;
    place(&admin, space, "bank", "agent-pods-n2").await;
    agent
        .wants("the pod of this node", &["/ns/agent-pods/sa/cart"])
        .await;
    let pods: Api<Pod> = Api::namespaced(admin.clone(), space);
    let id = "a".repeat(64);
    let running = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "app", "image": "app", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("containerd://{id}"), "state": {"running": {"startedAt": null}},
    }]}});
    pods.patch_status("cart-0", &PatchParams::default(), &Patch::Merge(running))
        .await
        .unwrap();
    let uid = pods.get("cart-0").await.unwrap().metadata.uid.unwrap();
    let uid = signet_agent::attest::cgroup::PodUid::parse(&uid).unwrap();
    until("the container to be seen", SOON, async || {
        let view = agent.pods.view.borrow().clone();
        view.index
            .get(uid)
            .is_some_and(|pod| pod.facts.containers.iter().any(|found| found.to_string() == id))
    })
    .await;
    pods.delete("cart-0", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    agent.wants("its end", &[]).await;
    for reason in ["list", "start", "status", "stream", "version"] {
        assert_eq!(agent.failures(reason), 0, "{reason}");
    }
}

#[tokio::test]
async fn without_any_one_of_the_deployed_rights_the_failures_name_what_is_missing() {
    let Some(server) = shared().await else { return };
    for (missing, reason) in [("list", "list"), ("watch", "start")] {
        let name = format!("agent-without-{missing}");
        let agent = Agent::start(&server, &name, Some(missing), "agent-pods-n3").await;
        until(&format!("a failure to {missing}"), SOON, async || {
            agent.failures(reason) > 1
        })
        .await;
        let synced = agent.wanted.borrow().synced;
        assert_eq!(
            synced,
            missing == "watch",
            "a list alone is complete, and does not go on"
        );
    }
}
