//! SPIFFE libraries that others wrote, each as workloads of a node agent: the same story for all.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use signet_certs::{Authority, LeafProfile, SigningKey, TrustBundle};
use signet_tests::agent::Agent;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::{Presented, now};
use signet_tests::cluster::Cluster;
use signet_tests::dir::Dir;
use signet_tests::envoy::{Envoy, EnvoySetup, Names};
use signet_tests::mesh::{LISTENER, short_lived_ca};
use signet_tests::spiffe::{AGENT_ACCOUNT, Workload, bare, node_agent, start_node_agent};
use signet_tests::wait::{SOON, until};
use signet_tests::{http, peers, tls};

const FRONTEND: &str = "spiffe://cluster.local/ns/web/sa/frontend";
const BACKEND: &str = "spiffe://cluster.local/ns/data/sa/backend";
const FRONTEND_ACCOUNT: &str = "web/frontend";
const BACKEND_ACCOUNT: &str = "data/backend";
/// Short-lived, so that several renewals pass in front of a client.
const TTL: &str = "10s";

/// A CA with one node agent. The cluster ends last.
struct Node {
    agent: Agent,
    _ca: Ca,
    _cluster: Cluster,
}

impl Node {
    async fn start(rules: &[Value], ttl: &str) -> Self {
        let cluster = Cluster::start();
        let ca = short_lived_ca(&cluster)
            .set("trusted_node_accounts", vec![AGENT_ACCOUNT])
            .start()
            .await;
        let agent = start_node_agent(&cluster, &ca, rules, ttl).await;
        Self {
            agent,
            _ca: ca,
            _cluster: cluster,
        }
    }

    /// Serial of the SVID that the agent serves under `id`.
    async fn serial(&self, id: &str) -> String {
        let page = self.agent.admin().get("/v1/svids").await;
        let all = page["svids"].as_array().cloned().unwrap_or_default();
        let svid = all.iter().find(|svid| svid["spiffe_id"] == id);
        let serial = svid.and_then(|svid| svid["serial"].as_str()).unwrap_or_default();
        bare(serial).to_owned()
    }

    /// Clients of this kind that the agent's table names.
    async fn clients(&self, kind: &str) -> usize {
        let page = self.agent.admin().get("/v1/streams").await;
        let streams = page["streams"].as_array().cloned().unwrap_or_default();
        streams.iter().filter(|stream| stream["kind"] == kind).count()
    }
}

/// What every library must be able to do with one identity.
async fn tells_the_whole_story(client: &Workload) {
    let node = Node::start(&[client.rule(FRONTEND_ACCOUNT)], TTL).await;
    let socket = node.agent.socket();

    let now = client.ask(&socket, &["x509"]).await;
    assert_eq!(now["svids"][0]["id"], FRONTEND, "{now}");
    assert_eq!(now["svids"].as_array().unwrap().len(), 1, "{now}");
    assert_eq!(now["svids"][0]["chain"], 2, "leaf and intermediate: {now}");
    assert_eq!(now["bundles"], json!({"cluster.local": 1}), "{now}");

    // Through two renewals: each SVID once, the agent's own in each case.
    let mut watching = client.start(&socket, &["watch", "3"]);
    let first = watching.line(0).await;
    assert_eq!(node.clients("x509_svid").await, 1);
    watching.line(1).await;
    let third = watching.line(2).await;
    let serial = |line: &Value| line["svids"][0]["serial"].as_str().unwrap_or_default().to_owned();
    assert_eq!(bare(&serial(&third)), node.serial(FRONTEND).await);
    assert_ne!(serial(&first), serial(&third));
    let mut serials: Vec<String> = watching.lines().iter().map(serial).collect();
    serials.dedup();
    assert_eq!(serials.len(), 3, "one was sent twice: {serials:?}");

    let tokens = client
        .ask(&socket, &["jwt", "spiffe://cluster.local/ns/data/sa/backend"])
        .await;
    assert_eq!(tokens["tokens"][0]["id"], FRONTEND, "{tokens}");
    assert_eq!(tokens["tokens"][0]["audience"], json!([BACKEND]), "{tokens}");
    assert_eq!(tokens["validated"], json!([FRONTEND]), "{tokens}");
    assert!(tokens["bundles"]["cluster.local"].as_u64() >= Some(1), "{tokens}");
    let token = tokens["tokens"][0]["token"].as_str().unwrap();
    let valid = client
        .run_with(&socket, &["validate", BACKEND], token)
        .await
        .unwrap();
    assert_eq!(valid["id"], FRONTEND);
    for (audience, token) in [("another", token.to_owned()), (BACKEND, forged(token))] {
        let refused = client.run_with(&socket, &["validate", audience], &token).await;
        refused.expect_err("a token that is not good");
    }
}

