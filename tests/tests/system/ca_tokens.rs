//! Tokens that do not pass. The stranger is told one sentence; the operator's metrics, audit log and
//! `token/check` page say which of many reasons it was.

use std::time::Duration;

use serde_json::{Value, json};
use signet_devcluster::{Fault, FaultScope, OldKey, TokenSpec};
use signet_tests::ca::Ca;
use signet_tests::client::Ask;
use signet_tests::cluster::{AUDIENCE, Cluster};
use tonic::Code;

const STRANGER: &str =
    "request authenticate failure: the token was not accepted; `signet token check` tells why";

struct Case {
    cluster: Cluster,
    ca: Ca,
}

impl Case {
    async fn new() -> Self {
        let cluster = Cluster::start();
        let ca = Ca::start(&cluster).await;
        Self { cluster, ca }
    }

    /// Sends `token`; it has to be refused for `reason`. Answers what `token/check` says of it.
    async fn refused(&self, token: &str, reason: &str) -> Value {
        let said = Ask::good()
            .token(token)
            .refused(&self.ca, Code::Unauthenticated)
            .await;
        assert_eq!(said, STRANGER);
        let scrape = self.ca.scrape().await;
        assert_eq!(
            scrape.outcome("signet_ca_csrs_total", reason),
            1,
            "{}",
            scrape.text()
        );
        assert_eq!(scrape.outcome("signet_ca_authentications_total", reason), 1);
        let audited = format!("\"reason\":\"{reason}\"");
        assert!(
            self.ca.process.output().contains(&audited),
            "no audit record with {audited}"
        );
        let checked = self
            .ca
            .admin()
            .post("/v1/token/check", &json!({"token": token}))
            .await
            .unwrap();
        assert_eq!(checked["accepted"], false);
        assert_eq!(checked["reason"], reason);
        assert!(!checked["fix"].as_str().unwrap().is_empty());
        checked
    }

    /// As [`Case::refused`], and the API server was not asked.
    async fn refused_unasked(&self, token: &str, reason: &str) -> Value {
        let before = self.cluster.api.counts().token_reviews();
        let checked = self.refused(token, reason).await;
        assert_eq!(
            self.cluster.api.counts().token_reviews(),
            before,
            "no review was worth it"
        );
        checked
    }

