//! Two trust domains that federate both ways: bundles over both profiles, proof, rotation, restart, end.

use std::path::Path;
use std::time::Duration;

use ::http::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use signet_certs::{JwtSvid, TrustBundle};
use signet_devcluster::Options;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::now;
use signet_tests::cluster::Cluster;
use signet_tests::trust::{Mint, Watch, foreign, set, trust};
use signet_tests::wait::{SOON, until, until_some};
use signet_tests::{http, tls};

/// Polls come at least every five seconds.
const POLLED: Duration = Duration::from_secs(20);
const AUDIENCE: &str = "x";

/// A CA of `domain` that serves its bundle by the given endpoint.
fn domain(cluster: &Cluster, domain: &str, endpoint: Value) -> CaSetup {
    CaSetup::new(cluster)
        .set("trust_domain", domain)
        .set("bundle_refresh_hint", "1s")
        .set("bundle_endpoint", endpoint)
        .named(domain)
}

fn by_spiffe() -> Value {
    json!({"listen": "127.0.0.1:0", "profile": "https_spiffe"})
}

async fn endpoint(ca: &Ca) -> String {
    let status = ca.admin().get("/v1/status").await;
    status["bundle_endpoint_address"].as_str().unwrap().to_owned()
}

async fn fetched(address: &str) -> http::Answer {
    let stream = tls::connect(address, None).await.unwrap();
    http::exchange(stream, Method::GET, "/", String::new())
        .await
        .unwrap()
}

/// The bundle in the form it is handed over by hand.
async fn jwks(ca: &Ca) -> String {
    let bundle = ca.admin().get("/v1/bundle").await;
    bundle["jwks"].as_str().unwrap().to_owned()
}

fn self_serving(name: &str, address: &str, bundle: &Path) -> Value {
    json!({
        "trust_domain": name, "url": format!("https://{address}/"), "profile": "https_spiffe",
        "endpoint_spiffe_id": format!("spiffe://{name}/ns/signet-system/sa/signet-ca"),
        "bundle_file": bundle,
    })
}

