//! A node whose agent follows policies, and the two kinds of proxies that tests look through: the bare messages of a
//! stream, and the reader of a proxy in this process, which the agent attests as a pod's.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use signet_certs::SpiffeId;
use signet_devcluster::ObjectRef;
use signet_policy::{Connection, Gate};
use signet_proto::wire::signet::policy::v1::policy_discovery_client::PolicyDiscoveryClient;
use signet_proto::wire::signet::policy::v1::{PolicySnapshot, StreamPoliciesRequest};
use signet_proxy::config::Config;
use signet_proxy::policy_source::metrics::PolicyMetrics;
use signet_proxy::policy_source::{self, READY, Readers};
use signet_proxy::servers::Servers;
use signet_runtime::http::Readiness;
use signet_runtime::shutdown::Tasks;
use signet_runtime::{Clock, SystemClock};
use signet_tests::cluster::Cluster;
use signet_tests::guest::Guest;
use signet_tests::local::{NODE, cgroup};
use signet_tests::node::{Node, Pod, account, container, running};
use signet_tests::nodes::trusting;
use signet_tests::wait::{SOON, until};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

pub(super) const ROOT: &str = "istio-system";

/// A node whose agent follows policies.
pub(super) async fn node() -> Node {
    let cluster = Cluster::start();
    for namespace in ["shop", "bank", ROOT] {
        cluster.api.create_namespace(namespace).unwrap();
    }
    let ca = trusting(&cluster);
    // Issuers of these tests are at loopback, which is never dialled unless the operator says so.
    let policies = json!({"source": "kubernetes", "jwt": {"allowed_cidrs": ["127.0.0.0/8"]}});
    Node::on(cluster, ca, |agent| agent.set("policies", policies)).await
}

/// A running pod of an account of `shop` with the label `app`.
pub(super) fn run(node: &Node, app: &str) -> Pod {
    account(&node.cluster, ("shop", app));
    labelled(node, app, &json!({"app": app}))
}

pub(super) fn labelled(node: &Node, name: &str, labels: &Value) -> Pod {
    let known = node.cluster.get("pods", "shop", name);
    let container = container();
    let status = match &known {
        Some(pod) => pod["status"].clone(),
        None => json!({"phase": "Running", "containerStatuses": [running("main", &container)]}),
    };
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": labels},
        "spec": {
            "serviceAccountName": name, "nodeName": NODE,
            "containers": [{"name": "main", "image": "none"}],
        },
        "status": status,
    });
    let object = node.cluster.api.put(object).unwrap();
    Pod {
        namespace: "shop".into(),
        name: name.into(),
        account: name.into(),
        uid: object["metadata"]["uid"].as_str().unwrap().to_owned(),
        container,
    }
}

pub(super) fn put(node: &Node, namespace: &str, name: &str, spec: &Value) {
    put_kind(node, "AuthorizationPolicy", namespace, name, spec);
}

pub(super) fn put_kind(node: &Node, kind: &str, namespace: &str, name: &str, spec: &Value) {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    });
    node.cluster.api.put(object).unwrap();
}

pub(super) fn delete(node: &Node, namespace: &str, name: &str) {
    let object = ObjectRef::of("security.istio.io", "authorizationpolicies", namespace, name);
    node.cluster.api.delete(&object).unwrap();
}

pub(super) fn deny_all() -> Value {
    json!({"action": "DENY", "rules": [{}]})
}

/// Denies one namespace and no other, so that it can be told from the strictest reading.
pub(super) fn deny(namespace: &str) -> Value {
    json!({"action": "DENY", "rules": [{"from": [{"source": {"namespaces": [namespace]}}]}]})
}

pub(super) fn bad() -> Value {
    json!({"action": "DENY", "rules": [{"form": []}]})
}

/// A proxy's stream, by its bare messages.
pub(super) struct Client {
    answers: mpsc::Sender<StreamPoliciesRequest>,
    snapshots: Streaming<PolicySnapshot>,
}

