//! Which process is who: pods by their cgroups, processes by rules, and those that try to be another.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use signet_devcluster::{Fault, FaultScope};
use signet_tests::agent::{Agent, AgentSetup};
use signet_tests::ca::Ca;
use signet_tests::cluster::Cluster;
use signet_tests::dir::{Dir, copy_program};
use signet_tests::local::{Local, NODE, Table, cgroup, container, run_pod};
use signet_tests::nodes::{self, NODE_ACCOUNT, identity};
use signet_tests::peers;
use signet_tests::process::{Signal, program};
use signet_tests::spiffe::start_node_agent;
use signet_tests::wait::{SOON, until, until_some};

const CART: (&str, &str) = ("shop", "cart");
const BANK: (&str, &str) = ("shop", "bank");

/// A node: the agent attests pods of `node-1` by a process table of the test's.
struct Node {
    cluster: Cluster,
    table: Table,
    agent: Agent,
    _ca: Ca,
}

impl Node {
    async fn start() -> Self {
        let cluster = Cluster::start();
        let ca = nodes::trusting(&cluster).start().await;
        let table = Table::default();
        let agent = Self::agent(&cluster, &ca, &table).await.start().await;
        Self {
            cluster,
            table,
            agent,
            _ca: ca,
        }
    }

    async fn agent(cluster: &Cluster, ca: &Ca, table: &Table) -> AgentSetup {
        let own = run_pod(
            cluster,
            NODE_ACCOUNT,
            &format!("{}-0", NODE_ACCOUNT.1),
            &container('e'),
        );
        AgentSetup::new(cluster, ca, NODE_ACCOUNT.0, NODE_ACCOUNT.1)
            .await
            .set("attestor", "kubernetes")
            .set("node_name", NODE)
            .set("pod_uid", own)
            .set("kubeconfig", cluster.kubeconfig().display().to_string())
            .set("host_proc", table.path().display().to_string())
    }

    /// A process with these cgroups that asks for `name`.
    fn process(&self, verb: &str, name: &str, cgroup: &str) -> Local {
        let local = Local::start(verb, &self.agent.socket(), name);
        self.table.show(local.process.pid(), cgroup);
        local.go();
        local
    }

    /// What a process with these cgroups is told.
    async fn asks(&self, name: &str, cgroup: &str) -> Value {
        self.process("fetch", name, cgroup).says(0).await
    }

    async fn attestations(&self, outcome: &str) -> u64 {
        self.agent
            .scrape()
            .await
            .outcome("signet_agent_attestations_total", outcome)
    }
}