/// The token with another subject under the same signature.
fn forged(token: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let parts: Vec<&str> = token.split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let other = claims.replace("/sa/frontend", "/sa/frontdoor");
    assert_ne!(claims, other);
    [parts[0], &URL_SAFE_NO_PAD.encode(other), parts[2]].join(".")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_library_fetches_watches_and_validates() {
    let Some(client) = Workload::python("python") else {
        return;
    };
    tells_the_whole_story(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_crate_fetches_watches_and_validates() {
    tells_the_whole_story(&Workload::rust("frontend")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go_spiffe_fetches_watches_and_validates() {
    let Some(client) = Workload::go("frontend") else {
        return;
    };
    tells_the_whole_story(&client).await;
}

/// Mutual TLS between two processes of one user, told apart by what they execute, before and after a
/// renewal and against a peer that is another than expected.
async fn speak_mutual_tls(frontend: &Workload, backend: &Workload) {
    let rules = [frontend.rule(FRONTEND_ACCOUNT), backend.rule(BACKEND_ACCOUNT)];
    let node = Node::start(&rules, TTL).await;
    let socket = node.agent.socket();
    let mut server = backend.start(&socket, &["serve", FRONTEND]);
    let address = server.address().await;

    let said = frontend.ask(&socket, &["dial", &address, BACKEND]).await;
    assert_eq!(said, json!({"peer": BACKEND, "answer": "you said hello"}));
    assert_eq!(server.line(1).await, json!({"peer": FRONTEND}));

    let before = node.serial(BACKEND).await;
    until("a renewal", Duration::from_secs(20), async || {
        node.serial(BACKEND).await != before
    })
    .await;
    let said = frontend.ask(&socket, &["dial", &address, BACKEND]).await;
    assert_eq!(said["peer"], BACKEND);

    // It is not who it is taken for.
    let error = frontend.run(&socket, &["dial", &address, FRONTEND]).await;
    error.expect_err("another server than expected");
    // The server lets nobody in but the one it knows: here, itself.
    let error = backend.run(&socket, &["dial", &address, BACKEND]).await;
    error.expect_err("another client than expected");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rust_processes_speak_mutual_tls() {
    speak_mutual_tls(&Workload::rust("frontend"), &Workload::rust("backend")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_go_processes_speak_mutual_tls() {
    let (Some(frontend), Some(backend)) = (Workload::go("frontend"), Workload::go("backend")) else {
        return;
    };
    speak_mutual_tls(&frontend, &backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_client_and_a_rust_server_speak_mutual_tls() {
    let Some(frontend) = Workload::go("frontend") else {
        return;
    };
    speak_mutual_tls(&frontend, &Workload::rust("backend")).await;
}

/// A source of the library holds what the agent serves, through renewals and a restart of the agent.
async fn source_follows_the_agent(client: &Workload) {
    let mut node = Node::start(&[client.rule(FRONTEND_ACCOUNT)], "20s").await;
    let socket = node.agent.socket();
    let mut source = client.start(&socket, &["source", "3"]);
    let first = source.line(0).await;
    assert_eq!(first["id"], FRONTEND);
    assert_eq!(first["serial"], node.serial(FRONTEND).await.as_str());
    assert_eq!(node.agent.process.terminate().await, 0);
    node.agent.start_again().await;
    let second = source.line(1).await;
    assert_eq!(second["id"], FRONTEND);
    assert_ne!(second["serial"], first["serial"], "keys are not kept on disk");
    let third = source.line(2).await;
    assert_ne!(third["serial"], second["serial"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rust_source_follows_the_agent_through_a_restart() {
    source_follows_the_agent(&Workload::rust("frontend")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_source_follows_the_agent_through_a_restart() {
    let Some(client) = Workload::go("frontend") else {
        return;
    };
    source_follows_the_agent(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_an_identity_waits_and_gets_it_when_it_may_have_one() {
    let (mine, other) = (Workload::rust("frontend"), Workload::rust("backend"));
    let node = Node::start(&[other.rule(BACKEND_ACCOUNT)], "1h").await;
    let error = mine.run(&node.agent.socket(), &["watch", "1"]).await;
    let error = error.expect_err("no identity");
    assert!(error.to_lowercase().contains("identity"), "{error}");
    let now = other.ask(&node.agent.socket(), &["x509"]).await;
    assert_eq!(now["svids"][0]["id"], BACKEND);
}

#[tokio::test(flavor = "multi_thread")]
async fn go_spiffe_fetches_our_bundle_from_the_endpoint_by_our_own_svid() {
    let Some(client) = Workload::go("frontend") else {
        return;
    };
    let cluster = Cluster::start();
    let address = free_address();
    let ca = short_lived_ca(&cluster)
        .set("trusted_node_accounts", vec![AGENT_ACCOUNT])
        .set(
            "bundle_endpoint",
            json!({"listen": address, "profile": "https_spiffe"}),
        )
        .start()
        .await;
    let agent = start_node_agent(&cluster, &ca, &[client.rule(FRONTEND_ACCOUNT)], "1h").await;
    let url = format!("https://{address}/");
    let id = "spiffe://cluster.local/ns/signet-system/sa/signet-ca";
    let found = client
        .ask(&agent.socket(), &["bundle", "cluster.local", &url, id])
        .await;
    let bundle = ca.bundle().await;
    assert_eq!(found["domain"], "cluster.local");
    assert_eq!(found["roots"], bundle.roots().len());
    assert_eq!(found["sequence"], bundle.sequence());
    assert!(found["jwt_keys"].as_u64() >= Some(1), "{found}");
    assert!(found["refresh_hint"].as_f64() > Some(0.0), "{found}");
    let other = "spiffe://cluster.local/ns/signet-system/sa/another";
    let refused = client
        .run(&agent.socket(), &["bundle", "cluster.local", &url, other])
        .await;
    refused.expect_err("an endpoint of another name");
}

/// A port of this machine that was free just now.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Two trust domains that know each other's bundles, a node agent in each.
struct Federation {
    here: Agent,
    there: Agent,
    _cas: [Ca; 2],
    _dir: Dir,
    _clusters: [Cluster; 2],
}

const HERE: &str = "cluster.local";
const THERE: &str = "there.example";
const FRONTEND_THERE: &str = "spiffe://there.example/ns/web/sa/frontend";

impl Federation {
    async fn start(backend: &[Value], frontend: &[Value]) -> Self {
        let clusters = [Cluster::start(), Cluster::start()];
        let dir = Dir::new();
        let mut cas = [
            ca_of(&clusters[0], HERE).start().await,
            ca_of(&clusters[1], THERE).start().await,
        ];
        // Each has to be there before the other can learn its bundle.
        for (n, other) in [(0, THERE), (1, HERE)] {
            let bundle = cas[1 - n].admin().get("/v1/bundle").await;
            let file = dir.write(format!("{other}.json"), bundle["jwks"].as_str().unwrap());
            let federation = json!([{"trust_domain": other, "bundle_file": file}]);
            cas[n].setup.change("federation", federation);
        }
        for ca in &mut cas {
            assert_eq!(ca.process.terminate().await, 0);
            ca.start_again().await;
        }
        let here = start_node_agent(&clusters[0], &cas[0], backend, "1h").await;
        let there = node_agent(&clusters[1], &cas[1], frontend).await;
        Self {
            here,
            there: there.set("trust_domain", THERE).start().await,
            _cas: cas,
            _dir: dir,
            _clusters: clusters,
        }
    }
}

fn ca_of(cluster: &Cluster, domain: &str) -> CaSetup {
    short_lived_ca(cluster)
        .set("trust_domain", domain)
        .set("trusted_node_accounts", vec![AGENT_ACCOUNT])
}

/// Over both trust domains with one library: bundles, tokens, mutual TLS.
async fn crosses_trust_domains(frontend: &Workload, backend: &Workload) {
    let federation = Federation::start(
        &[backend.rule(BACKEND_ACCOUNT)],
        &[frontend.rule(FRONTEND_ACCOUNT)],
    )
    .await;
    let (here, there) = (federation.here.socket(), federation.there.socket());
    until("the foreign bundle", SOON, async || {
        backend.ask(&here, &["x509"]).await["bundles"] == json!({HERE: 1, THERE: 1})
    })
    .await;
    let mut server = backend.start(&here, &["serve", FRONTEND_THERE]);
    let address = server.address().await;
    let said = frontend.ask(&there, &["dial", &address, BACKEND]).await;
    assert_eq!(said["peer"], BACKEND);
    assert_eq!(server.line(1).await, json!({"peer": FRONTEND_THERE}));
    let tokens = frontend.ask(&there, &["jwt", BACKEND]).await;
    let token = tokens["tokens"][0]["token"].as_str().unwrap();
    let valid = backend
        .run_with(&here, &["validate", BACKEND], token)
        .await
        .unwrap();
    assert_eq!(valid["id"], FRONTEND_THERE);
}

#[tokio::test(flavor = "multi_thread")]
async fn go_workloads_of_two_trust_domains_know_each_other() {
    let (Some(frontend), Some(backend)) = (Workload::go("frontend"), Workload::go("backend")) else {
        return;
    };
    crosses_trust_domains(&frontend, &backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_workloads_of_two_trust_domains_know_each_other() {
    crosses_trust_domains(&Workload::rust("frontend"), &Workload::rust("backend")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_spiffe_validator_keeps_two_trust_domains_apart() {
    let Some(envoy) = peers::envoy() else { return };
    let rule =
        |account: &str| json!({"service_account": account, "executable": envoy.canonicalize().unwrap()});
    let federation = Federation::start(&[rule(BACKEND_ACCOUNT)], &[rule(FRONTEND_ACCOUNT)]).await;
    let setup =
        |name: &str, agent: &Agent| EnvoySetup::new(&envoy, name, agent.socket()).names(all_domains());
    let server = setup("server", &federation.here)
        .server(LISTENER, None)
        .start()
        .await;
    let address = server.listener(LISTENER).await;
    let peer_of = async |client: &Envoy| {
        let answer = http::get(&client.listener(LISTENER).await, "/").await.unwrap();
        (answer.status.as_u16(), answer.header("x-peer").map(str::to_owned))
    };
    let stranger = setup("client", &federation.there)
        .client(LISTENER, &address, None)
        .start()
        .await;
    assert_eq!(peer_of(&stranger).await, (200, Some(FRONTEND_THERE.to_owned())));
    assert_eq!(server.rejected().await + stranger.rejected().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_ca_vouches_for_no_local_name_at_envoys_validator() {
    let Some(envoy) = peers::envoy() else { return };
    let foreign = ForeignCa::new();
    let cluster = Cluster::start();
    let dir = Dir::new();
    let file = dir.write("there.json", foreign.bundle().to_jwks());
    let ca = ca_of(&cluster, HERE)
        .set(
            "federation",
            json!([{"trust_domain": THERE, "bundle_file": file}]),
        )
        .start()
        .await;
    let executable = envoy.canonicalize().unwrap();
    let rule = json!({"service_account": BACKEND_ACCOUNT, "executable": executable});
    let agent = start_node_agent(&cluster, &ca, &[rule], "1h").await;
    let server = EnvoySetup::new(&envoy, "server", agent.socket())
        .names(all_domains())
        .server(LISTENER, None)
        .start()
        .await;
    let address = server.listener(LISTENER).await;
    let get = async |id: &str| {
        let stream = tls::connect(&address, Some(&foreign.svid(id))).await?;
        let answer = http::exchange(stream, ::http::Method::GET, "/", String::new()).await;
        answer.map(|answer| (answer.status.as_u16(), answer.header("x-peer").map(str::to_owned)))
    };
    assert_eq!(
        get(FRONTEND_THERE).await,
        Ok((200, Some(FRONTEND_THERE.to_owned())))
    );
    get(FRONTEND).await.expect_err("a local name under foreign roots");
    until("the refusal to be counted", SOON, async || {
        server.stat("ssl.fail_verify_error").await + server.stat("ssl.fail_verify_san").await >= 1
    })
    .await;
    assert_eq!(get(FRONTEND_THERE).await.unwrap().0, 200);
}

/// Key pair by its usual name, roots of every trust domain for the SPIFFE validator.
fn all_domains() -> Names {
    Names {
        pair: "default".into(),
        roots: "ALL".into(),
    }
}

/// The CA of [`THERE`] as one that signs whatever it likes.
struct ForeignCa(Authority);

impl ForeignCa {
    fn new() -> Self {
        signet_tests::init();
        let key = Arc::new(SigningKey::generate().unwrap());
        let year = Duration::from_secs(365 * 86_400);
        Self(Authority::self_signed_root(&THERE.parse().unwrap(), key, year, now()).unwrap())
    }

    fn bundle(&self) -> TrustBundle {
        let roots = vec![self.0.certificate().clone()];
        TrustBundle::new(THERE.parse().unwrap(), roots, 1).unwrap()
    }

    fn svid(&self, id: &str) -> Presented {
        let key = SigningKey::generate().unwrap();
        let profile = LeafProfile {
            id: id.parse().unwrap(),
            ttl: Duration::from_secs(3_600),
            min_left: Duration::from_secs(1),
            dns: Vec::new(),
        };
        let chain = signet_certs::issue(&profile, key.public_key(), &self.0, now()).unwrap();
        Presented {
            chain: chain.to_pem(),
            key: key.expose_pem().to_string(),
        }
    }
}
