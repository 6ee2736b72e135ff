//! Policies from the API server to what a proxy enforces: a real agent, processes of pods, and the reader of the
//! proxy in this process, which the agent attests as a pod's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use signet_certs::SpiffeId;
use signet_devcluster::{Fault, FaultScope, ObjectRef};
use signet_policy::{Connection, Gate};
use signet_proto::policy::parse;
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
use signet_tests::process::Signal;
use signet_tests::wait::{SOON, until, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

const ROOT: &str = "istio-system";

/// A node whose agent follows policies.
async fn node() -> Node {
    let cluster = Cluster::start();
    for namespace in ["shop", "bank", ROOT] {
        cluster.api.create_namespace(namespace).unwrap();
    }
    let ca = trusting(&cluster);
    Node::on(cluster, ca, |agent| {
        agent.set("policies", json!({"source": "kubernetes"}))
    })
    .await
}

/// A running pod of an account of `shop` with the label `app`.
fn run(node: &Node, app: &str) -> Pod {
    account(&node.cluster, ("shop", app));
    labelled(node, app, &json!({"app": app}))
}

fn labelled(node: &Node, name: &str, labels: &Value) -> Pod {
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

fn put(node: &Node, namespace: &str, name: &str, spec: &Value) {
    put_kind(node, "AuthorizationPolicy", namespace, name, spec);
}

fn put_kind(node: &Node, kind: &str, namespace: &str, name: &str, spec: &Value) {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    });
    node.cluster.api.put(object).unwrap();
}

fn delete(node: &Node, namespace: &str, name: &str) {
    let object = ObjectRef::of("security.istio.io", "authorizationpolicies", namespace, name);
    node.cluster.api.delete(&object).unwrap();
}

fn deny_all() -> Value {
    json!({"action": "DENY", "rules": [{}]})
}

/// Denies one namespace and no other, so that it can be told from the strictest reading.
fn deny(namespace: &str) -> Value {
    json!({"action": "DENY", "rules": [{"from": [{"source": {"namespaces": [namespace]}}]}]})
}

fn bad() -> Value {
    json!({"action": "DENY", "rules": [{"form": []}]})
}

/// A proxy's stream, by its bare messages.
struct Client {
    answers: mpsc::Sender<StreamPoliciesRequest>,
    snapshots: Streaming<PolicySnapshot>,
}

