//! What a RequestAuthentication names stays guarded when it cannot be read: its headers are nobody's to set, and tokens
//! in its places are refused.

use http::Request;
use http::request::Parts;
use serde_json::{Value, json};
use signet_proxy::jwt::{TokenMetrics, Tokens};
use signet_runtime::SystemClock;
use signet_tests::node::Node;
use signet_tests::wait::{SOON, until};

use super::world::{Proxy, node, put_kind, run};

/// `issuer` may be misspelt.
fn trust(node: &Node, issuer: &str) {
    let mut rule = json!({
        "jwks": "{\"keys\":[]}", "fromCookies": ["session"],
        "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
    });
    rule[issuer] = Value::from("https://issuer.test");
    let spec = json!({"jwtRules": [rule]});
    put_kind(node, "RequestAuthentication", "shop", "tokens", &spec);
}

/// What becomes of a client's own `x-user` and of a token in the cookie: whether the header goes on, and the word of the
/// refusal. Nothing while there are no policies.
async fn judged(proxy: &Proxy) -> Option<(bool, &'static str)> {
    let enforced = proxy.readers.policies.current()?;
    let request = |name: &str, value: &str| -> Parts {
        let request = Request::get("/").header(name, value).body(()).unwrap();
        request.into_parts().0
    };
    let tokens = Tokens::new(TokenMetrics::default());
    let judge = async |request: &Parts| {
        let rules = &enforced.in_force.tokens;
        tokens.judge(rules, &enforced.keys, request, &SystemClock).await
    };
    let mut forged = request("x-user", "admin");
    let edits = judge(&forged).await.unwrap().edits;
    edits.apply(&mut forged.headers);
    let refused = judge(&request("cookie", "session=a.b.c")).await;
    let word = refused.map_or_else(|refused| refused.as_str(), |_| "accepted");
    Some((forged.headers.contains_key("x-user"), word))
}

async fn becomes(proxy: &Proxy, expected: (bool, &'static str)) {
    until("the policy to be enforced", SOON, async || {
        judged(proxy).await == Some(expected)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_authentication_guards_what_it_names_created_bad_and_bad_at_a_restart() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    let proxy = Proxy::start(&node, &pod);
    becomes(&proxy, (true, "accepted")).await;
    trust(&node, "isuer");
    becomes(&proxy, (false, "faulty_policy")).await;
    assert_eq!(proxy.states()[0].1, "refuses_tokens");
    trust(&node, "issuer");
    becomes(&proxy, (false, "malformed")).await;
    node.agent.process.kill();
    trust(&node, "isuer");
    node.spawn_agent();
    until("the new agent's word", SOON, async || {
        proxy.states() == [("RequestAuthentication shop/tokens".to_owned(), "last_good")]
    })
    .await;
    assert_eq!(
        judged(&proxy).await,
        Some((false, "malformed")),
        "who saw it good keeps that"
    );
    let fresh = Proxy::beside(&node);
    becomes(&fresh, (false, "faulty_policy")).await;
    assert_eq!(fresh.states()[0].1, "refuses_tokens");
}