    /// A token of `shop/cart` that is sound but for what `change` did to its claims.
    fn claims(&self, change: impl FnOnce(&mut Value)) -> String {
        self.cluster.workload("shop", "cart");
        let now = signet_tests::client::now().as_secs();
        let mut claims = json!({
            "aud": [AUDIENCE], "exp": now + 3600, "iat": now, "nbf": now,
            "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:shop:cart",
        });
        change(&mut claims);
        self.cluster.api.sign_claims(&claims).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_other_schemes_are_refused() {
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    for ask in [
        Ask::good(),
        Ask::good().header("authorization", &format!("Basic {token}")),
        Ask::good().header("authorization", &format!("bearer {token}")),
        Ask::good().header("authorization", &token),
    ] {
        assert_eq!(ask.refused(&case.ca, Code::Unauthenticated).await, STRANGER);
    }
    assert_eq!(
        case.ca.scrape().await.outcome("signet_ca_csrs_total", "no_token"),
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_token_is_refused() {
    let checked = Case::new().await.refused_unasked("", "token_empty").await;
    assert_eq!(checked["explanation"], "token is empty");
    assert_eq!(
        checked["fix"],
        "pass the whole file of the projected service-account token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_token_is_refused() {
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    let short = &token[..token.rfind('.').unwrap()];
    let checked = case.refused_unasked(short, "token_malformed").await;
    assert_eq!(
        checked["explanation"],
        "token is not a signed JWT; is the whole file sent?"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_cut_inside_its_signature_is_refused() {
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    let checked = case
        .refused_unasked(&token[..token.len() - 8], "bad_signature")
        .await;
    assert_eq!(
        checked["explanation"],
        "token is not signed by a key of this cluster's API server"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_token_is_refused() {
    let case = Case::new().await;
    let token = "x".repeat(17 * 1024);
    let checked = case.refused_unasked(&token, "token_too_large").await;
    assert_eq!(
        checked["explanation"],
        "token has 17408 bytes, at most 16384 are read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_refused_with_its_age() {
    let case = Case::new().await;
    let token = case.claims(|c| c["exp"] = (signet_tests::client::now().as_secs() - 600).into());
    let checked = case.refused_unasked(&token, "token_expired").await;
    let said = checked["explanation"].as_str().unwrap();
    assert!(
        said.starts_with("token expired 60") && said.ends_with(" s ago"),
        "{said}"
    );
    assert_eq!(
        checked["fix"],
        "read the token file again; kubelet replaces it before it expires"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_future_is_refused() {
    let case = Case::new().await;
    let token = case.claims(|c| c["nbf"] = (signet_tests::client::now().as_secs() + 600).into());
    let checked = case.refused_unasked(&token, "token_not_yet_valid").await;
    assert!(
        checked["explanation"]
            .as_str()
            .unwrap()
            .contains("compare this machine's clock")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_an_end_is_refused() {
    let case = Case::new().await;
    let token = case.claims(|c| drop(c.as_object_mut().unwrap().remove("exp")));
    let checked = case.refused_unasked(&token, "token_no_expiry").await;
    assert_eq!(
        checked["explanation"],
        "token has no expiry; use a projected token, not a legacy Secret token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_audience_is_refused_naming_both() {
    let case = Case::new().await;
    case.cluster.workload("shop", "cart");
    let token = case
        .cluster
        .mint(&TokenSpec::new("shop", "cart").audience("vault").pod("cart-0"));
    let checked = case.refused_unasked(&token, "token_audience").await;
    assert_eq!(
        checked["explanation"],
        "token is for audience [\"vault\"], this CA accepts [\"signet-ca\"]"
    );
    assert_eq!(
        checked["fix"],
        "set the audience of the projected token: \
         volumes[].projected.sources[].serviceAccountToken.audience: signet-ca"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_a_foreign_signature_is_refused() {
    let case = Case::new().await;
    let other = Cluster::start();
    let checked = case
        .refused_unasked(&other.token("shop", "cart"), "bad_signature")
        .await;
    assert!(
        checked["fix"]
            .as_str()
            .unwrap()
            .starts_with("use a token of this cluster")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_token_is_refused() {
    use base64::Engine as _;
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let rest = token.split_once('.').unwrap().1;
    let checked = case
        .refused_unasked(&format!("{header}.{rest}"), "token_algorithm")
        .await;
    assert_eq!(
        checked["explanation"],
        "token is signed with \"none\", which is not accepted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_user_that_is_no_service_account_is_refused() {
    let case = Case::new().await;
    let token = case.claims(|c| c["sub"] = "alice".into());
    let checked = case.refused_unasked(&token, "token_subject").await;
    assert_eq!(
        checked["explanation"],
        "token belongs to \"alice\", which is not a service account"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewed_user_that_is_no_service_account_is_refused() {
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    // By name it is one, by group it is not.
    answer(
        &case.cluster,
        &json!({
            "authenticated": true, "audiences": [AUDIENCE],
            "user": {"username": "system:serviceaccount:shop:cart", "groups": ["system:authenticated"]},
        }),
    );
    case.refused(&token, "review_not_service_account").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_names_another_account_is_refused() {
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    answer(
        &case.cluster,
        &json!({
            "authenticated": true, "audiences": [AUDIENCE],
            "user": {"username": "system:serviceaccount:shop:bank",
                     "groups": ["system:serviceaccounts", "system:serviceaccounts:shop"]},
        }),
    );
    let checked = case.refused(&token, "review_other_account").await;
    assert_eq!(
        checked["explanation"],
        "token review: the API server says shop/bank, the token says shop/cart"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_without_audiences_or_with_others_is_refused() {
    for audiences in [json!(null), json!([]), json!(["https://kubernetes.default.svc"])] {
        let case = Case::new().await;
        let token = case.cluster.token("shop", "cart");
        answer(
            &case.cluster,
            &json!({
                "authenticated": true, "audiences": audiences,
                "user": {"username": "system:serviceaccount:shop:cart",
                         "groups": ["system:serviceaccounts", "system:serviceaccounts:shop"]},
            }),
        );
        let checked = case.refused(&token, "review_audiences").await;
        assert_eq!(
            checked["explanation"],
            "token review: the API server did not confirm any of our audiences"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_deleted_pod_is_refused() {
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    case.cluster.api.delete_pod("shop", "cart-0").unwrap();
    let checked = case.refused(&token, "review_refused").await;
    assert!(
        checked["explanation"]
            .as_str()
            .unwrap()
            .starts_with("token review: the API server refused the token: ")
    );
    assert!(
        checked["fix"]
            .as_str()
            .unwrap()
            .starts_with("check that the pod and its service account still exist")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_deleted_account_is_refused() {
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    case.cluster.api.delete_service_account("shop", "cart").unwrap();
    case.refused(&token, "review_refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_new_signing_key_pass_once_the_keys_are_read_again() {
    let case = Case::new().await;
    Ask::good()
        .token(&case.cluster.token("shop", "cart"))
        .at(&case.ca)
        .await
        .unwrap();
    case.cluster.api.rotate_signing_key(OldKey::Keep).unwrap();
    // Within seconds: unknown key ids cause a fetch at a bounded rate.
    let token = case.cluster.token("shop", "bank");
    signet_tests::wait::until("the new key to be known", Duration::from_secs(20), async || {
        Ask::good().token(&token).at(&case.ca).await.is_ok()
    })
    .await;
    // The old key is still published, so old tokens still pass.
    Ask::good()
        .token(&case.cluster.token("shop", "cart"))
        .at(&case.ca)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_readable_keys_the_review_decides_alone() {
    let options = signet_devcluster::Options {
        jwks_readable: false,
        ..signet_devcluster::Options::default()
    };
    let cluster = Cluster::with(options);
    let ca = Ca::start(&cluster).await;
    Ask::good()
        .token(&cluster.token("shop", "cart"))
        .at(&ca)
        .await
        .unwrap();
    let foreign = Cluster::start().token("shop", "cart");
    assert_eq!(
        Ask::good()
            .token(&foreign)
            .refused(&ca, Code::Unauthenticated)
            .await,
        STRANGER
    );
    let scrape = ca.scrape().await;
    assert_eq!(scrape.outcome("signet_ca_jwks_fetches_total", "skipped"), 2);
    assert_eq!(scrape.outcome("signet_ca_csrs_total", "review_refused"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_token_is_explained_too() {
    let case = Case::new().await;
    let token = case.cluster.token("shop", "cart");
    let checked = case
        .ca
        .admin()
        .post("/v1/token/check", &json!({"token": token}))
        .await
        .unwrap();
    assert_eq!(checked["accepted"], true);
    assert_eq!(checked["account"], "shop/cart");
    assert_eq!(checked["pod"], "cart-0");
    assert_eq!(checked["audiences"], json!([AUDIENCE]));
    assert_eq!(checked["spiffe_id"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert!(!checked.to_string().contains(&token));
}

/// Makes every TokenReview answer with this status.
fn answer(cluster: &Cluster, status: &Value) {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "metadata": {}, "spec": {"token": "x"}, "status": status,
    });
    let fault = Fault::Answer {
        status: 201,
        body: review.to_string(),
    };
    cluster.api.set_fault(FaultScope::TokenReviews, fault);
}