/// Web PKI in small: a CA, and a server certificate for 127.0.0.1 with its key.
fn web_pki() -> (String, String, String) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let mut server = CertificateParams::default();
    server.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    let key = KeyPair::generate().unwrap();
    let server = server.signed_by(&key, &ca).unwrap();
    (ca.pem(), server.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_gives_its_newest_bundle_to_whoever_asks_and_nothing_else() {
    let cluster = Cluster::with(Options::default());
    let ca = domain(&cluster, "a.test", by_spiffe()).start().await;
    let address = endpoint(&ca).await;
    let answer = fetched(&address).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (http::OK, Some("application/json"))
    );
    let bundle = TrustBundle::from_jwks("a.test".parse().unwrap(), answer.body.as_bytes()).unwrap();
    let own = trust(&ca).await.own;
    assert!(bundle.same_content(&own) && bundle.sequence() == own.sequence());
    assert_eq!(bundle.refresh_hint(), Some(Duration::from_secs(1)));
    let shown = tls::served(&address).await.unwrap();
    assert_eq!(
        shown.id().as_str(),
        "spiffe://a.test/ns/signet-system/sa/signet-ca"
    );

    let posted = tls::connect(&address, None).await.unwrap();
    let posted = http::exchange(posted, Method::POST, "/", String::new())
        .await
        .unwrap();
    assert_eq!(posted.status.as_u16(), 405);
    let other = tls::connect(&address, None).await.unwrap();
    let other = http::exchange(other, Method::GET, "/state.json", String::new())
        .await
        .unwrap();
    assert_eq!(other.status.as_u16(), 404);
    assert!(
        http::get(&address, "/").await.is_err(),
        "plain HTTP is not spoken"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_domains_federate_both_ways_over_both_profiles_and_follow_each_others_keys() {
    let (here, there) = (Cluster::start(), Cluster::start());
    let (root, chain, key) = web_pki();
    let mut a = domain(&here, "a.test", by_spiffe())
        .set(
            "jwt_svid",
            json!({"ttl": "10s", "max_ttl": "10s", "key_life": "10s"}),
        )
        .start()
        .await;
    let setup = domain(&there, "b.test", Value::Null);
    let web = json!({
        "listen": "127.0.0.1:0", "profile": "https_web",
        "certificate_file": setup.dir().write("web.pem", &chain),
        "key_file": setup.dir().write_secret("web.key", &key),
    });
    let bootstrap = setup.dir().write("a.json", jwks(&a).await);
    let b = setup
        .set("bundle_endpoint", web)
        .set(
            "federation",
            json!([self_serving("a.test", &endpoint(&a).await, &bootstrap)]),
        )
        .start()
        .await;

    let listen = endpoint(&a).await;
    a.setup.change(
        "bundle_endpoint",
        json!({"listen": listen, "profile": "https_spiffe"}),
    );
    let ca_file = a.setup.dir().write("web-root.pem", &root);
    let url = format!("https://{}/", endpoint(&b).await);
    a.setup.change(
        "federation",
        json!([{"trust_domain": "b.test", "url": url, "profile": "https_web", "ca_file": ca_file}]),
    );
    a.process.terminate().await;
    a.start_again().await;

    let (mut of_a, mut of_b) = (Watch::open(&a).await, Watch::open(&b).await);
    let knows = of_a
        .until("a knows b", POLLED, |t| foreign(t, "b.test").is_some())
        .await;
    let theirs = trust(&b).await.own;
    assert!(foreign(&knows, "b.test").unwrap().same_content(&theirs));

    // A token of one domain is good in the other, and only as what it is.
    let caller = there.token("shop", "cart");
    let token = Mint::audience(&[AUDIENCE]).token(&caller).at(&b).await.unwrap();
    let found = JwtSvid::validate(&token, AUDIENCE, &set(&knows), now()).unwrap();
    assert_eq!(found.id.as_str(), "spiffe://b.test/ns/shop/sa/cart");

    // A's keys change every ten seconds; B follows.
    let before = of_b.next(SOON).await;
    let before = foreign(&before, "a.test").unwrap().sequence();
    of_b.until("b follows a's new key", POLLED, |t| {
        foreign(t, "a.test").is_some_and(|bundle| bundle.sequence() > before)
    })
    .await;
    let scrape = b.scrape().await;
    assert!(scrape.outcome("signet_ca_federation_polls_total", "updated") >= 1);
    assert!(scrape.outcome("signet_ca_federation_stores_total", "stored") >= 1);
    assert_eq!(scrape.value("signet_ca_federated_domains", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_last_survives_a_restart_and_proves_the_endpoint_from_then_on() {
    let (here, there) = (Cluster::start(), Cluster::start());
    let mut a = domain(&here, "a.test", by_spiffe())
        .set(
            "jwt_svid",
            json!({"ttl": "10s", "max_ttl": "10s", "key_life": "10s"}),
        )
        .start()
        .await;
    let first = trust(&a).await.own.sequence();
    let setup = domain(&there, "b.test", Value::Null);
    let bootstrap = setup.dir().write("a.json", jwks(&a).await);
    let mut b = setup
        .set(
            "federation",
            json!([self_serving("a.test", &endpoint(&a).await, &bootstrap)]),
        )
        .start()
        .await;
    let mut watch = Watch::open(&b).await;
    let newer = |t: &signet_proto::authority::Trust| {
        foreign(t, "a.test").is_some_and(|bundle| bundle.sequence() > first)
    };
    let known = watch.until("a newer bundle of a", POLLED, newer).await;
    let known = foreign(&known, "a.test").unwrap().sequence();

    // The other side is gone; what is known of it is not.
    a.process.terminate().await;
    b.process.kill();
    b.start_again().await;
    let recalled = trust(&b).await;
    assert!(
        foreign(&recalled, "a.test").unwrap().sequence() >= known,
        "never back to the bootstrap"
    );
    until("a failed poll is counted", SOON, async || {
        b.scrape()
            .await
            .outcome("signet_ca_federation_polls_total", "failed")
            >= 1
    })
    .await;
    let shown = b.admin().get("/v1/federation").await;
    assert_eq!(shown["federated"][0]["in_force"], true);
    assert!(
        shown["federated"][0]["error"]
            .as_str()
            .unwrap()
            .contains("cannot be reached")
    );

    // The relationship ends: the bundle is withdrawn and forgotten.
    let stored = b.setup.dir().join("state/federation.a.test.json");
    assert!(stored.exists());
    b.setup.change("federation", Value::Null);
    b.process.terminate().await;
    b.start_again().await;
    assert!(trust(&b).await.foreign.is_empty() && !stored.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_another_identity_is_refused_and_the_other_relationships_go_on() {
    let (here, there) = (Cluster::start(), Cluster::start());
    let a = domain(&here, "a.test", by_spiffe()).start().await;
    let setup = domain(&there, "b.test", Value::Null);
    let bootstrap = setup.dir().write("a.json", jwks(&a).await);
    let mut wrong = self_serving("a.test", &endpoint(&a).await, &bootstrap);
    wrong["endpoint_spiffe_id"] = "spiffe://a.test/ns/signet-system/sa/other".into();
    let file = setup.dir().write("c.json", r#"{"keys":[],"spiffe_sequence":4}"#);
    let damaged = setup.dir().write("d.json", r#"{"keys":"#);
    let b = setup
        .set(
            "federation",
            json!([
                wrong,
                {"trust_domain": "c.test", "bundle_file": file},
                {"trust_domain": "d.test", "bundle_file": damaged},
            ]),
        )
        .start()
        .await;
    let error = until_some("the refusal", POLLED, async || {
        let shown = b.admin().get("/v1/federation").await;
        Some(shown["federated"][0]["error"].as_str()?.to_owned())
    })
    .await;
    assert!(
        error.contains("does not prove to be the configured endpoint"),
        "{error}"
    );
    assert!(
        error.contains("expected spiffe://a.test/ns/signet-system/sa/other"),
        "{error}"
    );
    let mut watch = Watch::open(&b).await;
    let now = watch
        .until("c is there", POLLED, |t| foreign(t, "c.test").is_some())
        .await;
    assert_eq!(foreign(&now, "c.test").unwrap().sequence(), 4);
    assert!(
        foreign(&now, "a.test").is_some(),
        "the bundle given to begin with stays in force"
    );
    assert!(foreign(&now, "d.test").is_none());

    // The file is followed, and never back.
    std::fs::write(&file, r#"{"keys":[],"spiffe_sequence":3}"#).unwrap();
    until("the older file is noticed", POLLED, async || {
        b.scrape()
            .await
            .outcome("signet_ca_federation_polls_total", "older")
            >= 1
    })
    .await;
    std::fs::write(&file, r#"{"keys":[],"spiffe_sequence":5}"#).unwrap();
    watch
        .until("the newer file", POLLED, |t| {
            foreign(t, "c.test").is_some_and(|c| c.sequence() == 5)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_endpoint_is_proven_by_its_host_and_takes_a_new_certificate_up_while_it_runs() {
    let cluster = Cluster::start();
    let setup = domain(&cluster, "a.test", Value::Null);
    let (first_root, chain, key) = web_pki();
    let web = json!({
        "listen": "127.0.0.1:0", "profile": "https_web",
        "certificate_file": setup.dir().write("web.pem", &chain),
        "key_file": setup.dir().write_secret("web.key", &key),
    });
    let a = setup.set("bundle_endpoint", web).start().await;
    let there = Cluster::start();
    let federated = |name: &str, root: &str| {
        let setup = domain(&there, name, Value::Null);
        let ca_file = setup.dir().write("root.pem", root);
        (setup, ca_file)
    };
    let url = format!("https://{}/", endpoint(&a).await);
    let relation = |ca_file: &Path| json!([{"trust_domain": "a.test", "url": url, "profile": "https_web", "ca_file": ca_file}]);
    let (other_root, ..) = web_pki();
    let (setup, ca_file) = federated("c.test", &other_root);
    let stranger = setup.set("federation", relation(&ca_file)).start().await;
    let error = until_some("the refusal", POLLED, async || {
        let shown = stranger.admin().get("/v1/federation").await;
        Some(shown["federated"][0]["error"].as_str()?.to_owned())
    })
    .await;
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert!(trust(&stranger).await.foreign.is_empty());

    let (second_root, chain, key) = web_pki();
    a.setup.dir().write("web.pem", &chain);
    a.setup.dir().write_secret("web.key", &key);
    until("the new certificate is read", SOON, async || {
        a.scrape()
            .await
            .outcome("signet_ca_endpoint_certificates_total", "read")
            >= 1
    })
    .await;
    let (setup, ca_file) = federated("b.test", &second_root);
    let b = setup.set("federation", relation(&ca_file)).start().await;
    let mut watch = Watch::open(&b).await;
    watch
        .until("b knows a", POLLED, |t| foreign(t, "a.test").is_some())
        .await;
    assert_ne!(first_root, second_root);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_keep_foreign_bundles_in_their_secret_beside_the_state() {
    let (here, there) = (Cluster::start(), Cluster::start());
    let a = domain(&here, "a.test", by_spiffe())
        .set(
            "jwt_svid",
            json!({"ttl": "10s", "max_ttl": "10s", "key_life": "10s"}),
        )
        .start()
        .await;
    there.api.create_namespace("signet-system").unwrap();
    let setup = domain(&there, "b.test", Value::Null);
    let bootstrap = setup.dir().write("a.json", jwks(&a).await);
    let mut b = setup
        .set("state_directory", Value::Null)
        .set("state_secret", "signet-system/state")
        .set(
            "jwt_svid",
            json!({"ttl": "10s", "max_ttl": "10s", "key_life": "10s"}),
        )
        .set(
            "federation",
            json!([self_serving("a.test", &endpoint(&a).await, &bootstrap)]),
        )
        .start()
        .await;
    let keys = || {
        let secret = there.get("secrets", "signet-system", "state").unwrap();
        let data = secret["data"].as_object().unwrap();
        data.keys().cloned().collect::<Vec<_>>()
    };
    let both = ["federation.a.test.json", "state.json"];
    until("a's bundle is in the secret", POLLED, async || keys() == both).await;
    // Both write to one Secret, and neither takes away what the other wrote.
    let sequence = trust(&b).await.own.sequence();
    let mut watch = Watch::open(&b).await;
    watch
        .until("b's own next key", POLLED, |t| t.own.sequence() > sequence)
        .await;
    assert_eq!(keys(), both);

    b.setup.change("federation", Value::Null);
    b.process.terminate().await;
    b.start_again().await;
    assert_eq!(keys(), ["state.json"]);
    assert!(trust(&b).await.own.sequence() > sequence);
}
