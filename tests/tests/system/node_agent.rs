//! A node's agent with pods on it: every process gets its own pod's identity, at once and for as long as
//! the pod is there, and nothing it says gets it another's.

use serde_json::json;
use signet_certs::{SvidChain, UnixTime};
use signet_devcluster::{Fault, FaultScope};
use signet_proto::sds::SECRET_TYPE_URL;
use signet_proto::wire::envoy::config::core::v3::Node as Claimed;
use signet_proto::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
};
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_proto::wire::{JwtBundlesRequest, X509BundlesRequest, X509svidRequest};
use signet_tests::follower::{Follower, read};
use signet_tests::guest::Guest;
use signet_tests::local::cgroup;
use signet_tests::node::{self, Node, Pod, container, running};
use signet_tests::nodes::{self, NODE_ACCOUNT, agent_pod, asking, identity};
use signet_tests::process::Signal;
use signet_tests::sds;
use signet_tests::wait::{SOON, until};
use signet_tests::workload::{next, secure};
use tonic::{Code, Status};

const CART: (&str, &str) = ("shop", "cart");
const BANK: (&str, &str) = ("shop", "bank");

/// Serial of the SVID that a process gets over the Workload API, which must be of `id`.
async fn serial(guest: &Guest, id: &str) -> String {
    let message = guest.x509().await.unwrap();
    let svid = read(&message, UnixTime::now()).unwrap();
    assert_eq!(svid.id().as_str(), id);
    svid.chain().serial()
}

/// Serial of the SVID in a secret, which must be of `id`.
fn serial_in(answer: &DiscoveryResponse, id: &str) -> String {
    let pair = sds::pair(&sds::first(answer));
    let chain = SvidChain::from_pem(pair.chain.as_bytes()).unwrap();
    assert_eq!(chain.id().as_str(), id);
    chain.serial()
}

fn denied(status: &Status) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("no identity issued"), "{status}");
}

async fn watch_failures(node: &Node) -> f64 {
    let scrape = node.agent.scrape().await;
    let failures = ["list", "start", "stream", "status"];
    let count = |reason| scrape.value("signet_agent_pod_watch_failures_total", &[("reason", reason)]);
    failures.into_iter().map(count).sum()
}

/// Keeps the agent from hearing of pods until the faults are cleared.
async fn deafen(node: &Node) {
    let before = watch_failures(node).await;
    let api = &node.cluster.api;
    api.set_fault(FaultScope::Watches, Fault::InternalError);
    api.set_fault(FaultScope::Pods, Fault::InternalError);
    api.break_watches();
    until("the agent to lose its watch", SOON, async || {
        watch_failures(node).await > before
    })
    .await;
}