fn denied(answer: &Value) {
    assert_eq!(answer["code"], "PermissionDenied", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_gets_the_identity_of_its_own_pod_by_no_other_name() {
    let node = Node::start().await;
    let cart = run_pod(&node.cluster, CART, "cart-0", &container('a'));
    let bank = run_pod(&node.cluster, BANK, "bank-0", &container('b'));
    let (at_cart, at_bank) = (cgroup(&cart, &container('a')), cgroup(&bank, &container('b')));
    let (cart_id, bank_id) = (identity("shop", "cart"), identity("shop", "bank"));
    assert_eq!(node.asks("default", &at_cart).await["spiffe_id"], cart_id);
    assert_eq!(node.asks("default", &at_bank).await["spiffe_id"], bank_id);
    assert_eq!(node.asks(&cart_id, &at_cart).await["spiffe_id"], cart_id);
    denied(&node.asks(&bank_id, &at_cart).await);
    // Forged from inside a container, and outside of any pod, and the agent's own.
    let forged = format!(
        "0::/kubepods/pod{cart}/{}/kubepods/pod{bank}/{}\n",
        container('a'),
        container('b')
    );
    denied(&node.asks("default", &forged).await);
    denied(&node.asks("default", "0::/system.slice/sshd.service\n").await);
    let own = node
        .cluster
        .get("pods", NODE_ACCOUNT.0, &format!("{}-0", NODE_ACCOUNT.1))
        .unwrap();
    let own = own["metadata"]["uid"].as_str().unwrap();
    denied(&node.asks("default", &cgroup(own, &container('e'))).await);
    for (outcome, count) in [("cgroup_ambiguous", 1), ("no_pod", 1), ("own_pod", 1)] {
        assert_eq!(node.attestations(outcome).await, count, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_asks_before_its_pod_is_seen_waits_for_it() {
    let node = Node::start().await;
    // The container runs, and the kubelet has not told the API server yet.
    nodes::pod(&node.cluster, CART, "cart-0", Some(NODE));
    let pod = node.cluster.get("pods", "shop", "cart-0").unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let mut early = node.process("fetch", "default", &cgroup(&uid, &container('a')));
    // A pod that nobody knows: not yet, and never a no within the first half minute.
    let unknown = cgroup("00000000-0000-4000-8000-00000000000a", &container('c'));
    assert_eq!(node.asks("default", &unknown).await["code"], "Unavailable");
    let mut told = pod;
    told["status"] = json!({"phase": "Running", "containerStatuses": [{
        "name": "main", "image": "none", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("containerd://{}", container('a')), "state": {"running": {}},
    }]});
    let late = early.says(0).await;
    // It was told the same in time; asked again, the container is there.
    assert_eq!(late["code"], "Unavailable", "{late}");
    let mut second = node.process("fetch", "default", &cgroup(&uid, &container('a')));
    until("it to be at the door", SOON, async || {
        let open = node.agent.scrape().await;
        open.value("signet_agent_workload_connections_open", &[]) > 0.5
    })
    .await;
    node.cluster.api.put(told).unwrap();
    assert_eq!(second.says(0).await["spiffe_id"], identity("shop", "cart"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_or_replaced_ends_its_streams_and_no_others() {
    let node = Node::start().await;
    let cart = run_pod(&node.cluster, CART, "cart-0", &container('a'));
    let bank = run_pod(&node.cluster, BANK, "bank-0", &container('b'));
    let mut gone = node.process("hold", "default", &cgroup(&cart, &container('a')));
    let mut stays = node.process("hold", "default", &cgroup(&bank, &container('b')));
    for local in [&mut gone, &mut stays] {
        assert!(local.says(1).await["passed_to"].is_u64());
    }
    node.cluster.api.delete_pod("shop", "cart-0").unwrap();
    denied(&gone.says(2).await);
    // The same name again is another pod: the old process gets nothing of it.
    let again = run_pod(&node.cluster, CART, "cart-0", &container('c'));
    assert_ne!(again, cart);
    assert_eq!(
        node.asks("default", &cgroup(&again, &container('c'))).await["spiffe_id"],
        identity("shop", "cart")
    );
    assert!(node.asks("default", &cgroup(&cart, &container('a'))).await["spiffe_id"].is_null());
    assert!(stays.process.ended().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_the_agent_serves_on_and_a_gap_is_made_up_for() {
    let node = Node::start().await;
    let cart = run_pod(&node.cluster, CART, "cart-0", &container('a'));
    let bank = run_pod(&node.cluster, BANK, "bank-0", &container('b'));
    let mut held = node.process("hold", "default", &cgroup(&cart, &container('a')));
    assert!(held.says(1).await["passed_to"].is_u64());
    node.cluster
        .api
        .set_fault(FaultScope::AllRequests, Fault::CloseConnection);
    node.cluster.api.break_watches();
    until("the watch to notice", SOON, async || {
        let failures = node.agent.scrape().await;
        ["list", "start", "stream"].iter().any(|reason| {
            failures.value("signet_agent_pod_watch_failures_total", &[("reason", reason)]) > 0.0
        })
    })
    .await;
    assert_eq!(
        node.asks("default", &cgroup(&cart, &container('a'))).await["spiffe_id"],
        identity("shop", "cart")
    );
    // Gone in the meantime; and who was never seen is not denied.
    node.cluster.api.delete_pod("shop", "cart-0").unwrap();
    let unseen = run_pod(&node.cluster, ("shop", "late"), "late-0", &container('d'));
    assert_eq!(
        node.asks("default", &cgroup(&unseen, &container('d'))).await["code"],
        "Unavailable"
    );
    node.cluster.api.clear_fault(FaultScope::AllRequests);
    denied(&held.says(2).await);
    assert_eq!(
        node.asks("default", &cgroup(&bank, &container('b'))).await["spiffe_id"],
        identity("shop", "bank")
    );
    assert_eq!(
        node.asks("default", &cgroup(&unseen, &container('d'))).await["spiffe_id"],
        identity("shop", "late")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_passed_on_ends_with_the_process_that_made_it() {
    let node = Node::start().await;
    let cart = run_pod(&node.cluster, CART, "cart-0", &container('a'));
    let mut first = node.process("hold", "default", &cgroup(&cart, &container('a')));
    let holder = first.says(1).await["passed_to"].as_u64().unwrap();
    let holder = u32::try_from(holder).unwrap();
    let streams = async || {
        node.agent
            .scrape()
            .await
            .value("signet_agent_sds_streams", &[("kind", "sotw")])
    };
    assert!((streams().await - 1.0).abs() < 0.5);
    first.process.signal(Signal::KILL);
    first.process.wait(SOON).await;
    until("the stream to end", SOON, async || streams().await < 0.5).await;
    // It was not the connection that ended: somebody else holds it still.
    assert!(signet_tests::process::runs(holder));
    let ends = node.agent.scrape().await;
    let ended = ends.value("signet_agent_attestation_ends_total", &[("reason", "peer_ended")]);
    assert!((ended - 1.0).abs() < 0.5, "{}", ends.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_of_the_program_or_another_user_gets_nothing() {
    let dir = Dir::new();
    let copies: Vec<_> = ["cart", "other"]
        .map(|name| {
            let copy = dir.join(name);
            copy_program(&Local::program(), &copy);
            copy
        })
        .into();
    let cluster = Cluster::start();
    let ca = nodes::trusting(&cluster).start().await;
    let uid = signet_runtime::socket::own_uid();
    let rules = [
        json!({"service_account": "shop/cart", "executable": copies[0], "uid": uid}),
        json!({"service_account": "shop/nobody", "executable": copies[1], "uid": uid + 1}),
    ];
    let agent = start_node_agent(&cluster, &ca, &rules, "1h").await;
    let ask = async |program: &Path| {
        let mut local = Local::of(program, "fetch", &agent.socket(), "default");
        local.go();
        local.says(0).await
    };
    assert_eq!(ask(&copies[0]).await["spiffe_id"], identity("shop", "cart"));
    for stranger in [copies[1].as_path(), &Local::program()] {
        let answer = ask(stranger).await;
        denied(&answer);
        let said = answer["message"].as_str().unwrap();
        assert!(said.contains("no identity issued"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_connections_leave_no_descriptor_behind() {
    let node = Node::start().await;
    let cart = run_pod(&node.cluster, CART, "cart-0", &container('a'));
    node.table
        .show(std::process::id(), &cgroup(&cart, &container('a')));
    let directory = format!("/proc/{}/fd", node.agent.process.pid());
    let descriptors = || std::fs::read_dir(&directory).map(Iterator::count);
    if descriptors().is_err() {
        return peers::skip("the descriptors of another process cannot be read here");
    }
    let socket = node.agent.socket();
    signet_tests::sds::fetch(&socket, "default").await.unwrap();
    let open = async || {
        node.agent
            .scrape()
            .await
            .value("signet_agent_workload_connections_open", &[])
    };
    until("the first to be gone", SOON, async || open().await < 0.5).await;
    let before = descriptors().unwrap();
    for round in 0..300 {
        if round % 10 == 0 {
            signet_tests::sds::fetch(&socket, "default").await.unwrap();
        } else {
            tokio::net::UnixStream::connect(&socket).await.unwrap();
        }
    }
    // A scrape or two may be open at either count.
    until("descriptors to be given back", SOON, async || {
        open().await < 0.5 && descriptors().unwrap() <= before + 8
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_given_to_another_process_gives_it_nothing() {
    let inside = [
        "unshare",
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
    ];
    let trial: Vec<&str> = inside.iter().copied().chain(["true"]).collect();
    if !peers::can(&trial, "no unprivileged user, process and mount namespaces here") {
        return;
    }
    let dir = Dir::new();
    let (name, arguments) = inside.split_first().unwrap();
    let mut command = Command::new(name);
    command
        .args(arguments)
        .arg(program("signet-peer"))
        .arg("recycle")
        .arg(dir.path());
    let run = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let answer: Value = serde_json::from_str(said.trim()).unwrap();
    if let Some(reason) = answer["skip"].as_str() {
        return peers::skip(reason);
    }
    assert_eq!(answer["recycled"], answer["number"]);
    assert_eq!(answer["other_lives"], true);
    assert_eq!(
        answer["alive"], false,
        "the handle is of the process that connected"
    );
    assert_eq!(answer["attest"], "peer_ended");
    assert_eq!(answer["recheck"], "peer_ended");
    if answer["kernel_names_processes"] == false {
        return peers::skip("this kernel has no SO_PEERPIDFD, which came with Linux 6.5");
    }
    assert_eq!(
        answer["taken_late"], "peer_ended",
        "the number was given away before the connection was accepted"
    );
}

/// To a process in a namespace of its own the kernel calls everybody outside of it number 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_a_number_here_is_refused() {
    let inside = [
        "unshare",
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
    ];
    let trial: Vec<&str> = inside.iter().copied().chain(["true"]).collect();
    if !peers::can(&trial, "no unprivileged user, process and mount namespaces here") {
        return;
    }
    let dir = Dir::new();
    let socket = dir.path().join("judge.sock");
    let mut judging = Command::new(inside[0]);
    judging
        .args(&inside[1..])
        .arg(program("signet-peer"))
        .arg("judge")
        .arg(&socket);
    let judged = tokio::task::spawn_blocking(move || judging.output().unwrap());
    let connection = until_some("the judge to listen", SOON, async || {
        tokio::net::UnixStream::connect(&socket).await.ok()
    })
    .await;
    let judged = judged.await.unwrap();
    drop(connection);
    let answer: Value = serde_json::from_slice(&judged.stdout).unwrap();
    assert_eq!(answer, json!({"number": 0, "refused": "no_process"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_in_a_pod_finds_no_way_from_the_mounted_directory_to_the_admin_socket() {
    let inside = ["unshare", "--user", "--map-root-user", "--mount"];
    let trial: Vec<&str> = inside.iter().copied().chain(["true"]).collect();
    if !peers::can(&trial, "no unprivileged user and mount namespaces here") {
        return;
    }
    let node = Node::start().await;
    let admin = node.agent.setup.dir().join("admin");
    let workload = node.agent.socket().parent().unwrap().to_owned();
    assert_eq!(admin.parent(), workload.parent(), "side by side, as deployed");
    // As a pod sees it: the one directory of the node, and nothing of what lies around it there.
    let script = r#"mount --bind "$1" /mnt && mount -t tmpfs none "$2" && exec "$3" probe /mnt"#;
    let mut command = Command::new(inside[0]);
    command.args(&inside[1..]).args(["sh", "-c", script, "sh"]);
    command
        .arg(&workload)
        .arg(node.agent.setup.dir().path())
        .arg(program("signet-peer"));
    let run = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let answer: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(answer["uid"], 0);
    assert_eq!(
        answer["names"],
        json!(["agent.sock", "agent.sock.lock"]),
        "the socket, its lock, and nothing else"
    );
    assert_eq!(answer["answered"], json!([]));
    // The same question where an operator asks it is answered, so the probe can tell.
    let operator = Command::new(program("signet-peer"))
        .arg("probe")
        .arg(&admin)
        .output()
        .unwrap();
    let operator: Value = serde_json::from_slice(&operator.stdout).unwrap();
    assert_ne!(operator["answered"], json!([]));
}
