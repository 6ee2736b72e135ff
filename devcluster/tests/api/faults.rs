//! Faults, and the counters that show what they cost.

use std::time::Duration;

use http::Request;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use signet_devcluster::{Fault, FaultScope, TokenSpec};

use crate::support::{admin, cluster, refusal, send, within};

async fn review(client: &Client, token: &str) -> Result<TokenReview, kube::Error> {
    let spec = TokenReviewSpec {
        token: Some(token.to_owned()),
        audiences: Some(vec!["signet-ca".to_owned()]),
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    reviews
        .create(
            &PostParams::default(),
            &TokenReview {
                spec,
                ..TokenReview::default()
            },
        )
        .await
}

#[tokio::test]
async fn review_faults_leave_other_requests_alone() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let token = cluster
        .mint_token(&TokenSpec::new("billing", "api").audience("signet-ca"))
        .unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());

    cluster.set_fault(FaultScope::TokenReviews, Fault::InternalError);
    assert_eq!(
        refusal(within(review(&client, &token)).await).reason,
        "InternalError"
    );
    within(namespaces.list(&ListParams::default())).await.unwrap();

    cluster.set_fault(FaultScope::TokenReviews, Fault::Garbage);
    assert!(matches!(
        within(review(&client, &token)).await,
        Err(kube::Error::SerdeError(_))
    ));

    let body = r#"{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{},"status":{}}"#;
    cluster.set_fault(
        FaultScope::TokenReviews,
        Fault::Answer {
            status: 201,
            body: body.to_owned(),
        },
    );
    assert_eq!(
        within(review(&client, &token))
            .await
            .unwrap()
            .status
            .unwrap()
            .authenticated,
        None
    );

    cluster.clear_fault(FaultScope::TokenReviews);
    assert_eq!(
        within(review(&client, &token))
            .await
            .unwrap()
            .status
            .unwrap()
            .authenticated,
        Some(true)
    );
    assert_eq!(cluster.counts().token_reviews(), 4);
}

#[tokio::test]
async fn overload_says_when_to_come_back() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let fault = Fault::TooManyRequests {
        retry_after: Duration::from_secs(7),
    };
    cluster.set_fault(FaultScope::TokenReviews, fault);
    let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
        .body(Body::empty())
        .unwrap();
    let response = within(client.send(request)).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "7");
}

#[tokio::test]
async fn a_hanging_review_is_answered_once_the_fault_is_cleared() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let token = cluster
        .mint_token(&TokenSpec::new("billing", "api").audience("signet-ca"))
        .unwrap();
    cluster.set_fault(FaultScope::TokenReviews, Fault::Hang);
    let hanging = tokio::spawn({
        let (client, token) = (client.clone(), token.clone());
        async move { review(&client, &token).await }
    });
    // The request has arrived once it is counted, and everything else is still answered.
    within(async {
        while cluster.counts().token_reviews() == 0 {
            assert_eq!(send(&client, "GET", "/readyz", "").await.0, 200);
        }
    })
    .await;
    assert!(!hanging.is_finished());
    cluster.clear_fault(FaultScope::TokenReviews);
    let answered = within(hanging).await.unwrap().unwrap();
    assert_eq!(answered.status.unwrap().authenticated, Some(true));
}

#[tokio::test]
async fn a_closed_connection_is_an_error_and_the_next_one_works() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    cluster.set_fault(FaultScope::AllRequests, Fault::CloseConnection);
    let namespaces: Api<Namespace> = Api::all(client);
    assert!(!matches!(
        within(namespaces.list(&ListParams::default())).await,
        Ok(_) | Err(kube::Error::Api(_))
    ));
    cluster.clear_fault(FaultScope::AllRequests);
    within(namespaces.list(&ListParams::default())).await.unwrap();
}

#[tokio::test]
async fn a_delay_holds_the_answer_back() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let delay = Duration::from_millis(200);
    cluster.set_fault(FaultScope::AllRequests, Fault::Delay(delay));
    let start = tokio::time::Instant::now();
    assert_eq!(send(&client, "GET", "/version", "").await.0, 200);
    assert!(start.elapsed() >= delay);
}

#[tokio::test]
async fn requests_are_counted_by_verb_and_resource() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    for path in [
        "/api/v1/pods",
        "/api/v1/namespaces/billing/pods",
        "/api/v1/pods?watch=1&timeoutSeconds=0",
    ] {
        send(&client, "GET", path, "").await;
    }
    send(&client, "GET", "/api/v1/nowhere/x", "").await;
    send(
        &client,
        "POST",
        "/api/v1/namespaces/billing/serviceaccounts/api/token",
        "{}",
    )
    .await;
    let counts = cluster.counts();
    assert_eq!((counts.get("list", "pods"), counts.get("watch", "pods")), (2, 1));
    assert_eq!(counts.get("get", "other"), 1);
    assert_eq!(counts.get("create", "serviceaccounts/token"), 1);
    assert_eq!(counts.total(), 5);
    assert_eq!(counts.iter().count(), 4);
}