fn undeafen(node: &Node) {
    node.cluster.api.clear_fault(FaultScope::Pods);
    node.cluster.api.clear_fault(FaultScope::Watches);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_get_their_own_identities_over_both_apis_at_once() {
    let node = Node::start("1h").await;
    let pods = [node.run(CART, "cart-0"), node.run(BANK, "bank-0")];
    let guests = pods.each_ref().map(|pod| node.guest(pod));
    let answers = pods.iter().zip(&guests).map(|(pod, guest)| async move {
        let id = pod.id();
        let (default, named, trust) = (["default"], [id.as_str()], ["ROOTCA"]);
        let (by_api, token, by_default, by_name, roots) = tokio::join!(
            serial(guest, &id),
            guest.jwt("x", ""),
            guest.sds(&default),
            guest.sds(&named),
            guest.sds(&trust),
        );
        let token = token.unwrap();
        assert_eq!(token.svids.len(), 1);
        assert_eq!(token.svids[0].spiffe_id, id);
        for stream in [by_default, by_name] {
            let answer = stream.unwrap().next().await.unwrap();
            assert_eq!(serial_in(&answer, &id), by_api, "one SVID on all streams");
        }
        let answer = roots.unwrap().next().await.unwrap();
        assert!(sds::roots(&sds::first(&answer)).contains("BEGIN CERTIFICATE"));
        by_api
    });
    let serials = futures::future::join_all(answers).await;
    assert_ne!(serials[0], serials[1]);
    for (pod, serial) in pods.iter().zip(&serials) {
        assert_eq!(node.wait_kept(&pod.id()).await["serial"], serial.as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_no_field_and_no_header_gives_a_pod_the_identity_of_another() {
    let node = Node::start("1h").await;
    let (cart, bank) = (node.run(CART, "cart-0"), node.run(BANK, "bank-0"));
    let (guest, own, other) = (node.guest(&cart), cart.id(), bank.id());
    // The agent holds what it must not give away.
    node.wait_kept(&other).await;
    let refused = guest.secret(&other).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    denied(&guest.jwt("x", &other).await.unwrap_err());
    for name in [
        format!("{other}/"),
        other.replace("spiffe://", "SPIFFE://"),
        other.replace("/sa/bank", "/sa/cart/../bank"),
        other.replace("bank", "%62ank"),
        "shop/bank".into(),
        bank.uid.clone(),
        "bank-0.shop".into(),
    ] {
        let status = guest.secret(&name).await.expect_err(&name);
        assert!(!status.message().is_empty(), "{name}");
        guest.jwt("x", &name).await.expect_err(&name);
    }
    // Nor does it come in the company of its own.
    let mut both = guest.sds(&["default", &other]).await.unwrap();
    let refused = both.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(by_delta(&guest, &other).await, Vec::<String>::new());
    // What Envoy says of itself, and what proxies put into headers, is only words.
    let claimed = DiscoveryRequest {
        node: Some(Claimed {
            id: "sidecar~10.0.0.7~bank-0.shop~shop.svc.cluster.local".into(),
            cluster: "bank.shop".into(),
        }),
        ..sds::ask(&["default"], "", "")
    };
    let requests = tokio_stream::iter([claimed]);
    let mut stream = SecretDiscoveryServiceClient::new(guest.channel())
        .stream_secrets(requests)
        .await
        .unwrap()
        .into_inner();
    let answer = next(&mut stream).await.unwrap();
    serial_in(&answer, &own);
    let token = node.cluster.token("shop", "bank");
    for (name, value) in [
        ("authorization", format!("Bearer {token}")),
        ("x-forwarded-client-cert", format!("URI={other}")),
        ("x-spiffe-id", other.clone()),
        ("impersonatedidentity", other.clone()),
        ("x-pod-uid", bank.uid.clone()),
    ] {
        let mut request = secure(X509svidRequest {});
        request.metadata_mut().insert(name, value.parse().unwrap());
        let mut stream = guest.api().fetch_x509svid(request).await.unwrap().into_inner();
        let svid = read(&next(&mut stream).await.unwrap(), UnixTime::now()).unwrap();
        assert_eq!(svid.id().as_str(), own, "{name}");
    }
}

/// Names of what a process is sent when it asks for `name` over incremental SDS, until that ends.
async fn by_delta(guest: &Guest, name: &str) -> Vec<String> {
    let ask = DeltaDiscoveryRequest {
        type_url: SECRET_TYPE_URL.into(),
        resource_names_subscribe: vec![name.into()],
        ..DeltaDiscoveryRequest::default()
    };
    let mut client = SecretDiscoveryServiceClient::new(guest.channel());
    let opened = client.delta_secrets(tokio_stream::iter([ask])).await;
    let mut stream = opened.unwrap().into_inner();
    let mut names = Vec::new();
    while let Ok(answer) = next(&mut stream).await {
        names.extend(answer.resources.into_iter().map(|resource| resource.name));
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_is_there_before_its_workload_connects_for_the_first_time() {
    let mut node = Node::start("1h").await;
    let pod = node.run(CART, "cart-0");
    let kept = node.wait_kept(&pod.id()).await;
    let scrape = node.agent.scrape().await;
    let connections = scrape.outcome("signet_agent_workload_connections_total", "admitted");
    assert_eq!(connections, 0, "nobody has asked");
    // Nobody to be asked by then.
    node.ca.process.kill();
    let guest = node.guest(&pod);
    assert_eq!(serial(&guest, &pod.id()).await, kept["serial"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_pod_is_deleted_its_streams_end_denied_and_no_other_hears_of_it() {
    let node = Node::start("30s").await;
    let (cart, bank) = (node.run(CART, "cart-0"), node.run(BANK, "bank-0"));
    let gone = Follower::start(node.guest(&cart), &cart.id());
    let stays = Follower::start(node.guest(&bank), &bank.id());
    let (_, serial) = (gone.serial().await, stays.serial().await);
    let (mut gone_sds, mut stays_sds) = (
        gone.guest.sds(&["default"]).await.unwrap(),
        stays.guest.sds(&["default"]).await.unwrap(),
    );
    gone_sds.next().await.unwrap();
    let answer = stays_sds.next().await.unwrap();
    let seen = serial_in(&answer, &bank.id());
    let ack = sds::ask(&["default"], &answer.version_info, &answer.nonce);
    stays_sds.send(ack).await;
    let mut x509 = gone
        .guest
        .api()
        .fetch_x509_bundles(secure(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let mut jwt = gone
        .guest
        .api()
        .fetch_jwt_bundles(secure(JwtBundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    next(&mut x509).await.unwrap();
    next(&mut jwt).await.unwrap();

    node.delete(&cart);
    gone.denied().await;
    denied(&gone_sds.next().await.unwrap_err());
    denied(&next(&mut x509).await.unwrap_err());
    denied(&next(&mut jwt).await.unwrap_err());
    denied(&gone.guest.x509().await.unwrap_err());
    denied(&gone.guest.jwt("x", "").await.unwrap_err());
    // The other's stream is the one that was opened first, and goes on to the next SVID.
    stays.assert_undisturbed();
    assert_eq!(stays.heard().svids, 1);
    let body = json!({"spiffe_id": bank.id()});
    node.agent.admin().post("/v1/svids/rotate", &body).await.unwrap();
    stays.renewed(&serial, SOON).await;
    stays.assert_undisturbed();
    assert_ne!(serial_in(&stays_sds.next().await.unwrap(), &bank.id()), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_takes_anothers_name_gets_what_the_other_loses() {
    let node = Node::start("1h").await;
    let before = node.run(CART, "cart-0");
    let old = Follower::start(node.guest(&before), &before.id());
    let serial_before = old.serial().await;
    node.delete(&before);
    let after = node.run(CART, "cart-0");
    assert_ne!(before.uid, after.uid);
    let new = Follower::start(node.guest(&after), &after.id());
    assert_eq!(
        new.serial().await,
        serial_before,
        "the account is the same, and so is its SVID"
    );
    old.denied().await;
    denied(&old.guest.x509().await.unwrap_err());
    // Neither a container of the old pod in the new nor the other way round is a container of any.
    for (pod, other) in [(&after, &before), (&before, &after)] {
        let mixed = node.guest_in(&cgroup(&pod.uid, &other.container));
        mixed.x509().await.expect_err("neither");
    }
    new.assert_undisturbed();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_container_of_a_pod_is_served_and_one_not_yet_in_its_status_waits() {
    let node = Node::start("1h").await;
    let [first, second, init, debug, late] = std::array::from_fn(|_| container());
    node::account(&node.cluster, CART);
    let waiting = json!({"name": "late", "image": "none", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ContainerCreating"}}});
    let containers = json!([running("first", &first), running("second", &second), waiting]);
    let pod = node::pod(&node.cluster, CART, "cart-0", &containers);
    let mut object = node.cluster.get("pods", "shop", "cart-0").unwrap();
    object["status"]["initContainerStatuses"] = json!([running("init", &init)]);
    object["status"]["ephemeralContainerStatuses"] = json!([running("debug", &debug)]);
    let mut object = node.cluster.api.put(object).unwrap();
    let mut serials = Vec::new();
    for container in [&first, &second, &init, &debug] {
        let guest = node.guest_in(&cgroup(&pod.uid, container));
        serials.push(serial(&guest, &pod.id()).await);
    }
    serials.dedup();
    assert_eq!(serials.len(), 1, "one SVID for all of them");
    let early = Follower::start(node.guest_in(&cgroup(&pod.uid, &late)), &pod.id());
    until("it to be at the door", SOON, async || {
        let scrape = node.agent.scrape().await;
        scrape.value("signet_agent_workload_api_streams", &[("kind", "x509_svid")]) > 0.5
    })
    .await;
    assert_eq!(early.heard().messages, 0);
    object["status"]["containerStatuses"][2] = running("late", &late);
    node.cluster.api.put(object).unwrap();
    assert_eq!(early.serial().await, serials[0]);
    early.assert_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_outside_of_any_pod_is_denied_by_every_call() {
    let node = Node::start("1h").await;
    let pod = node.run(CART, "cart-0");
    node.wait_kept(&pod.id()).await;
    for cgroup in [
        "0::/system.slice/sshd.service\n",
        "0::/\n",
        "12:cpu:/user.slice\n0::/user.slice\n",
    ] {
        let guest = node.guest_in(cgroup);
        denied(&guest.x509().await.unwrap_err());
        denied(&guest.jwt("x", "").await.unwrap_err());
        denied(&guest.secret("default").await.unwrap_err());
        denied(&guest.secret("ROOTCA").await.unwrap_err());
        let mut api = guest.api();
        let bundles = api.fetch_x509_bundles(secure(X509BundlesRequest {})).await;
        denied(&bundles.map(|_| ()).unwrap_err());
        let bundles = api.fetch_jwt_bundles(secure(JwtBundlesRequest {})).await;
        denied(&bundles.map(|_| ()).unwrap_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_the_agent_cannot_have_seen_is_told_to_wait_and_then_served() {
    let node = Node::start("1h").await;
    deafen(&node).await;
    let pod = node.run(CART, "cart-0");
    let guest = node.guest(&pod);
    let status = guest.x509().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let follower = Follower::start(guest, &pod.id());
    undeafen(&node);
    follower.serial().await;
    follower.assert_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_agent_costs_its_workloads_nothing() {
    let mut node = Node::start("1h").await;
    let pods: Vec<Pod> = (0..6)
        .map(|n| node.run(("shop", &format!("account-{n}")), &format!("pod-{n}")))
        .collect();
    let start = |pod: &Pod| Follower::start(node.guest(pod), &pod.id());
    let followers: Vec<Follower> = pods.iter().map(start).collect();
    for end in [Signal::TERM, Signal::KILL] {
        let mut serials = Vec::new();
        for follower in &followers {
            serials.push(follower.serial().await);
        }
        node.agent.process.signal(end);
        node.agent.process.wait(SOON).await;
        node.spawn_agent();
        for (follower, serial) in followers.iter().zip(&serials) {
            // Another, since the key of the one before was nowhere but in the agent that is gone.
            follower.renewed(serial, SOON * 3).await;
        }
    }
    for follower in &followers {
        follower.assert_well();
        let heard = follower.heard();
        assert!(heard.ends.iter().all(|(code, _)| *code != Code::PermissionDenied));
        assert!(
            heard.ends.len() >= 2,
            "each process had streams of its own: {heard:?}"
        );
        assert_eq!(heard.svids, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_while_it_cannot_know_says_so_and_never_no() {
    let mut node = Node::start("1h").await;
    let pod = node.run(CART, "cart-0");
    let follower = Follower::start(node.guest(&pod), &pod.id());
    let serial = follower.serial().await;
    // First the pods are not to be had, then the CA.
    node.cluster.api.set_fault(FaultScope::AllRequests, Fault::Hang);
    node.agent.process.kill();
    node.spawn_agent();
    let unavailable = async |word: &str| {
        until("an answer", SOON, async || {
            let status = follower.guest.x509().await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            status.message().contains(word)
        })
        .await;
    };
    unavailable("does not know the pods").await;
    // Nor is anybody denied who is in no pod that could be known.
    let stranger = node.guest_in(&cgroup("00000000-0000-4000-8000-00000000000a", &container()));
    assert_eq!(stranger.x509().await.unwrap_err().code(), Code::Unavailable);
    node.ca.process.kill();
    node.cluster.api.clear_fault(FaultScope::AllRequests);
    unavailable("not ready").await;
    follower.assert_well();
    assert_eq!(follower.heard().svids, 1);
    node.ca.start_again().await;
    follower.renewed(&serial, SOON * 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_token_is_worth_what_its_own_node_runs_while_its_own_pod_lives() {
    let node = Node::start("1h").await;
    let (cart, bank) = (node.run(CART, "cart-0"), node.run(BANK, "bank-0"));
    let token = std::fs::read_to_string(node.agent.setup.dir().join("token")).unwrap();
    nodes::pod(&node.cluster, ("shop", "far"), "far-0", Some("node-2"));
    let refused = async |id: &str| asking(&token, id).refused(&node.ca, Code::Unauthenticated).await;
    asking(&token, &cart.id()).at(&node.ca).await.unwrap();
    refused(&identity("shop", "far")).await;
    refused(&identity("shop", "nobody")).await;
    refused(&cart.id().replace("cluster.local", "elsewhere")).await;
    node.delete(&cart);
    until("the pod to be gone for the CA", SOON, async || {
        asking(&token, &cart.id()).at(&node.ca).await.is_err()
    })
    .await;
    refused(&cart.id()).await;
    asking(&token, &bank.id()).at(&node.ca).await.unwrap();
    let own = format!("{}-0", NODE_ACCOUNT.1);
    assert_ne!(own, agent_pod("node-1"));
    node.cluster.api.delete_pod(NODE_ACCOUNT.0, &own).unwrap();
    until("the agent's pod to be gone for the CA", SOON, async || {
        asking(&token, &bank.id()).at(&node.ca).await.is_err()
    })
    .await;
    refused(&bank.id()).await;
}