impl Client {
    pub(super) async fn open(guest: &Guest) -> Result<Self, Status> {
        let (answers, queue) = mpsc::channel(8);
        let hello = StreamPoliciesRequest {
            proxy: "a-test/1".into(),
            ..StreamPoliciesRequest::default()
        };
        answers.send(hello).await.unwrap();
        let mut client = PolicyDiscoveryClient::new(guest.channel());
        let snapshots = client
            .stream_policies(ReceiverStream::new(queue))
            .await?
            .into_inner();
        Ok(Self { answers, snapshots })
    }

    pub(super) async fn next(&mut self) -> Result<PolicySnapshot, Status> {
        signet_tests::workload::next(&mut self.snapshots).await
    }

    /// Names in the next snapshot.
    pub(super) async fn names(&mut self) -> Vec<String> {
        names(&self.next().await.unwrap())
    }

    pub(super) async fn answer(&self, version: &str, error: &str) {
        let answer = StreamPoliciesRequest {
            version: version.into(),
            error: error.into(),
            ..StreamPoliciesRequest::default()
        };
        self.answers.send(answer).await.unwrap();
    }
}

pub(super) fn names(snapshot: &PolicySnapshot) -> Vec<String> {
    let sound = snapshot.objects.iter().map(|object| object.name.clone());
    let faulty = snapshot.faulty.iter().map(|object| object.name.clone());
    let named = sound.chain(faulty).map(Option::unwrap);
    named
        .map(|name| format!("{}/{}", name.namespace, name.name))
        .collect()
}

/// The reader of a proxy, in this process, which is of a pod to the agent.
pub(super) struct Proxy {
    pub(super) readers: Readers,
    pub(super) readiness: Readiness,
    pub(super) metrics: PolicyMetrics,
    tasks: Tasks,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Proxy {
    pub(super) fn start(node: &Node, pod: &Pod) -> Self {
        node.table
            .show(std::process::id(), &cgroup(&pod.uid, &pod.container));
        Self::beside(node)
    }

    /// One more, of the same pod: what the kernel says of this process is not said anew.
    pub(super) fn beside(node: &Node) -> Self {
        let socket = node.agent.socket();
        Self::with(&format!("agent_socket: {}\npolicies: agent\n", socket.display()))
    }

    pub(super) fn with(config: &str) -> Self {
        let config = Config::from_text(config).unwrap();
        let (tasks, metrics) = (Tasks::new(), PolicyMetrics::default());
        let readiness = Readiness::waiting_for(&[(READY, "nothing yet")]);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let servers = Servers::new(&config, &mut Registry::default(), &clock, &tasks).unwrap();
        let parts = policy_source::Parts {
            clock,
            metrics: metrics.clone(),
            issuers: servers.issuers,
            readiness: readiness.clone(),
        };
        let readers = policy_source::start(&config, parts, &tasks);
        Self {
            readers,
            readiness,
            metrics,
            tasks,
        }
    }

    /// Whether a connection from an account of `namespace` passes; nothing while there are no policies.
    pub(super) fn lets(&self, namespace: &str) -> Option<bool> {
        let enforced = self.readers.policies.current()?;
        let peer: SpiffeId = format!("spiffe://cluster.local/ns/{namespace}/sa/x")
            .parse()
            .unwrap();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let connection = Connection {
            peer: Some(&peer),
            source: ip,
            remote: ip,
            destination: ip,
            port: 80,
            sni: None,
        };
        Some(match enforced.in_force.program.gate(&connection, None) {
            Gate::Open(cleared) => cleared.decide(&connection, None).is_ok(),
            Gate::Ask(_) | Gate::Shut(_) => false,
        })
    }

    /// Waits until these namespaces, and no others of the three, pass.
    pub(super) async fn lets_only(&self, what: &str, passing: &[&str]) {
        until(what, SOON, async || {
            let lets = |namespace: &&str| self.lets(namespace) == Some(passing.contains(namespace));
            ["shop", "bank", ROOT].iter().all(lets)
        })
        .await;
    }

    pub(super) fn states(&self) -> Vec<(String, &'static str)> {
        let status = self.readers.status.borrow().clone();
        status
            .faults
            .iter()
            .map(|fault| (fault.policy.clone(), fault.state))
            .collect()
    }

    pub(super) async fn failed(&self, reason: &'static str) {
        let before = self.metrics.failures(reason);
        until(reason, SOON, async || self.metrics.failures(reason) > before).await;
    }
}
