//! Key sets of token issuers: fetched by the agent, once for its node, and kept by proxies whatever becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use signet_policy::KeyAddress;
use signet_proto::policy::keys::address_message;
use signet_proto::wire::signet::policy::v1::RefreshKeysRequest;
use signet_proto::wire::signet::policy::v1::policy_discovery_client::PolicyDiscoveryClient;
use signet_proxy::jwt::{TokenMetrics, Tokens};
use signet_runtime::SystemClock;
use signet_tests::node::Node;
use signet_tests::wait::{SOON, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Code;

use super::world::{Proxy, node, put_kind, run};

/// A key that tokens are signed with.
struct Key {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Key {
    fn new(kid: &'static str) -> Self {
        let (random, form) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(form, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(form, pkcs8.as_ref(), &random).unwrap();
        Self { pair, kid }
    }

    fn jwks(&self) -> String {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": self.kid, "x": x, "y": y}]}).to_string()
    }

    fn token(&self) -> String {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({"alg": "ES256", "kid": self.kid}));
        let claims = part(json!({"iss": "https://issuer.test", "sub": "alice"}));
        let message = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An issuer over HTTP that counts who asks for its keys. Gone when dropped.
struct Issuer {
    url: String,
    page: watch::Sender<String>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Issuer {
    async fn start(key: &Key) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (page, shown) = watch::channel(key.jwks());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let body = shown.borrow().clone();
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok() {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _gone = stream.write_all((head + &body).as_bytes()).await;
                }
            }
        });
        Self {
            url,
            page,
            asked,
            serving,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn trust(node: &Node, issuer: &Issuer) {
    let rule = json!({"issuer": "https://issuer.test", "jwksUri": issuer.url});
    put_kind(
        node,
        "RequestAuthentication",
        "shop",
        "tokens",
        &json!({"jwtRules": [rule]}),
    );
}

/// What the proxy makes of a request with this token, as a word; nothing while there are no policies.
async fn judged(proxy: &Proxy, token: &str) -> Option<&'static str> {
    let enforced = proxy.readers.policies.current()?;
    let tokens = Tokens::new(TokenMetrics::default());
    let request = Request::get("/").header("authorization", format!("Bearer {token}"));
    let (request, ()) = request.body(()).unwrap().into_parts();
    let rules = &enforced.in_force.tokens;
    let judged = tokens.judge(rules, &enforced.keys, &request, &SystemClock).await;
    Some(judged.map_or_else(
        |refused| refused.as_str(),
        |judged| match judged.identity {
            Some(_) => "accepted",
            None => "nobody",
        },
    ))
}

async fn accepts(proxy: &Proxy, token: &str) {
    until("the token to be accepted", SOON, async || {
        judged(proxy, token).await == Some("accepted")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_is_fetched_once_for_a_node_and_anew_for_a_key_that_is_missing() {
    let node = node().await;
    let pod = run(&node, "cart");
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start(&old).await;
    let proxies = [Proxy::start(&node, &pod), Proxy::beside(&node)];
    trust(&node, &issuer);
    for proxy in &proxies {
        accepts(proxy, &old.token()).await;
    }
    assert_eq!(issuer.asked(), 1, "once for both");
    let page = node.agent.admin().get("/v1/policies").await;
    assert_eq!(
        page["key_sets"],
        json!([{"address": issuer.url, "keys": 1, "failure": null}])
    );
    // The first token with the new key waits for it and passes; so do those at the other proxy.
    issuer.page.send_replace(new.jwks());
    assert_eq!(judged(&proxies[0], &new.token()).await, Some("accepted"));
    accepts(&proxies[1], &new.token()).await;
    assert_eq!(issuer.asked(), 2);
    // The keys may come before the answer to who asked for them.
    until("the answer", SOON, async || {
        proxies[0].metrics.refreshes("newer") == 1
    })
    .await;
    assert_eq!(
        judged(&proxies[0], &old.token()).await,
        Some("unknown_key"),
        "it is gone"
    );
    assert_eq!(
        issuer.asked(),
        2,
        "strangers cannot make the agent ask again at once"
    );
    let scrape = node.agent.scrape().await;
    assert_eq!(scrape.outcome("signet_agent_key_fetches_total", "changed"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_again_without_the_issuer_takes_no_keys_away() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    let key = Key::new("a");
    let issuer = Issuer::start(&key).await;
    trust(&node, &issuer);
    let proxy = Proxy::start(&node, &pod);
    accepts(&proxy, &key.token()).await;
    let in_force = proxy.metrics.snapshots("in_force");
    node.agent.process.kill();
    drop(issuer);
    node.spawn_agent();
    until("the new agent's snapshot", SOON, async || {
        proxy.metrics.snapshots("in_force") > in_force
    })
    .await;
    assert_eq!(judged(&proxy, &key.token()).await, Some("accepted"));
    // Who never had them refuses the issuer's tokens, and nothing else.
    let fresh = Proxy::beside(&node);
    until("the first snapshot", SOON, async || {
        judged(&fresh, &key.token()).await.is_some()
    })
    .await;
    assert_eq!(judged(&fresh, &key.token()).await, Some("keys_not_fetched"));
    assert_eq!(fresh.lets("shop"), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_the_agent_fetch_what_its_own_policies_do_not_ask_for() {
    let node = node().await;
    let (pod, key) = (run(&node, "cart"), Key::new("a"));
    let issuer = Issuer::start(&key).await;
    let rule = json!({"issuer": "https://issuer.test", "jwksUri": issuer.url});
    put_kind(
        &node,
        "RequestAuthentication",
        "bank",
        "tokens",
        &json!({"jwtRules": [rule]}),
    );
    let guest = node.guest(&pod);
    let mut client = PolicyDiscoveryClient::new(guest.channel());
    let ask = |address: &str, held: Vec<u8>| RefreshKeysRequest {
        address: Some(address_message(&KeyAddress::Uri(address.into()))),
        held: held.into(),
    };
    let refused = client
        .refresh_keys(ask(&issuer.url, vec![0; 32]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let refused = client
        .refresh_keys(ask(&issuer.url, vec![0; 31]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    // What they do ask for is not fetched either, as long as no stream is open for it.
    trust(&node, &issuer);
    until("the policy to be known", SOON, async || {
        let answer = client.refresh_keys(ask(&issuer.url, vec![0; 32])).await;
        answer.is_ok_and(|answer| !answer.into_inner().newer)
    })
    .await;
    assert_eq!(issuer.asked(), 0);
    let scrape = node.agent.scrape().await;
    assert!(scrape.outcome("signet_agent_key_refreshes_total", "not_asked_for") > 0);
}
