//! The policy engine beside a real Envoy: the same policies, translated to Envoy's RBAC by
//! [`translate`], and the same requests through both. The verdicts are equal, but for a header of several lines that
//! lets pass: there the engine never lets pass what Envoy does not.
//!
//! What this does not compare, and why, is in `docs/policy.md`, "Compared with Envoy".

mod generate;
mod translate;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use signet_certs::SpiffeId;
use signet_policy::principal::LocalDomains;
use signet_policy::program::Gate;
use signet_policy::scope::Role;
use signet_policy::{
    Connection, Headers, Mesh, Normalization, PolicySet, Program, Request, RequestPath, Workload, read_object,
};
use signet_tests::agent::Agent;
use signet_tests::ca::Ca;
use signet_tests::cluster::Cluster;
use signet_tests::envoy::{Envoy, EnvoySetup};
use signet_tests::{client, peers, tls};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use generate::{Asked, Random, Set};

/// Sets of policies.
const SETS: usize = 160;
/// Requests for each.
const REQUESTS: usize = 40;
/// Where every run begins; another seed asks other questions.
const SEED: u64 = 20_261_122;
/// Who asks: nobody, over plaintext, or one of these accounts.
const ACCOUNTS: [(&str, &str); 3] = [("web", "frontend"), ("web", "intruder"), ("data", "batch")];

/// Conditions on the header, each alone in a set: whether it is of an ALLOW, and whether it says `notValues`.
const ON_HEADERS: [(bool, bool); 4] = [(true, false), (true, true), (false, false), (false, true)];
/// Lines of the header; whether `gold` is what they say joined, and whether it is one of them.
const LINES: [(&[&str], bool, bool); 6] = [
    (&[], false, false),
    (&["gold"], true, true),
    (&["silver"], false, false),
    (&["gold", "silver"], false, true),
    (&["silver", "gold"], false, true),
    (&["silver", "silver"], false, false),
];

#[tokio::test(flavor = "multi_thread")]
async fn envoy_says_the_same_of_every_policy_and_request() {
    let Some(program) = peers::envoy() else { return };
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let agent = Agent::start(&cluster, &ca, "data", "backend", "1h").await;
    let mut random = Random::new(SEED);
    let mut sets: Vec<Set> = (0..SETS).map(|_| Set::random(&mut random)).collect();
    sets.extend(ON_HEADERS.map(|(allow, negated)| Set::on_gold(allow, negated)));
    let envoy = envoy(&program, &agent, &sets).await;
    let mut callers = callers(&cluster, &ca, &envoy).await;

    let (mut allowed, mut refused) = (0, 0);
    for (number, set) in sets.iter().enumerate().take(SETS) {
        let engine = compile(set);
        for _ in 0..REQUESTS {
            let asked = Asked::random(&mut random);
            let caller = &mut callers[asked.caller];
            let ours = verdict(&engine, caller.id.as_ref(), &asked);
            let theirs = caller.ask(number, &asked).await;
            let joined = asked.headers.len() > 1 && set.joins_lines();
            assert!(
                ours == theirs || joined && !ours,
                "engine {ours}, Envoy {theirs}: seed {SEED}, set {number}: {asked:?} as {:?}\n{}",
                caller.id,
                serde_json::to_string_pretty(&set.objects()).unwrap()
            );
            if ours { allowed += 1 } else { refused += 1 }
        }
    }
    let asked = SETS * REQUESTS;
    assert!(
        allowed > asked / 10 && refused > asked / 10,
        "{allowed} allowed and {refused} refused: the questions are too easy"
    );
    for (number, (allow, negated)) in (SETS..).zip(ON_HEADERS) {
        let engine = compile(&sets[number]);
        for (lines, gold, any_gold) in LINES {
            let asked = Asked::of_lines(lines);
            // What lets pass counts here by all lines joined, in Envoy by any of them; what holds back the same in both.
            let (lets_pass, by_any) = (allow != negated, any_gold == (allow ^ negated));
            let by_joined = gold == (allow ^ negated);
            let ours = verdict(&engine, callers[asked.caller].id.as_ref(), &asked);
            let theirs = callers[asked.caller].ask(number, &asked).await;
            assert_eq!(
                (ours, theirs),
                (if lets_pass { by_joined } else { by_any }, by_any),
                "allow {allow}, negated {negated}: {lines:?}"
            );
        }
    }
}

