//! Tokens in requests, through a real proxy: tokens that PyJWT made, and keys that are fetched or lie in files.
//! Providers of CUSTOM policies stand beside.

mod desk;
mod providers;
pub(super) mod web;

use std::path::Path;
use std::process::Command;

use http::StatusCode;
use serde_json::{Value, json};
use signet_tests::peers;
use signet_tests::proxy::Proxy;
use signet_tests::wait::{SOON, until};
use tokio::sync::watch;

use super::proxy_tls::World;
use web::{Web, ask};

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn authentication(rule: &Value) -> String {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "data"}, "spec": {"jwtRules": [rule]},
    })
    .to_string()
}

/// Without a token of the issuer, nothing below `/admin` is reached; without `ops` among its groups neither.
const ADMIN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admin, namespace: data}
spec:
  action: DENY
  rules:
  - from: [{source: {notRequestPrincipals: ['https://issuer.test/*']}}]
    to: [{operation: {paths: ['/admin*']}}]
  - when: [{key: 'request.auth.claims[groups]', notValues: [ops]}]
    to: [{operation: {paths: ['/admin*']}}]
";

/// What PyJWT made, or nothing after noting the skip.
fn from_pyjwt() -> Option<Value> {
    let python = peers::python()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/tokens.py");
    let made = Command::new(python).arg(script).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(serde_json::from_slice(&made.stdout).unwrap())
}

async fn verdict(proxy: &Proxy, path: &str, token: Option<&str>) -> StatusCode {
    let header = token.map(bearer);
    let headers: Vec<(&str, &str)> = header
        .iter()
        .map(|value| ("authorization", value.as_str()))
        .collect();
    ask(&proxy.inbound(0), path, &headers).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_pyjwt_made_are_judged_as_their_issuer_meant() {
    let Some(made) = from_pyjwt() else { return };
    let (world, app) = (World::start().await, Web::mirror().await);
    let rule = json!({
        "issuer": "https://issuer.test", "audiences": ["shop"], "jwks": made["jwks"].to_string(),
        "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}],
    });
    let proxy = world
        .backend_proxy()
        .policy("tokens.yaml", &authentication(&rule))
        .policy("admin.yaml", ADMIN)
        .inbound(&app.address, json!({"protocol": "http"}))
        .start()
        .await;
    for (name, token) in made["good"].as_object().unwrap() {
        let token = bearer(token.as_str().unwrap());
        let said = ask(
            &proxy.inbound(0),
            "/admin/x",
            &[("authorization", &token), ("x-sub", "root")],
        )
        .await;
        assert_eq!(said.status, StatusCode::OK, "{name}: {}", said.body);
        let seen: Value = serde_json::from_str(&said.body).unwrap();
        assert_eq!(seen["headers"]["x-sub"], json!(["alice"]), "{name}");
        assert!(
            seen["headers"]["authorization"].is_null(),
            "{name}: the token stays here"
        );
    }
    for (name, token) in made["bad"].as_object().unwrap() {
        let status = verdict(&proxy, "/", token.as_str()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}");
    }
    assert_eq!(
        verdict(&proxy, "/", None).await,
        StatusCode::OK,
        "a token is not demanded"
    );
    assert_eq!(verdict(&proxy, "/admin/x", None).await, StatusCode::FORBIDDEN);
    let forged = ask(&proxy.inbound(0), "/", &[("x-sub", "root")]).await;
    assert!(!forged.body.contains("x-sub"), "{}", forged.body);
    let record = proxy
        .record("a refusal", |record| {
            record["detail"]
                .as_str()
                .is_some_and(|e| e.starts_with("token expired"))
        })
        .await;
    assert_eq!(record["reason"], "token_invalid");
    let junk = ask(&proxy.inbound(0), "/", &[("authorization", "Bearer x.y.z")]).await;
    assert_eq!(
        junk.headers["www-authenticate"],
        r#"Bearer error="invalid_token""#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_and_without_them_the_issuers_tokens_are_refused() {
    let Some(made) = from_pyjwt() else { return };
    let (world, app) = (World::start().await, Web::mirror().await);
    let (page, shown) = watch::channel("{}".to_owned());
    let issuer = Web::start(move |_| shown.borrow().clone()).await;
    let rule = json!({"issuer": "https://issuer.test", "jwksUri": format!("http://{}/keys", issuer.address)});
    let setup = || {
        world
            .backend_proxy()
            .policy("tokens.yaml", &authentication(&rule))
            .inbound(&app.address, json!({"protocol": "http"}))
    };
    let token = made["good"]["ES256"].as_str();
    // Loopback is never dialled unless the operator says so, whoever wrote the rule.
    let careful = setup().start().await;
    assert_eq!(verdict(&careful, "/", token).await, StatusCode::UNAUTHORIZED);
    let reason = |record: &Value| record["reason"] == "token_no_keys";
    careful.record("a refusal for want of keys", reason).await;
    drop(careful);

    let open = json!({"allowed_cidrs": ["127.0.0.0/8"]});
    let unfed = setup().set("jwt", open.clone()).start().await;
    assert_eq!(
        verdict(&unfed, "/", token).await,
        StatusCode::UNAUTHORIZED,
        "a page without keys is none"
    );
    drop(unfed);
    page.send_replace(made["jwks"].to_string());
    let proxy = setup().set("jwt", open).start().await;
    until("the keys to be there", SOON, async || {
        verdict(&proxy, "/", token).await == StatusCode::OK
    })
    .await;
    // The issuer being gone changes nothing.
    drop(issuer);
    assert_eq!(verdict(&proxy, "/", token).await, StatusCode::OK);
    assert_eq!(
        verdict(&proxy, "/", made["bad"]["unknown_kid"].as_str()).await,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_count_instead_of_an_address_that_cannot_be_reached_and_are_read_again() {
    let Some(made) = from_pyjwt() else { return };
    let (world, app) = (World::start().await, Web::mirror().await);
    // The policy stays as it is written for a cluster that reaches the issuer.
    let rule = json!({"issuer": "https://issuer.test", "jwksUri": "https://issuer.invalid/keys"});
    let setup = world
        .backend_proxy()
        .policy("tokens.yaml", &authentication(&rule));
    let file = setup.dir().write("keys.json", "not yet");
    let issuers = json!({"issuers": [{"issuer": "https://issuer.test", "jwks_file": file}]});
    let proxy = setup
        .set("jwt", issuers)
        .inbound(&app.address, json!({"protocol": "http"}))
        .start()
        .await;
    let token = made["good"]["ES256"].as_str();
    assert_eq!(verdict(&proxy, "/", token).await, StatusCode::UNAUTHORIZED);
    std::fs::write(&file, made["jwks"].to_string()).unwrap();
    until("the file to be read", SOON, async || {
        verdict(&proxy, "/", token).await == StatusCode::OK
    })
    .await;
    std::fs::write(&file, "{").unwrap();
    until("the fault to be told", SOON, async || {
        let scrape = proxy.scrape().await;
        scrape.outcome("signet_proxy_jwt_key_fetches_total", "unusable") == 2
    })
    .await;
    assert_eq!(
        verdict(&proxy, "/", token).await,
        StatusCode::OK,
        "the last good keys"
    );
}
