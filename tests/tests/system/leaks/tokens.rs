//! JWT-SVIDs and the keys that sign them, a node's agent with what it holds for its workloads, a proxy that judges
//! tokens, and the commands that deal in them.

use serde_json::{Value, json};
use signet_proto::wire::ValidateJwtsvidRequest;
use signet_tests::agent::{Agent, AgentSetup};
use signet_tests::ca::Ca;
use signet_tests::cli::signet;
use signet_tests::client::Dial;
use signet_tests::cluster::Cluster;
use signet_tests::dir::Dir;
use signet_tests::http::{self, get};
use signet_tests::leaks::Secrets;
use signet_tests::metrics::Scrape;
use signet_tests::node::Node;
use signet_tests::nodes::{asking, identity, trusting};
use signet_tests::proxy::{Proxy, ProxySetup};
use signet_tests::sds;
use signet_tests::trust::{Mint, trust};
use signet_tests::workload::secure;

use super::Out;
use crate::system::proxy_jwt::web::{Web, ask};

const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "spiffe://cluster.local/ns/data/sa/backend";

/// With another word of the signature's: no good, and yet mostly the secret.
fn spoilt(token: &str) -> String {
    format!("{}AAAAAAAA", &token[..token.len() - 8])
}

fn read(agent: &Agent) -> String {
    std::fs::read_to_string(agent.setup.dir().join("token")).unwrap()
}

/// What the CA keeps for itself.
fn keys_of(ca: &Ca, secrets: &mut Secrets) {
    let state: Value = serde_json::from_slice(&std::fs::read(ca.setup.state_file()).unwrap()).unwrap();
    secrets.key("the root key", state["roots"][0]["key"].as_str().unwrap());
    let keys = state["jwt_keys"].as_array().unwrap();
    assert!(!keys.is_empty(), "no key signs tokens");
    for key in keys {
        secrets.key("a key of tokens", key["private_key"].as_str().unwrap());
    }
}

/// What workloads of a node get, and are refused.
async fn workloads_of(node: &Node, out: &mut Out, secrets: &mut Secrets) {
    let pod = node.run(("web", "frontend"), "frontend-0");
    let guest = node.guest(&pod);
    for svid in &guest.x509().await.unwrap().svids {
        secrets.key_der("a workload's key", &svid.x509_svid_key);
    }
    let pair = sds::pair(&guest.secret("default").await.unwrap());
    secrets.key("a workload's key over SDS", &pair.key);
    for svid in guest.jwt(AUDIENCE, "").await.unwrap().svids {
        secrets.token("a workload's JWT-SVID", &svid.svid);
        for (audience, token) in [
            (AUDIENCE, svid.svid.clone()),
            ("another", svid.svid.clone()),
            (AUDIENCE, spoilt(&svid.svid)),
        ] {
            let request = ValidateJwtsvidRequest {
                audience: audience.into(),
                svid: token,
            };
            let answer = guest.api().validate_jwtsvid(secure(request)).await;
            out.add("what the agent says of a token", format!("{answer:?}"));
        }
    }
    let other = identity("web", "other");
    out.add(
        "a status",
        format!("{:?}", guest.jwt(AUDIENCE, &other).await.unwrap_err()),
    );
    out.add(
        "a status",
        format!("{:?}", guest.secret(&other).await.unwrap_err()),
    );
    let stranger = node.guest_in("0::/user.slice\n");
    out.add("a status", format!("{:?}", stranger.x509().await.unwrap_err()));
    out.add(
        "a status",
        format!("{:?}", stranger.jwt(AUDIENCE, "").await.unwrap_err()),
    );
}

/// What a node asks for in the names of others, as itself and as somebody else.
async fn impersonations(node: &Node, out: &mut Out, secrets: &mut Secrets) {
    let (token, workload) = (read(&node.agent), node.cluster.token("web", "frontend"));
    secrets.token("the node agent's token", &token);
    secrets.token("a workload's own token", &workload);
    let channel = Dial::default().channel(&node.ca).await;
    let (runs, absent) = (identity("web", "frontend"), identity("web", "absent"));
    asking(&token, &runs).send(&channel).await.unwrap();
    for asked in [
        asking(&token, &absent),
        asking(&workload, &absent),
        asking(&spoilt(&token), &runs),
    ] {
        out.add(
            "a status",
            format!("{:?}", asked.send(&channel).await.unwrap_err()),
        );
    }
    for (token, id) in [(&token, &runs), (&workload, &String::new())] {
        let mint = Mint::audience(&[AUDIENCE]).token(token).of(id);
        let minted = mint.at(&node.ca).await.unwrap();
        secrets.token("a JWT-SVID of the CA", &minted);
    }
    for (token, id) in [
        (&token, &absent),
        (&workload, &absent),
        (&spoilt(&workload), &runs),
    ] {
        let mint = Mint::audience(&[AUDIENCE]).token(token).of(id);
        out.add("a status", format!("{:?}", mint.at(&node.ca).await.unwrap_err()));
    }
}

