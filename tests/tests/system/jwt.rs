//! JWT-SVIDs of the CA: who gets which, by which key, and how the keys change.

use std::time::Duration;

use serde_json::{Value, json};
use signet_certs::JwtSvid;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::now;
use signet_tests::cluster::Cluster;
use signet_tests::trust::{Mint, Watch, set, trust};
use signet_tests::wait::{SOON, until};
use signet_tests::{http, peers};
use tokio::time::Instant;
use tonic::Code;

const AUDIENCE: &str = "https://vault.test";
const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const SECRET: &str = "signet-system/signet-ca-state";

fn kid(token: &str) -> String {
    let said = JwtSvid::read_unverified(token).unwrap();
    said.header["kid"].as_str().unwrap().to_owned()
}

async fn good(ca: &Ca, token: &str) {
    let set = set(&trust(ca).await);
    JwtSvid::validate(token, AUDIENCE, &set, now()).unwrap();
}

fn state(ca: &Ca) -> Value {
    serde_json::from_slice(&std::fs::read(ca.setup.state_file()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_names_its_caller_for_the_audience_asked_and_verifies_by_the_bundle_agents_get() {
    let cluster = Cluster::start();
    let caller = cluster.token("shop", "cart");
    let ca = Ca::start(&cluster).await;
    let svid = Mint::audience(&[AUDIENCE, "b"])
        .token(&caller)
        .at(&ca)
        .await
        .unwrap();
    let trust = trust(&ca).await;
    for audience in [AUDIENCE, "b"] {
        let found = JwtSvid::validate(&svid, audience, &set(&trust), now()).unwrap();
        assert_eq!(found.id.as_str(), CART);
        let life = found.expires_at.as_secs() - found.issued_at.unwrap().as_secs();
        assert_eq!(life, 300, "five minutes by default");
    }
    for (asked, given) in [(60, 60), (1, 10), (90_000, 3_600), (-5, 300)] {
        let request = Mint::audience(&[AUDIENCE]).token(&caller).seconds(asked);
        let said = JwtSvid::read_unverified(&request.at(&ca).await.unwrap()).unwrap();
        let life = said.claims["exp"].as_u64().unwrap() - said.claims["iat"].as_u64().unwrap();
        assert_eq!(life, given, "{asked} s asked");
    }
    let log = ca.process.output();
    let record = log
        .lines()
        .find(|line| line.contains("\"jwt request answered\""))
        .unwrap();
    let record: Value = serde_json::from_str(record).unwrap();
    let fields = &record;
    assert_eq!(
        (&fields["spiffe_id"], &fields["outcome"]),
        (&json!(CART), &json!("issued"))
    );
    assert_eq!(fields["kid"].as_str(), Some(kid(&svid).as_str()));
    let signature = svid.rsplit('.').next().unwrap();
    assert!(!log.contains(signature), "no token is in a log");
    assert_eq!(
        ca.scrape().await.outcome("signet_ca_jwt_svids_total", "issued"),
        5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_authenticated_or_asks_for_too_much_gets_no_token() {
    let cluster = Cluster::start();
    let caller = cluster.token("shop", "cart");
    let ca = Ca::start(&cluster).await;
    let code = async |mint: Mint| mint.at(&ca).await.unwrap_err().code();
    let good = || Mint::audience(&[AUDIENCE]).token(&caller);
    assert_eq!(code(Mint::audience(&[AUDIENCE])).await, Code::Unauthenticated);
    assert_eq!(code(good().token("a.b.c")).await, Code::Unauthenticated);
    assert_eq!(
        code(Mint::audience(&[]).token(&caller)).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(Mint::audience(&[AUDIENCE, ""]).token(&caller)).await,
        Code::InvalidArgument
    );
    let many = vec!["a"; 17];
    assert_eq!(
        code(Mint::audience(&many).token(&caller)).await,
        Code::InvalidArgument
    );
    let bank = "spiffe://cluster.local/ns/shop/sa/bank";
    assert_eq!(code(good().of(bank)).await, Code::Unauthenticated);
    assert_eq!(code(good().of("nobody")).await, Code::Unauthenticated);
    good().of(CART).at(&ca).await.unwrap();
    let scrape = ca.scrape().await;
    let count = |outcome| scrape.outcome("signet_ca_jwt_svids_total", outcome);
    assert_eq!(
        (
            count("malformed"),
            count("no_token"),
            count("impersonation_disabled")
        ),
        (3, 1, 2)
    );
    assert_eq!(count("issued"), 1);
}

/// The whole course of a rotation with a hint of a second: a key is known for four of them before it
/// signs, the old one outlives its tokens, and a crash on the way changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_published_long_before_it_signs_and_the_old_one_outlives_its_tokens() {
    let cluster = Cluster::start();
    let caller = cluster.token("shop", "cart");
    let mut ca = CaSetup::new(&cluster)
        .set("bundle_refresh_hint", "1s")
        .set(
            "jwt_svid",
            json!({"ttl": "10s", "max_ttl": "10s", "key_life": "12s"}),
        )
        .start()
        .await;
    let mint = async |ca: &Ca| Mint::audience(&[AUDIENCE]).token(&caller).at(ca).await.unwrap();
    let first = kid(&mint(&ca).await);
    let mut watch = Watch::open(&ca).await;
    let before = watch.next(SOON).await.own;
    assert_eq!(before.jwt_keys().len(), 1);
    let two = watch
        .until("the second key", SOON * 2, |t| t.own.jwt_keys().len() == 2)
        .await;
    let began = Instant::now();
    assert!(two.own.sequence() > before.sequence());
    let second = two.own.jwt_keys()[1].kid().to_owned();

    ca.process.kill();
    ca.start_again().await;
    let kept = trust(&ca).await.own;
    assert!(kept.same_content(&two.own), "a crash changes nothing");
    assert_eq!(kept.sequence(), two.own.sequence());

    let last_of_first = loop {
        let token = mint(&ca).await;
        if kid(&token) == second {
            break token;
        }
        assert_eq!(kid(&token), first);
        assert!(began.elapsed() < SOON * 4, "the second key never signs");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let new = state(&ca)["jwt_keys"][1].clone();
    let lead = new["at"].as_u64().unwrap() - new["published_at"].as_u64().unwrap();
    assert!(lead >= 4, "published {lead} s before it signed");
    good(&ca, &last_of_first).await;
    let still: Vec<String> = trust(&ca)
        .await
        .own
        .jwt_keys()
        .iter()
        .map(|k| k.kid().into())
        .collect();
    assert!(
        still.contains(&first),
        "the old key still verifies what it signed"
    );
    let old = state(&ca)["jwt_keys"][0].clone();
    assert_eq!(
        (&old["phase"], &old["private_key"]),
        (&json!("old"), &Value::Null)
    );
    let until = old["at"].as_u64().unwrap() - state(&ca)["jwt_keys"][1]["at"].as_u64().unwrap();
    assert_eq!(
        until,
        10 + 30 + 4,
        "longest token, clock skew, and four hints for replicas"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_one_jwt_authority_through_the_secret() {
    let cluster = Cluster::start();
    cluster.api.create_namespace("signet-system").unwrap();
    let caller = cluster.token("shop", "cart");
    let replica = |name: &str| {
        CaSetup::new(&cluster)
            .set("state_directory", Value::Null)
            .set("state_secret", SECRET)
            .named(name)
            .start()
    };
    let (one, two) = tokio::join!(replica("ca-1"), replica("ca-2"));
    let by_one = Mint::audience(&[AUDIENCE]).token(&caller).at(&one).await.unwrap();
    let by_two = Mint::audience(&[AUDIENCE]).token(&caller).at(&two).await.unwrap();
    assert_eq!(kid(&by_one), kid(&by_two));
    good(&two, &by_one).await;
    good(&one, &by_two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_on_one_secret_whose_key_files_change_one_after_the_other_write_each_change_once() {
    let cluster = Cluster::start();
    cluster.api.create_namespace("signet-system").unwrap();
    let caller = cluster.token("shop", "cart");
    let keys: Vec<String> = (0..2)
        .map(|_| {
            signet_certs::SigningKey::generate()
                .unwrap()
                .expose_pem()
                .to_string()
        })
        .collect();
    let (old, new) = (keys[0].clone(), keys.concat());
    let replica = |name: &str| {
        let setup = CaSetup::new(&cluster)
            .set("state_directory", Value::Null)
            .set("state_secret", SECRET)
            .named(name);
        let path = setup.dir().write("jwt.pem", &old);
        setup.set("jwt_svid", json!({ "key_file": path })).start()
    };
    let (one, two) = tokio::join!(replica("ca-1"), replica("ca-2"));
    let known = async |ca: &Ca| trust(ca).await.own.jwt_keys().len();
    // Each has the news of the other before, and after, its own file says so.
    for ca in [&one, &two] {
        ca.setup.dir().write("jwt.pem", &new);
        until("both to know both keys", SOON, async || {
            known(&one).await == 2 && known(&two).await == 2
        })
        .await;
        // Two looks at the files, for whoever would undo it.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let (a, b) = (trust(&one).await.own, trust(&two).await.own);
    assert!(a.same_content(&b) && a.sequence() == b.sequence());
    for outcome in ["prepared", "retired"] {
        let mut changes = 0;
        for ca in [&one, &two] {
            changes += ca
                .scrape()
                .await
                .outcome("signet_ca_jwt_rotations_total", outcome);
        }
        assert_eq!(changes, u64::from(outcome == "prepared"), "{outcome}");
    }
    let token = Mint::audience(&[AUDIENCE]).token(&caller).at(&two).await.unwrap();
    good(&one, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_from_before_there_were_tokens_gets_a_key_and_a_later_sequence() {
    let cluster = Cluster::start();
    let caller = cluster.token("shop", "cart");
    let mut ca = Ca::start(&cluster).await;
    ca.process.terminate().await;
    let mut old = state(&ca);
    old["schema"] = 1.into();
    old.as_object_mut().unwrap().remove("jwt_keys");
    std::fs::write(ca.setup.state_file(), old.to_string()).unwrap();
    ca.start_again().await;
    assert_eq!(trust(&ca).await.own.sequence(), 2);
    let token = Mint::audience(&[AUDIENCE]).token(&caller).at(&ca).await.unwrap();
    good(&ca, &token).await;
    assert_eq!(state(&ca)["schema"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_rsa_key_signs_rs256_and_stays_in_its_file() {
    let skip = "no openssl: it makes the RSA key";
    if !peers::can(&["openssl", "version"], skip) {
        return;
    }
    let cluster = Cluster::start();
    let caller = cluster.token("shop", "cart");
    let setup = CaSetup::new(&cluster);
    let rsa = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let made = std::process::Command::new("openssl").args(rsa).output().unwrap();
    let pem = String::from_utf8(made.stdout).unwrap();
    let file = setup.dir().write_secret("jwt.pem", &pem);
    let ca = setup.set("jwt_svid", json!({"key_file": file})).start().await;
    let token = Mint::audience(&[AUDIENCE]).token(&caller).at(&ca).await.unwrap();
    let said = JwtSvid::read_unverified(&token).unwrap();
    assert_eq!(said.header["alg"], "RS256");
    good(&ca, &token).await;
    let body = pem.lines().nth(1).unwrap();
    let text = std::fs::read_to_string(ca.setup.state_file()).unwrap();
    assert!(!text.contains(body), "the operator's key lies in its file alone");
    assert_eq!(state(&ca)["jwt_keys"][0]["private_key"], Value::Null);

    let unreadable = CaSetup::new(&cluster).set("jwt_svid", json!({"key_file": "/nowhere"}));
    let said = unreadable.refused().await;
    assert!(said.contains("jwt_svid.key_file"), "{said}");
}

fn oidc(cluster: &Cluster) -> CaSetup {
    CaSetup::new(cluster)
        .set("oidc_listen", "127.0.0.1:0")
        .set("jwt_svid", json!({"issuer": "https://oidc.test/cluster-1"}))
}

async fn oidc_address(ca: &Ca) -> String {
    let status = ca.admin().get("/v1/status").await;
    status["oidc_address"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn relying_parties_find_the_issuer_and_its_keys() {
    let cluster = Cluster::start();
    let ca = oidc(&cluster).start().await;
    let address = oidc_address(&ca).await;
    for prefix in ["", "/cluster-1"] {
        let path = format!("{prefix}/.well-known/openid-configuration");
        let found = http::get(&address, &path).await.unwrap();
        assert_eq!(
            (found.status, found.header("content-type")),
            (http::OK, Some("application/json"))
        );
        assert_eq!(found.header("cache-control"), Some("public, max-age=300"));
        let document: Value = serde_json::from_str(&found.body).unwrap();
        assert_eq!(document["issuer"], "https://oidc.test/cluster-1");
        assert_eq!(document["jwks_uri"], "https://oidc.test/cluster-1/keys");
        assert_eq!(
            document["id_token_signing_alg_values_supported"],
            json!(["ES256"])
        );
        let keys = http::get(&address, &format!("{prefix}/keys")).await.unwrap();
        let keys: Value = serde_json::from_str(&keys.body).unwrap();
        let (kid, key) = (
            trust(&ca).await.own.jwt_keys()[0].kid().to_owned(),
            &keys["keys"][0],
        );
        assert_eq!(
            (&key["kid"], &key["use"], &key["alg"]),
            (&json!(kid), &json!("sig"), &json!("ES256"))
        );
        assert!(key.get("x5c").is_none() && key.get("d").is_none());
    }
    let wrong = http::get(&address, "/v1/status").await.unwrap();
    assert_eq!(wrong.status.as_u16(), 404);
    let scrape = ca.scrape().await;
    let count = |outcome| scrape.outcome("signet_ca_oidc_requests_total", outcome);
    assert_eq!((count("discovery"), count("keys"), count("not_found")), (2, 2, 1));
}

/// The relying party is PyJWT: it finds the keys by the discovery document and judges the token by them.
const RELYING_PARTY: &str = r#"
import json, sys, urllib.request, jwt
base, token, audience = sys.argv[1:4]
found = json.load(urllib.request.urlopen(base + "/.well-known/openid-configuration", timeout=10))
client = jwt.PyJWKClient(base + "/keys")
key = client.get_signing_key_from_jwt(token)
claims = jwt.decode(token, key.key, algorithms=found["id_token_signing_alg_values_supported"],
                    audience=audience, issuer=found["issuer"],
                    options={"require": ["exp", "iat", "iss", "sub", "aud"]})
print(json.dumps(claims))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_relying_party_of_another_make_accepts_a_token_and_refuses_one_for_somebody_else() {
    let Some(python) = peers::python() else { return };
    let cluster = Cluster::start();
    let caller = cluster.token("shop", "cart");
    let ca = oidc(&cluster).start().await;
    let base = format!("http://{}", oidc_address(&ca).await);
    let token = Mint::audience(&["sts.cloud.test"])
        .token(&caller)
        .at(&ca)
        .await
        .unwrap();
    let judged = |audience: &str| {
        let mut command = tokio::process::Command::new(&python);
        command.args(["-c", RELYING_PARTY, &base, &token, audience]);
        async move { command.output().await.unwrap() }
    };
    let accepted = judged("sts.cloud.test").await;
    let errors = String::from_utf8_lossy(&accepted.stderr).into_owned();
    assert!(accepted.status.success(), "{errors}");
    let claims: Value = serde_json::from_slice(&accepted.stdout).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["iss"]),
        (&json!(CART), &json!("https://oidc.test/cluster-1"))
    );
    let refused = judged("other").await;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("InvalidAudienceError"));
}