impl Client {
    async fn open(guest: &Guest) -> Result<Self, Status> {
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

    async fn next(&mut self) -> Result<PolicySnapshot, Status> {
        signet_tests::workload::next(&mut self.snapshots).await
    }

    /// Names in the next snapshot.
    async fn names(&mut self) -> Vec<String> {
        names(&self.next().await.unwrap())
    }

    async fn answer(&self, version: &str, error: &str) {
        let answer = StreamPoliciesRequest {
            version: version.into(),
            error: error.into(),
            ..StreamPoliciesRequest::default()
        };
        self.answers.send(answer).await.unwrap();
    }
}

fn names(snapshot: &PolicySnapshot) -> Vec<String> {
    let sound = snapshot.objects.iter().map(|object| object.name.clone());
    let faulty = snapshot.faulty.iter().map(|object| object.name.clone());
    let named = sound.chain(faulty).map(Option::unwrap);
    named
        .map(|name| format!("{}/{}", name.namespace, name.name))
        .collect()
}

/// The reader of a proxy, in this process, which is of a pod to the agent.
struct Proxy {
    readers: Readers,
    readiness: Readiness,
    metrics: PolicyMetrics,
    tasks: Tasks,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Proxy {
    fn start(node: &Node, pod: &Pod) -> Self {
        node.table
            .show(std::process::id(), &cgroup(&pod.uid, &pod.container));
        let socket = node.agent.socket();
        Self::with(&format!("agent_socket: {}\npolicies: agent\n", socket.display()))
    }

    fn with(config: &str) -> Self {
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
    fn lets(&self, namespace: &str) -> Option<bool> {
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
    async fn lets_only(&self, what: &str, passing: &[&str]) {
        until(what, SOON, async || {
            let lets = |namespace: &&str| self.lets(namespace) == Some(passing.contains(namespace));
            ["shop", "bank", ROOT].iter().all(lets)
        })
        .await;
    }

    fn states(&self) -> Vec<(String, &'static str)> {
        let status = self.readers.status.borrow().clone();
        status
            .faults
            .iter()
            .map(|fault| (fault.policy.clone(), fault.state))
            .collect()
    }

    async fn failed(&self, reason: &'static str) {
        let before = self.metrics.failures(reason);
        until(reason, SOON, async || self.metrics.failures(reason) > before).await;
    }
}

const ALL: &[&str] = &["shop", "bank", ROOT];

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_gets_what_concerns_it_at_once_and_after_every_change_of_that() {
    let node = node().await;
    let pod = run(&node, "cart");
    put(&node, "bank", "theirs", &deny_all());
    put(&node, "shop", "all", &json!({}));
    let guest = node.guest(&pod);
    let mut client = Client::open(&guest).await.unwrap();
    let first = client.next().await.unwrap();
    assert_eq!(names(&first), ["shop/all"]);
    let read = parse(first.clone()).unwrap();
    assert_eq!(
        (read.workload.namespace.as_str(), read.root_namespace.as_str()),
        ("shop", ROOT)
    );
    assert_eq!(
        read.workload.labels,
        BTreeMap::from([("app".into(), "cart".into())])
    );
    client.answer(&first.version, "").await;
    // What concerns others makes no message; the next one is about the next own change.
    put(&node, "bank", "more", &deny_all());
    put(
        &node,
        "shop",
        "web",
        &json!({"selector": {"matchLabels": {"app": "web"}}}),
    );
    put(&node, ROOT, "mesh", &deny("bank"));
    assert_eq!(client.names().await, ["istio-system/mesh", "shop/all"]);
    put_kind(
        &node,
        "PeerAuthentication",
        "shop",
        "strict",
        &json!({"mtls": {"mode": "STRICT"}}),
    );
    assert_eq!(
        client.names().await,
        ["istio-system/mesh", "shop/all", "shop/strict"]
    );
    // The pod's labels decide, as they are now.
    labelled(&node, "cart", &json!({"app": "web"}));
    let moved = client.next().await.unwrap();
    assert_eq!(
        names(&moved),
        ["istio-system/mesh", "shop/all", "shop/web", "shop/strict"]
    );
    client.answer(&moved.version, "it is not understood").await;
    let page = node.agent.admin().get("/v1/policies").await;
    assert_eq!(page["synced"], true);
    assert_eq!(page["policies"].as_array().unwrap().len(), 6);
    until("the answers on the page", SOON, async || {
        let page = node.agent.admin().get("/v1/policies").await;
        let proxy = &page["proxies"][0];
        proxy["node"] == "a-test/1"
            && proxy["acked"] == first.version
            && proxy["version"] == moved.version
            && proxy["last_nack"] == format!("{}: it is not understood", moved.version)
    })
    .await;
    delete(&node, "shop", "all");
    assert_eq!(
        client.names().await,
        ["istio-system/mesh", "shop/web", "shop/strict"]
    );
    let scrape = node.agent.scrape().await;
    for outcome in ["ack", "nack"] {
        assert_eq!(
            scrape.outcome("signet_agent_policy_answers_total", outcome),
            1,
            "{outcome}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_pod_and_an_agent_without_policies_says_so() {
    let node = node().await;
    let pod = run(&node, "cart");
    let guest = node.guest(&pod);
    let mut client = Client::open(&guest).await.unwrap();
    client.next().await.unwrap();
    node.delete(&pod);
    assert_eq!(client.next().await.unwrap_err().code(), Code::PermissionDenied);
    let plain = Node::start("1h").await;
    let pod = plain.run(("shop", "cart"), "cart-0");
    let guest = plain.guest(&pod);
    let refused = match Client::open(&guest).await {
        Ok(mut client) => client.next().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("policies.source"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_object_keeps_its_last_good_version_or_counts_as_the_strictest_and_touches_no_other() {
    let node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    put(&node, "bank", "bad", &bad());
    let proxy = Proxy::start(&node, &pod);
    proxy.lets_only("the good version", &["shop", ROOT]).await;
    // Edited: its last good version stays, and others go on.
    put(&node, "shop", "p", &bad());
    until("the fault to be told", SOON, async || {
        proxy.states() == [("AuthorizationPolicy shop/p".to_owned(), "last_good")]
    })
    .await;
    proxy.lets_only("the last good version", &["shop", ROOT]).await;
    // A deny of the whole mesh arrives beside a bad object of another namespace, and of this one.
    put(&node, ROOT, "mesh", &deny(ROOT));
    proxy.lets_only("the deny of the mesh", &["shop"]).await;
    // Created bad: it denies what it reaches.
    put(&node, "shop", "new", &bad());
    proxy.lets_only("the strictest reading", &[]).await;
    delete(&node, "shop", "new");
    proxy.lets_only("its end", &["shop"]).await;
    put(&node, "shop", "p", &deny("shop"));
    proxy.lets_only("the correction", &["bank"]).await;
    assert_eq!(proxy.states(), []);
    let page = node.agent.admin().get("/v1/policies").await;
    let faulty: Vec<&Value> = page["policies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|policy| policy["state"] != "sound")
        .collect();
    assert_eq!(faulty.len(), 1, "{page}");
    assert_eq!(
        (&faulty[0]["policy"], &faulty[0]["state"]),
        (&json!("AuthorizationPolicy bank/bad"), &json!("denies_all"))
    );
    assert!(
        faulty[0]["faults"][0]
            .as_str()
            .unwrap()
            .contains("did you mean from?"),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_object_at_a_restart_is_the_strictest_to_who_never_saw_it_good() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    let proxy = Proxy::start(&node, &pod);
    proxy.lets_only("the good version", &["shop", ROOT]).await;
    node.agent.process.kill();
    put(&node, "shop", "p", &bad());
    node.spawn_agent();
    // Who saw it good keeps that version, though this agent has none.
    until("the new agent's word", SOON, async || {
        proxy.states() == [("AuthorizationPolicy shop/p".to_owned(), "last_good")]
    })
    .await;
    assert_eq!(
        (proxy.lets("shop"), proxy.lets("bank")),
        (Some(true), Some(false))
    );
    let fresh = Proxy::start(&node, &pod);
    fresh.lets_only("the strictest reading", &[]).await;
    assert_eq!(fresh.states()[0].1, "denies_all");
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_agent_changes_nothing_and_who_has_nothing_yet_lets_nobody_pass() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    let proxy = Proxy::start(&node, &pod);
    proxy.lets_only("the policy", &["shop", ROOT]).await;
    node.agent.process.signal(Signal::KILL);
    proxy.failed("dial").await;
    let fresh = Proxy::start(&node, &pod);
    fresh.failed("dial").await;
    assert_eq!((fresh.lets("shop"), fresh.readiness.missing().len()), (None, 1));
    proxy.lets_only("what was enforced", &["shop", ROOT]).await;
    assert!(proxy.readiness.missing().is_empty());
    delete(&node, "shop", "p");
    node.agent.start_again().await;
    proxy.lets_only("the change meanwhile", ALL).await;
    fresh.lets_only("the first snapshot", ALL).await;
    assert!(fresh.readiness.missing().is_empty());
    // The same policies from another agent are no news.
    let in_force = proxy.metrics.snapshots("in_force");
    node.agent.process.kill();
    node.agent.start_again().await;
    until("the same again", SOON, async || {
        proxy.metrics.snapshots("unchanged") > 0
    })
    .await;
    assert_eq!(proxy.metrics.snapshots("in_force"), in_force);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_what_is_known_stays_and_nothing_is_made_up() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    put(&node, "shop", "p", &deny("bank"));
    let proxy = Proxy::start(&node, &pod);
    proxy.lets_only("the policy", &["shop", ROOT]).await;
    // A gap in the watch: what happened in it is found by the next list.
    node.cluster
        .api
        .set_fault(FaultScope::AllRequests, Fault::InternalError);
    node.cluster.api.break_watches();
    delete(&node, "shop", "p");
    put(&node, "shop", "q", &deny("shop"));
    until("a failure of the watches", SOON, async || {
        let scrape = node.agent.scrape().await;
        let failures = ["list", "start", "status", "stream"];
        let count = |reason| scrape.value("signet_agent_policy_watch_failures_total", &[("reason", reason)]);
        failures.into_iter().map(count).sum::<f64>() > 2.5
    })
    .await;
    proxy.lets_only("what was known", &["shop", ROOT]).await;
    node.cluster.api.clear_fault(FaultScope::AllRequests);
    proxy.lets_only("what happened in the gap", &["bank", ROOT]).await;
    // An agent that starts while the policies cannot be listed sends nothing, and says what is missing. Pods
    // are listed, so that the proxy is attested.
    node.agent.process.kill();
    let forbidden =
        json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"});
    node.cluster.api.set_fault(
        FaultScope::AllRequests,
        Fault::Answer {
            status: 403,
            body: forbidden.to_string(),
        },
    );
    node.cluster
        .api
        .set_fault(FaultScope::Pods, Fault::Delay(std::time::Duration::ZERO));
    node.spawn_agent();
    let fresh = Proxy::start(&node, &pod);
    fresh.failed("unavailable").await;
    let missing = fresh.readiness.missing().join("");
    assert!(
        missing.contains("not all policies are known yet: AuthorizationPolicy"),
        "{missing}"
    );
    assert_eq!(fresh.lets("bank"), None);
    proxy.lets_only("what was enforced", &["bank", ROOT]).await;
    node.cluster.api.clear_fault(FaultScope::Pods);
    node.cluster.api.clear_fault(FaultScope::AllRequests);
    fresh.lets_only("the first snapshot", &["bank", ROOT]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_followed_by_an_agent_without_kubernetes_and_by_a_proxy_alone() {
    let (cluster, dir) = (Cluster::start(), signet_tests::dir::Dir::new());
    let policies = dir.sub("policies");
    let object = |name: &str, spec: &Value| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"namespace": "shop", "name": name}, "spec": spec,
        })
        .to_string()
    };
    let write = |name: &str, text: &str| std::fs::write(policies.join(name), text).unwrap();
    write(
        "a.json",
        &object(
            "p",
            &json!({"selector": {"matchLabels": {"app": "cart"}}, "action": "DENY", "rules": deny("bank")["rules"]}),
        ),
    );
    let ca = trusting(&cluster).start().await;
    let rule = json!({
        "service_account": "shop/cart", "uid": signet_runtime::socket::own_uid(), "labels": {"app": "cart"},
    });
    let agent = signet_tests::agent::AgentSetup::new(&cluster, &ca, "shop", "cart")
        .await
        .set("attestor", "unix")
        .set("workloads", vec![rule])
        .set(
            "policies",
            json!({"source": "directory", "directory": policies.display().to_string()}),
        )
        .start()
        .await;
    let through = Proxy::with(&format!(
        "agent_socket: {}\npolicies: agent\n",
        agent.socket().display()
    ));
    let alone = Proxy::with(&format!(
        "policies: {{directory: {}, namespace: shop, labels: {{app: cart}}}}\n",
        policies.display()
    ));
    for proxy in [&through, &alone] {
        proxy.lets_only("the directory", &["shop", ROOT]).await;
    }
    // A file that is no YAML keeps what it said; a file that is gone takes its objects along.
    write("a.json", "{");
    for proxy in [&through, &alone] {
        until("the fault", SOON, async || !proxy.states().is_empty()).await;
        proxy.lets_only("what the file said", &["shop", ROOT]).await;
    }
    std::fs::remove_file(policies.join("a.json")).unwrap();
    write("b.yaml", &object("q", &deny("shop")));
    for proxy in [&through, &alone] {
        proxy.lets_only("another file", &["bank", ROOT]).await;
        assert_eq!(proxy.states(), []);
    }
    // A directory that is gone changes nothing.
    std::fs::rename(&policies, dir.join("elsewhere")).unwrap();
    alone.failed("directory").await;
    for proxy in [&through, &alone] {
        proxy.lets_only("what was enforced", &["bank", ROOT]).await;
    }
    let nothing = Proxy::with(&format!(
        "policies: {{directory: {}, namespace: shop}}\n",
        policies.display()
    ));
    within("a failure", SOON, nothing.failed("directory")).await;
    assert_eq!(
        (nothing.lets("bank"), nothing.readiness.missing().len()),
        (None, 1)
    );
}