/// `signet jwt` and its neighbours; what is in this directory is meant to be kept. Answers with a token that is good.
async fn commands(agent: &Agent, dir: &Dir, out: &mut Out, secrets: &mut Secrets) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let (token, bad, bundle) = (path("jwt"), path("spoilt"), path("bundle.json"));
    let (socket, admin) = (
        agent.socket().display().to_string(),
        agent.admin().socket().display().to_string(),
    );
    let fetch = [
        "jwt",
        "fetch",
        "--socket",
        &socket,
        "--audience",
        AUDIENCE,
        "--out",
    ];
    let mut run = async |arguments: &[&str], code: i32| {
        let ran = signet(arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}");
        out.add(
            &format!("signet {}", arguments.join(" ")),
            ran.stdout + &ran.stderr,
        );
    };
    run(&[&fetch[..], &[&token]].concat(), 0).await;
    let text = std::fs::read_to_string(&token).unwrap();
    secrets.token("a fetched token", text.trim());
    std::fs::write(&bad, spoilt(text.trim())).unwrap();
    let other = ["--spiffe-id", "spiffe://cluster.local/ns/data/sa/other"];
    run(&[&fetch[..], &[&path("none")], &other].concat(), 1).await;
    run(&["bundle", "export", "--admin", &admin, "--out", &bundle], 0).await;
    for (file, code) in [(&token, 0), (&bad, 1)] {
        for format in ["table", "json"] {
            run(&["jwt", "inspect", file, "-o", format], 0).await;
            for by in [["--socket", &socket], ["--bundle", &bundle]] {
                let validate = ["jwt", "validate", file, "--audience", AUDIENCE, "-o", format];
                run(&[&validate[..], &by].concat(), code).await;
            }
        }
    }
    for more in [["workload", "list"], ["bundle", "show"], ["svid", "show"]] {
        run(&[&more[..], &["--admin", &admin, "-o", "json"]].concat(), 0).await;
    }
    text.trim().to_owned()
}

/// A proxy that judges tokens by keys that stand in its policy, wherever they are brought.
async fn judging(agent: &Agent, keys: &str, upstream: &str) -> Proxy {
    let rule = json!({
        "issuer": ISSUER, "audiences": [AUDIENCE], "jwks": keys,
        "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}, {"name": "x-token"}],
        "fromParams": ["token"], "fromCookies": ["token"],
    });
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "data"}, "spec": {"jwtRules": [rule]},
    });
    ProxySetup::new(&agent.socket(), "data", "backend")
        .set("log_filter", "trace")
        .set("access_log", "all")
        .policy("tokens.yaml", &policy.to_string())
        .inbound(upstream, json!({"protocol": "http"}))
        .start()
        .await
}

/// Requests with good and bad tokens in every place, and what operators see of them.
async fn requests(proxy: &Proxy, good: &str, out: &mut Out) {
    let bad = spoilt(good);
    for (token, status) in [(good, 200), (&bad, 401)] {
        let bearer = format!("Bearer {token}");
        let cookie = format!("token={token}");
        let parameter = format!("/x?token={token}");
        let places = [
            ("/x", Some(("authorization", &bearer))),
            ("/x", Some(("x-token", &token.to_owned()))),
            ("/x", Some(("cookie", &cookie))),
            (parameter.as_str(), None),
        ];
        for (path, header) in places {
            let headers: Vec<(&str, &str)> = header
                .into_iter()
                .map(|(name, value)| (name, value.as_str()))
                .collect();
            let said = ask(&proxy.inbound(0), path, &headers).await;
            assert_eq!(said.status.as_u16(), status, "{headers:?}");
            // What the application is sent it may say again; refusals are the proxy's own words.
            if status == 401 {
                out.add("a refusal", format!("{:?} {}", said.headers, said.body));
            }
        }
    }
    questions(proxy, good, out).await;
    for page in [
        "secrets",
        "policies",
        "connections",
        "listeners",
        "plaintext-clients",
    ] {
        let ran = signet(&["proxy", page, "--admin", &proxy.admin, "-o", "json"])
            .await
            .good();
        out.add(&format!("signet proxy {page}"), ran.stdout + &ran.stderr);
    }
    for page in ["/config", "/secrets", "/policies", "/connections", "/listeners"] {
        let answer = get(&proxy.admin, page).await.unwrap();
        assert_eq!(answer.status, 200, "{page}");
        out.add(&format!("proxy {page}"), answer.body);
    }
    out.add("the proxy's metrics", proxy.scrape().await.text());
}