/// The engine's decision program of a set.
fn compile(set: &Set) -> Program {
    let mut policies = PolicySet::default();
    for object in set.objects() {
        policies.apply(read_object("generated", &object));
    }
    let faults: Vec<String> = policies
        .outstanding()
        .map(|one| format!("{}: {:?}", one.name, one.faulty))
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
    let workload = Workload {
        namespace: "data".into(),
        labels: BTreeMap::new(),
        role: Role::Sidecar,
    };
    let mesh = Mesh {
        domains: LocalDomains::new("cluster.local".parse().unwrap(), []),
        root_namespace: "istio-system".into(),
        providers: BTreeMap::new(),
    };
    policies.in_force(&workload, &mesh).program
}

/// Whether the engine lets it pass.
fn verdict(program: &Program, peer: Option<&SpiffeId>, asked: &Asked) -> bool {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let connection = Connection {
        peer,
        source: here,
        remote: here,
        destination: here,
        port: 15_006,
        sni: None,
    };
    let path = RequestPath::new(asked.target, Normalization::Base).expect("a path");
    let headers: Vec<(&str, &str)> = asked.headers.iter().map(|value| ("x-tier", *value)).collect();
    let request = Request {
        method: asked.method,
        authority: asked.authority,
        path: &path,
        headers: &ByName(&headers),
        identity: None,
    };
    match program.gate(&connection, Some(&request)) {
        Gate::Open(cleared) => cleared.decide(&connection, Some(&request)).is_ok(),
        Gate::Ask(_) | Gate::Shut(_) => false,
    }
}

struct ByName<'h>(&'h [(&'h str, &'h str)]);

impl Headers for ByName<'_> {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        self.0.each(name, visit);
    }
}

/// An Envoy that answers 200 to what the set named in `x-set` lets pass, over mutual TLS and over plaintext.
async fn envoy(program: &std::path::Path, agent: &Agent, sets: &[Set]) -> Envoy {
    let setup = EnvoySetup::new(program, "rbac", agent.socket());
    let tls = setup.server_tls(None);
    setup
        .raw_listener(translate::listener("tls", sets, Some(&tls)))
        .raw_listener(translate::listener("plain", sets, None))
        .start()
        .await
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to Envoy and whose it is.
struct Caller {
    id: Option<SpiffeId>,
    stream: Box<dyn Stream>,
}

async fn callers(cluster: &Cluster, ca: &Ca, envoy: &Envoy) -> Vec<Caller> {
    let mut callers = vec![Caller {
        id: None,
        stream: Box::new(TcpStream::connect(envoy.listener("plain").await).await.unwrap()),
    }];
    for (namespace, account) in ACCOUNTS {
        let presented = client::svid(ca, &cluster.token(namespace, account)).await;
        let config: Arc<ClientConfig> = Arc::new(tls::client_config(Some(&presented)).unwrap());
        let tcp = TcpStream::connect(envoy.listener("tls").await).await.unwrap();
        let name = ServerName::try_from("any.invalid").unwrap();
        let id = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
        callers.push(Caller {
            id: Some(id.parse().unwrap()),
            stream: Box::new(TlsConnector::from(config).connect(name, tcp).await.unwrap()),
        });
    }
    callers
}

impl Caller {
    /// Whether Envoy lets it pass. Bytes are written as they are: no client may tidy them up.
    async fn ask(&mut self, set: usize, asked: &Asked) -> bool {
        let mut text = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nx-set: {set}\r\ncontent-length: 0\r\n",
            asked.method, asked.target, asked.authority
        );
        for value in &asked.headers {
            text.push_str(&format!("x-tier: {value}\r\n"));
        }
        text.push_str("\r\n");
        self.stream.write_all(text.as_bytes()).await.unwrap();
        let answer = self.answer().await;
        match answer.split_whitespace().nth(1) {
            Some("200") => true,
            Some("403") => false,
            _ => panic!("{asked:?}: {answer}"),
        }
    }

    /// One answer, with as much of a body as it announces.
    async fn answer(&mut self) -> String {
        let mut got = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&got).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let announced = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                    .unwrap_or(0);
                if body.len() >= announced {
                    return text;
                }
            }
            let mut room = [0; 4096];
            let read = self.stream.read(&mut room).await.unwrap();
            assert!(read > 0, "Envoy closed after {text:?}");
            got.extend_from_slice(&room[..read]);
        }
    }
}

/// An object of the API.
fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "data"},
        "spec": spec,
    })
}
