//! TokenReviews: how many, and what happens when the API server is not well.

use std::time::Duration;

use futures::future::join_all;
use signet_devcluster::{Fault, FaultScope, TokenSpec};
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::{Ask, Dial};
use signet_tests::cluster::{AUDIENCE, Cluster};
use signet_tests::wait::{SOON, until, within};
use tonic::Code;

const UNAVAILABLE: &str = "the API server cannot be asked about the token; try again";

#[tokio::test(flavor = "multi_thread")]
async fn identical_requests_in_flight_share_one_review_and_later_ones_need_none() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let token = cluster.token("shop", "cart");
    let before = cluster.api.counts().token_reviews();
    cluster
        .api
        .set_fault(FaultScope::TokenReviews, Fault::Delay(Duration::from_millis(500)));
    let channel = Dial::default().channel(&ca).await;
    let asks: Vec<Ask> = (0..40).map(|_| Ask::good().token(&token)).collect();
    for answer in join_all(asks.iter().map(|ask| ask.send(&channel))).await {
        answer.unwrap();
    }
    assert_eq!(cluster.api.counts().token_reviews() - before, 1);
    for _ in 0..5 {
        Ask::good().token(&token).send(&channel).await.unwrap();
    }
    assert_eq!(cluster.api.counts().token_reviews() - before, 1);
    assert!(ca.scrape().await.outcome("signet_ca_token_cache_total", "hit") >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_ends_with_its_token() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    cluster.workload("shop", "cart");
    let spec = TokenSpec::new("shop", "cart")
        .audience(AUDIENCE)
        .pod("cart-0")
        .lifetime(Duration::from_secs(5));
    let token = cluster.mint(&spec);
    let before = cluster.api.counts().token_reviews();
    let channel = Dial::default().channel(&ca).await;
    Ask::good().token(&token).send(&channel).await.unwrap();
    assert_eq!(cluster.api.counts().token_reviews() - before, 1);
    // The API server gives tokens a minute more; what we keep does not.
    until("another review", SOON, async || {
        Ask::good().token(&token).send(&channel).await.unwrap();
        cluster.api.counts().token_reviews() - before == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_kept_for_seconds_only() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let token = cluster.token("shop", "cart");
    cluster.api.delete_pod("shop", "cart-0").unwrap();
    let before = cluster.api.counts().token_reviews();
    for _ in 0..3 {
        Ask::good()
            .token(&token)
            .refused(&ca, Code::Unauthenticated)
            .await;
    }
    assert_eq!(cluster.api.counts().token_reviews() - before, 1);
    assert_eq!(
        ca.scrape()
            .await
            .outcome("signet_ca_token_cache_total", "negative_hit"),
        2
    );
    until("another review", SOON, async || {
        Ask::good()
            .token(&token)
            .refused(&ca, Code::Unauthenticated)
            .await;
        cluster.api.counts().token_reviews() - before == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_hangs_ends_at_its_deadline_and_is_not_kept() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("review_timeout", "400ms")
        .start()
        .await;
    let token = cluster.token("shop", "cart");
    cluster.api.set_fault(FaultScope::TokenReviews, Fault::Hang);
    // Were it not ended by its own deadline, the call would end by that of calls, and say so.
    assert_eq!(
        Ask::good().token(&token).refused(&ca, Code::Unavailable).await,
        UNAVAILABLE
    );
    cluster.api.clear_fault(FaultScope::TokenReviews);
    Ask::good().token(&token).at(&ca).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_api_server_is_told_as_unavailable_and_not_kept() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster).set("review_timeout", "2s").start().await;
    let token = cluster.token("shop", "cart");
    let faults = [
        Fault::InternalError,
        Fault::TooManyRequests {
            retry_after: Duration::from_secs(30),
        },
        Fault::Garbage,
        Fault::CloseConnection,
        Fault::Answer {
            status: 201,
            body: r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview"}"#.into(),
        },
    ];
    for (already, fault) in faults.into_iter().enumerate() {
        cluster.api.set_fault(FaultScope::TokenReviews, fault.clone());
        let before = cluster.api.counts().token_reviews();
        let said = Ask::good().token(&token).refused(&ca, Code::Unavailable).await;
        assert_eq!(said, UNAVAILABLE, "{fault:?}");
        assert_eq!(
            cluster.api.counts().token_reviews() - before,
            1,
            "one review, no hidden retries: {fault:?}"
        );
        let scrape = ca.scrape().await;
        assert_eq!(
            scrape.outcome("signet_ca_csrs_total", "review_unavailable"),
            already as u64 + 1
        );
        // The operator's side tells more, and never the token.
        let checked = ca
            .admin()
            .post("/v1/token/check", &serde_json::json!({"token": token}))
            .await
            .unwrap();
        assert_eq!(checked["reason"], "review_unavailable", "{fault:?}");
        assert!(checked["fix"].as_str().unwrap().contains("tokenreviews"));
        assert!(!checked.to_string().contains(&token));
    }
    cluster.api.clear_fault(FaultScope::TokenReviews);
    Ask::good().token(&token).at(&ca).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_api_server_is_no_unreadiness_and_kept_answers_go_on() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster).set("review_timeout", "1s").start().await;
    let (known, new) = (cluster.token("shop", "cart"), cluster.token("shop", "bank"));
    Ask::good().token(&known).at(&ca).await.unwrap();
    cluster.api.shutdown().await;
    Ask::good().token(&known).at(&ca).await.unwrap();
    assert_eq!(
        Ask::good().token(&new).refused(&ca, Code::Unavailable).await,
        UNAVAILABLE
    );
    let ready = signet_tests::http::get(&ca.metrics, "/healthz/ready")
        .await
        .unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert_eq!(ca.admin().get("/v1/status").await["ready"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_whose_reviews_were_never_answered_is_not_ready_and_says_why() {
    let cluster = Cluster::start();
    cluster
        .api
        .set_fault(FaultScope::TokenReviews, Fault::InternalError);
    let setup = CaSetup::new(&cluster);
    let admin = setup.admin();
    let process = setup.spawn();
    let status = signet_tests::wait::until_some("a status", SOON, async || {
        let status = admin.try_get("/v1/status").await.ok()?;
        status["missing"][0].as_str()?.contains("500").then_some(status)
    })
    .await;
    assert_eq!(status["ready"], false);
    assert!(
        status["missing"][0]
            .as_str()
            .unwrap()
            .starts_with("token_review: token review is unavailable: 500")
    );
    let metrics = status["metrics_address"].as_str().unwrap();
    let ready = signet_tests::http::get(metrics, "/healthz/ready").await.unwrap();
    assert_eq!(ready.status, 503);
    assert_eq!(
        signet_tests::http::get(metrics, "/healthz/live")
            .await
            .unwrap()
            .status,
        200
    );
    cluster.api.clear_fault(FaultScope::TokenReviews);
    until("readiness", SOON, async || {
        admin.get("/v1/status").await["ready"] == true
    })
    .await;
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_holds_its_share_of_reviews_and_others_are_served_meanwhile() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("reviews_in_flight", 8)
        .set("review_timeout", "9s")
        .start()
        .await;
    let greedy: Vec<Ask> = (0..12)
        .map(|n| Ask::good().token(&cluster.token("shop", &format!("cart-{n}"))))
        .collect();
    let modest = Ask::good().token(&cluster.token("shop", "modest"));
    cluster.api.set_fault(FaultScope::TokenReviews, Fault::Hang);
    let before = cluster.api.counts().token_reviews();
    let reviews = || cluster.api.counts().token_reviews() - before;
    let in_flight = async |calls: f64| {
        until("the calls to be in flight", SOON, async || {
            ca.scrape().await.value("signet_ca_requests_in_flight", &[]) >= calls
        })
        .await;
    };
    let channel = Dial::default().channel(&ca).await;
    let greedy = tokio::spawn(async move { join_all(greedy.iter().map(|ask| ask.send(&channel))).await });
    in_flight(12.0).await;
    // A quarter of eight, and a place at once for somebody else.
    until("the share", SOON, async || reviews() >= 2).await;
    let other = Dial::default()
        .channel_from("127.0.0.2".parse().unwrap(), &ca)
        .await;
    let modest = tokio::spawn(async move { modest.send(&other).await });
    until("the other's review", SOON, async || reviews() >= 3).await;
    in_flight(13.0).await;
    assert_eq!(reviews(), 3, "two of the one peer and one of the other");

    // Six rounds of the one, one of the other.
    cluster
        .api
        .set_fault(FaultScope::TokenReviews, Fault::Delay(Duration::from_millis(500)));
    within("the other's answer", SOON, modest).await.unwrap().unwrap();
    assert!(!greedy.is_finished(), "the one still waits for its own");
    for answer in greedy.await.unwrap() {
        answer.unwrap();
    }
}