/// What a question about a request with a token is answered with.
async fn questions(proxy: &Proxy, token: &str, out: &mut Out) {
    let socket = std::path::PathBuf::from(proxy.admin_socket());
    let question = json!({
        "destination": proxy.inbound(0), "source": "127.0.0.1:1", "chain_pem": null,
        "request": {"method": "GET", "path": "/", "host": "app", "token": token},
    });
    let broken = question.to_string().replace("\"host\"", "\"hast\"");
    for (body, status) in [(question.to_string(), 200), (broken, 400)] {
        let answer = http::unix(&socket, ::http::Method::POST, "/decision", body)
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        out.add("an answered question", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_its_workloads_and_a_proxy_that_judges_tokens_let_out_neither_keys_nor_tokens() {
    let (mut out, mut secrets) = (Out::default(), Secrets::any_key());
    let cluster = Cluster::start();
    secrets.token("the API server's admin token", cluster.api.admin_token());
    let ca = trusting(&cluster)
        .set("log_filter", "trace")
        .set("oidc_listen", "127.0.0.1:0")
        .set("jwt_svid", json!({"issuer": ISSUER}));
    let mut node = Node::on(cluster, ca, |agent| agent.set("log_filter", "trace")).await;
    keys_of(&node.ca, &mut secrets);
    workloads_of(&node, &mut out, &mut secrets).await;
    impersonations(&node, &mut out, &mut secrets).await;

    let setup = AgentSetup::new(&node.cluster, &node.ca, "data", "backend").await;
    let mut agent = setup.set("log_filter", "trace").start().await;
    secrets.token("an agent's token", &read(&agent));
    let pair = sds::pair(&sds::fetch(&agent.socket(), "default").await.unwrap());
    secrets.key("the proxy's key", &pair.key);
    let (kept, app) = (Dir::new(), Web::mirror().await);
    let token = commands(&agent, &kept, &mut out, &mut secrets).await;
    assert!(secrets.find(token.as_bytes()).is_some(), "what is there is found");
    let address = node.ca.admin().get("/v1/status").await["oidc_address"].clone();
    let keys = get(address.as_str().unwrap(), "/keys").await.unwrap().body;
    out.add("the keys of tokens", keys.as_str());
    let mut proxy = judging(&agent, &keys, &app.address).await;
    requests(&proxy, &token, &mut out).await;

    out.add("what is trusted", format!("{:?}", trust(&node.ca).await));
    out.add(
        "configmaps",
        node.cluster.published("default").unwrap_or_default(),
    );
    let pages = ["/v1/status", "/v1/authorities", "/v1/bundle", "/v1/federation"];
    out.pages("CA ", &node.ca.admin(), &pages).await;
    out.add("the CA's metrics", node.ca.scrape().await.text());
    let pages = [
        "/v1/status",
        "/v1/svids",
        "/v1/bundle",
        "/v1/streams",
        "/v1/workloads",
    ];
    for one in [&node.agent, &agent] {
        out.pages("agent ", &one.admin(), &pages).await;
        out.add("an agent's metrics", Scrape::of(&one.metrics).await.text());
    }
    proxy.process.terminate().await;
    agent.process.terminate().await;
    node.agent.process.terminate().await;
    node.ca.process.terminate().await;
    // No new key signs by now.
    keys_of(&node.ca, &mut secrets);
    out.files(node.ca.setup.dir().path(), &[&node.ca.setup.state_file()]);
    for one in [&node.agent, &agent] {
        out.files(one.setup.dir().path(), &[&one.setup.dir().join("token")]);
    }
    out.files(proxy.setup.dir().path(), &[]);
    out.holds_none(
        &secrets,
        &[
            "signet-ca.err",
            "signet-agent-signet-agent.err",
            "signet-agent-backend.err",
            "signet-proxy-backend.err",
        ],
    );
}
