//! Who may ask what.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use signet_devcluster::{Account, DevCluster, Grants, Options, Rule, TokenSpec};

use crate::support::{admin, client, cluster, cluster_with, refusal, send, within};

fn api_token(cluster: &DevCluster) -> String {
    cluster.mint_token(&TokenSpec::new("billing", "api")).unwrap()
}

#[tokio::test]
async fn strangers_are_unauthorized_everywhere_but_at_the_health_checks() {
    let cluster = cluster();
    let other_audience = cluster
        .mint_token(&TokenSpec::new("billing", "api").audience("signet-ca"))
        .unwrap();
    for token in ["", "x", &other_audience] {
        let stranger = client(&cluster, token).await;
        for path in ["/api", "/api/v1/pods", "/openid/v1/jwks", "/nowhere"] {
            let (status, answer) = send(&stranger, "GET", path, "").await;
            assert_eq!(status, 401, "{path}");
            assert_eq!(answer["message"], "Unauthorized");
        }
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(
                send(&stranger, "GET", path, "").await,
                (http::StatusCode::OK, json!("ok"))
            );
        }
        assert_eq!(
            send(&stranger, "GET", "/version", "").await.1["gitVersion"],
            "v1.33.0+signet-devcluster"
        );
    }
}

#[tokio::test]
async fn accounts_may_only_what_they_were_granted() {
    let cluster = cluster();
    let account = client(&cluster, &api_token(&cluster)).await;
    let pods: Api<Pod> = Api::namespaced(account.clone(), "billing");
    let everywhere: Api<Pod> = Api::all(account.clone());
    let status = refusal(within(pods.list(&ListParams::default())).await);
    let user = "system:serviceaccount:billing:api";
    assert_eq!(status.code, 403);
    assert_eq!(
        status.message,
        format!(
            "pods is forbidden: User \"{user}\" cannot list resource \"pods\" in API group \"\" in the namespace \"billing\""
        )
    );
    cluster.grant(
        Account::new("billing", "api"),
        Grants::none().allow_in("billing", ["list"], "", ["pods"]),
    );
    within(pods.list(&ListParams::default())).await.unwrap();
    assert_eq!(
        refusal(within(everywhere.list(&ListParams::default())).await).code,
        403
    );
    let secrets: Api<Secret> = Api::namespaced(account, "billing");
    let status = refusal(within(secrets.get("x")).await);
    assert!(
        status.message.starts_with("secrets \"x\" is forbidden: "),
        "{}",
        status.message
    );
    cluster.grant(Account::new("billing", "api"), Grants::allow_everything());
    assert_eq!(refusal(within(secrets.get("x")).await).code, 404);
    within(secrets.create(&PostParams::default(), &named("x")))
        .await
        .unwrap();
}

fn named(name: &str) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret
}

#[tokio::test]
async fn subresources_are_granted_apart() {
    let everything_on_accounts = Rule {
        verb: "*".to_owned(),
        group: String::new(),
        resource: "serviceaccounts".to_owned(),
        namespace: None,
    };
    let grants = Grants::none().rule(everything_on_accounts);
    let cluster = cluster_with(Options {
        grants: vec![(Account::new("billing", "api"), grants)],
        ..Options::default()
    });
    let account = client(&cluster, &api_token(&cluster)).await;
    let path = "/api/v1/namespaces/billing/serviceaccounts/api/token";
    let (status, answer) = send(&account, "POST", path, "{}").await;
    assert_eq!(status, 403);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("resource \"serviceaccounts/token\""),
        "{answer}"
    );
    assert_eq!(send(&account, "GET", "/api/v1/serviceaccounts", "").await.0, 200);
}

#[tokio::test]
async fn keys_are_readable_by_option_only() {
    for readable in [true, false] {
        let cluster = cluster_with(Options {
            jwks_readable: readable,
            ..Options::default()
        });
        let account = client(&cluster, &api_token(&cluster)).await;
        let (status, answer) = send(&account, "GET", "/openid/v1/jwks", "").await;
        assert_eq!(status.as_u16(), if readable { 200 } else { 403 });
        if !readable {
            let user = "system:serviceaccount:billing:api";
            let message = format!("forbidden: User \"{user}\" cannot get path \"/openid/v1/jwks\"");
            assert_eq!(answer["message"], message);
        }
    }
}

#[tokio::test]
async fn callers_can_ask_what_they_may() {
    let cluster = cluster();
    let question =
        json!({"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}}).to_string();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (_, answer) = send(&admin(&cluster).await, "POST", path, &question).await;
    assert_eq!(answer["status"]["allowed"], true);
    let account = client(&cluster, &api_token(&cluster)).await;
    let (status, answer) = send(&account, "POST", path, &question).await;
    assert_eq!(
        (status.as_u16(), &answer["status"]["allowed"]),
        (201, &json!(false))
    );
}
