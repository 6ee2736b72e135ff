//! The root of trust: made once, shared, published, followed, and never replaced by accident.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use signet_devcluster::ObjectRef;
use signet_proto::wire::signet::ca::v1::WatchBundleRequest;
use signet_proto::wire::signet::ca::v1::authority_client::AuthorityClient;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::{Ask, Dial, chain};
use signet_tests::cluster::Cluster;
use signet_tests::dir::mode;
use signet_tests::wait::{SOON, until, until_some, within};

const MAP: &str = "signet-ca-root-cert";
const SECRET: &str = "signet-system/signet-ca-state";

async fn published(cluster: &Cluster, namespace: &str, roots: &str) {
    until(&format!("roots in {namespace}"), SOON, async || {
        cluster.published(namespace).as_deref() == Some(roots)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_are_published_to_old_and_new_namespaces_but_not_to_those_left_out() {
    let cluster = Cluster::start();
    cluster.api.create_namespace("shop").unwrap();
    let ca = Ca::start(&cluster).await;
    let roots = ca.roots().await;
    for namespace in ["default", "kube-system", "shop"] {
        published(&cluster, namespace, &roots).await;
    }
    cluster.api.create_namespace("late").unwrap();
    published(&cluster, "late", &roots).await;
    for namespace in ["kube-public", "kube-node-lease"] {
        assert!(cluster.get("namespaces", "", namespace).is_some());
        assert_eq!(cluster.published(namespace), None, "{namespace}");
    }
    let map = cluster.get("configmaps", "shop", MAP).unwrap();
    assert_eq!(map["metadata"]["annotations"]["signet.io/bundle-sequence"], "1");
    assert_eq!(
        map["metadata"]["annotations"]["signet.io/trust-domain"],
        "cluster.local"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_keeps_foreign_keys_and_repairs_edits_and_deletions() {
    let cluster = Cluster::start();
    cluster.api.create_namespace("shop").unwrap();
    cluster.put_configmap("shop", MAP, &json!({"theirs": "kept"}), &json!({}), &json!({}));
    let ca = Ca::start(&cluster).await;
    let roots = ca.roots().await;
    published(&cluster, "shop", &roots).await;
    let theirs = || cluster.get("configmaps", "shop", MAP).unwrap()["data"]["theirs"].clone();
    assert_eq!(theirs(), "kept");

    let mut map = cluster.get("configmaps", "shop", MAP).unwrap();
    map["data"]["root-cert.pem"] = "junk".into();
    cluster.api.put(map).unwrap();
    published(&cluster, "shop", &roots).await;
    assert_eq!(theirs(), "kept");

    cluster
        .api
        .delete(&ObjectRef::core("configmaps", "shop", MAP))
        .unwrap();
    published(&cluster, "shop", &roots).await;

    // The same after the watches broke.
    cluster.api.break_watches();
    cluster
        .api
        .delete(&ObjectRef::core("configmaps", "shop", MAP))
        .unwrap();
    published(&cluster, "shop", &roots).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configmap_with_a_higher_sequence_is_never_overwritten() {
    let cluster = Cluster::start();
    cluster.api.create_namespace("shop").unwrap();
    let ca = Ca::start(&cluster).await;
    published(&cluster, "shop", &ca.roots().await).await;
    let annotations = json!({"signet.io/bundle-sequence": "99", "signet.io/trust-domain": "cluster.local"});
    let labels = json!({"signet.io/roots": "true"});
    cluster.put_configmap(
        "shop",
        MAP,
        &json!({"root-cert.pem": "of one who knows more"}),
        &annotations,
        &labels,
    );
    until("it to be left alone", SOON, async || {
        ca.scrape()
            .await
            .outcome("signet_ca_configmap_writes_total", "newer_kept")
            >= 1
    })
    .await;
    assert_eq!(
        cluster.published("shop").as_deref(),
        Some("of one who knows more")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn state_survives_a_restart_in_private_files() {
    let cluster = Cluster::start();
    let mut ca = Ca::start(&cluster).await;
    let roots = ca.roots().await;
    let state = ca.setup.state_file();
    assert_eq!(mode(&state), 0o600);
    assert_eq!(mode(state.parent().unwrap()), 0o700);
    assert_eq!(ca.process.terminate().await, 0);
    ca.start_again().await;
    assert_eq!(ca.roots().await, roots);
    Ask::good()
        .token(&cluster.token("shop", "cart"))
        .at(&ca)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_not_replaced_while_its_root_is_published() {
    let cluster = Cluster::start();
    let mut ca = Ca::start(&cluster).await;
    let roots = ca.roots().await;
    published(&cluster, "default", &roots).await;
    ca.process.terminate().await;
    let state = ca.setup.state_file();
    std::fs::remove_file(&state).unwrap();
    let said = ca.setup.refused().await;
    let expected = format!("there is no state at {}, but configmap ", state.display());
    for part in [expected.as_str(), "signet authority restore", "--new-root"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert!(!state.exists(), "nothing was made");
    let Ca { setup, .. } = ca;
    let ca = setup.argument("--new-root").start().await;
    assert_ne!(ca.roots().await, roots);
    published(&cluster, "default", &ca.roots().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_damaged_and_foreign_states_are_refused_and_left_as_they_are() {
    let cluster = Cluster::start();
    let mut ca = Ca::start(&cluster).await;
    ca.process.terminate().await;
    let path = ca.setup.state_file();
    let good = std::fs::read_to_string(&path).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut state: Value = serde_json::from_str(&good).unwrap();
        change(&mut state);
        state.to_string()
    };
    for (state, said) in [
        (
            changed(&|s| s["schema"] = 3.into()),
            "state has schema 3, this signet knows 2; run the newer signet that wrote it",
        ),
        (
            changed(&|s| s["trust_domain"] = "other.example".into()),
            "state belongs to trust domain other.example, the configuration says cluster.local",
        ),
        (
            good[..good.len() / 2].to_owned(),
            "state is damaged: it is not the JSON document expected",
        ),
        (
            String::new(),
            "state is damaged: it is not the JSON document expected",
        ),
        (
            changed(&|s| s["roots"][0]["key"] = Value::Null),
            "state is damaged: the active root has no key",
        ),
    ] {
        std::fs::write(&path, &state).unwrap();
        let output = ca.setup.refused().await;
        assert!(output.contains(said), "{said:?} in {output}");
        assert!(
            output.contains(&path.display().to_string()),
            "the place in {output}"
        );
        assert!(!output.contains("PRIVATE KEY"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cas_that_share_a_directory_agree_on_one_root() {
    let cluster = Cluster::start();
    let first = CaSetup::new(&cluster);
    let shared = first.dir().join("state").display().to_string();
    let second = CaSetup::new(&cluster)
        .named("second")
        .set("state_directory", shared);
    let (first, second) = tokio::join!(first.start(), second.start());
    agree(&cluster, &first, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cas_that_share_a_secret_agree_on_one_root() {
    let cluster = Cluster::start();
    cluster.api.create_namespace("signet-system").unwrap();
    let setup = |name: &str| {
        CaSetup::new(&cluster)
            .named(name)
            .set("state_directory", Value::Null)
            .set("state_secret", SECRET)
    };
    let (first, second) = tokio::join!(setup("first").start(), setup("second").start());
    agree(&cluster, &first, &second).await;
    let secret = cluster
        .get("secrets", "signet-system", "signet-ca-state")
        .unwrap();
    assert_eq!(secret["type"], "signet.io/ca-state");
}

async fn agree(cluster: &Cluster, first: &Ca, second: &Ca) {
    assert_eq!(first.roots().await, second.roots().await);
    let token = cluster.token("shop", "cart");
    let bundle = first.bundle().await;
    let mut issuers = Vec::new();
    for ca in [first, second] {
        let answer = Ask::good().token(&token).at(ca).await.unwrap();
        let (chain, _) = chain(&answer);
        let now = signet_tests::client::now();
        signet_certs::verify::verify_chain(&chain, &bundle, signet_certs::verify::Role::Server, now).unwrap();
        issuers.push(chain.leaf().authority_key_id().unwrap().to_owned());
    }
    assert_ne!(issuers[0], issuers[1], "each has an issuing authority of its own");
}

/// A state as `state`, with the root of another CA added and the sequence raised.
fn widened(state: &str, other: &str) -> Value {
    let (mut state, other): (Value, Value) = (
        serde_json::from_str(state).unwrap(),
        serde_json::from_str(other).unwrap(),
    );
    let mut root = other["roots"][0].clone();
    root["key"] = Value::Null;
    state["roots"].as_array_mut().unwrap().push(root);
    state["sequence"] = (state["sequence"].as_u64().unwrap() + 1).into();
    state
}

async fn other_state() -> String {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    std::fs::read_to_string(ca.setup.state_file()).unwrap()
}

async fn follows(cluster: &Cluster, ca: &Ca, change: impl AsyncFnOnce()) {
    let channel = Dial::default().channel(ca).await;
    let mut bundles = AuthorityClient::new(channel.clone())
        .watch_bundle(WatchBundleRequest::default())
        .await
        .unwrap()
        .into_inner();
    let first = within("the bundle", SOON, bundles.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((first.sequence, first.roots.len()), (1, 1));
    assert_eq!(first.trust_domain, "cluster.local");
    assert_eq!(first.refresh_hint_seconds, 300);
    change().await;
    let second = within("the next bundle", SOON, bundles.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((second.sequence, second.roots.len()), (2, 2));
    assert_eq!(ca.bundle().await.roots().len(), 2);
    published(cluster, "default", &ca.roots().await).await;
    let answer = Ask::good()
        .token(&cluster.token("shop", "cart"))
        .send(&channel)
        .await
        .unwrap();
    assert_eq!(answer.cert_chain.last(), Some(&ca.roots().await));
    assert_eq!(ca.scrape().await.value("signet_ca_bundle_sequence", &[]), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_is_followed_without_a_restart() {
    let cluster = Cluster::start();
    cluster.api.create_namespace("signet-system").unwrap();
    let ca = CaSetup::new(&cluster)
        .set("state_directory", Value::Null)
        .set("state_secret", SECRET)
        .start()
        .await;
    let other = other_state().await;
    let secret = || {
        cluster
            .get("secrets", "signet-system", "signet-ca-state")
            .unwrap()
    };
    let document = |secret: &Value| {
        let bytes = STANDARD
            .decode(secret["data"]["state.json"].as_str().unwrap())
            .unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let original = secret();
    follows(&cluster, &ca, async || {
        let mut changed = secret();
        let state = widened(&document(&changed), &other).to_string();
        changed["data"]["state.json"] = STANDARD.encode(state).into();
        cluster.api.put(changed).unwrap();
    })
    .await;

    // Backwards it is not followed, and neither is a deletion: what is in force stays.
    let mut old = secret();
    old["data"] = original["data"].clone();
    cluster.api.put(old).unwrap();
    let counted = async |outcome| {
        until(outcome, SOON, async || {
            ca.scrape().await.outcome("signet_ca_rotations_total", outcome) >= 1
        })
        .await;
    };
    counted("older").await;
    cluster
        .api
        .delete(&ObjectRef::core("secrets", "signet-system", "signet-ca-state"))
        .unwrap();
    counted("state_gone").await;
    assert_eq!(ca.bundle().await.sequence(), 2);
    Ask::good()
        .token(&cluster.token("shop", "cart"))
        .at(&ca)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_state_file_is_followed_and_a_damaged_one_is_not() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let other = other_state().await;
    let path = ca.setup.state_file();
    follows(&cluster, &ca, async || {
        let state = widened(&std::fs::read_to_string(&path).unwrap(), &other).to_string();
        let dir = ca.setup.dir();
        dir.write_secret("state/state.json", state);
    })
    .await;
    std::fs::write(&path, "{").unwrap();
    until("the fault to be counted", SOON, async || {
        ca.scrape()
            .await
            .outcome("signet_ca_rotations_total", "state_fault")
            >= 1
    })
    .await;
    assert_eq!(ca.bundle().await.sequence(), 2);
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "{",
        "left for the operator to see"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuing_authority_is_renewed_at_half_its_life_and_old_leaves_stay_good() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("min_svid_ttl", "10s")
        .set("svid_ttl", "10s")
        .set("max_svid_ttl", "10s")
        .set("issuing_life", "20s")
        .start()
        .await;
    let token = cluster.token("shop", "cart");
    let issue = async || chain(&Ask::good().token(&token).at(&ca).await.unwrap()).0;
    let issuer = |chain: &signet_certs::SvidChain| chain.leaf().authority_key_id().unwrap().to_owned();
    let mut old = issue().await;
    let new = until_some("another issuing authority", Duration::from_secs(20), async || {
        let next = issue().await;
        if issuer(&next) != issuer(&old) {
            return Some(next);
        }
        // The newest leaf of the old authority, with most of its life ahead.
        old = next;
        None
    })
    .await;
    let bundle = ca.bundle().await;
    assert_eq!(bundle.sequence(), 1, "the bundle did not change");
    let now = signet_tests::client::now();
    for chain in [&old, &new] {
        signet_certs::verify::verify_chain(chain, &bundle, signet_certs::verify::Role::Server, now).unwrap();
    }
    // The serving certificate comes from the authority in use too, in a task of its own.
    until("a serving certificate of the new authority", SOON, async || {
        let shown = signet_tests::tls::served(&ca.address).await.unwrap();
        issuer(&shown) != issuer(&old) && issuer(&shown) == issuer(&issue().await)
    })
    .await;
}
