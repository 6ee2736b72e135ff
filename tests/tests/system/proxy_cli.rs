//! `signet proxy` and `signet strict-ready` against real proxies, and the commands that the documents show.

use std::path::Path;

use serde_json::json;
use signet_tests::cli::{Ran, signet};
use signet_tests::echo::{Echo, says};
use signet_tests::mesh::{BACKEND, FRONTEND};
use signet_tests::tls;
use tokio::net::TcpStream;

use super::proxy_tls::{STRICT, World, connect};

async fn ask(verb: &[&str], admin: &[&str]) -> Ran {
    let admin = admin.iter().flat_map(|one| ["--admin", *one]);
    let arguments: Vec<&str> = verb.iter().copied().chain(admin).collect();
    signet(&[&arguments[..], &["-o", "json"]].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_proxy_says_what_it_presents_enforces_and_sees() {
    let world = World::start().await;
    let app = Echo::start().await;
    let proxy = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .inbound(&app.address, json!({"port": 7000}))
        .outbound(&app.address, json!({"plaintext": true}))
        .start()
        .await;
    let client = world.svid("web", "frontend").await;
    let mut stream = connect(&proxy.inbound(0), Some(&client), &["istio"])
        .await
        .unwrap();
    says(&mut stream, "hello").await.unwrap();
    let shown = tls::served(&proxy.inbound(0)).await.unwrap();
    let admin = proxy.admin.as_str();

    let secrets = ask(&["proxy", "secrets"], &[admin]).await.good();
    assert!(!secrets.stdout.contains("PRIVATE KEY"));
    let secrets = secrets.json();
    assert_eq!(secrets["svid"]["spiffe_id"], BACKEND);
    assert_eq!(secrets["svid"]["serial"], shown.serial());
    assert_eq!(secrets["svid"]["valid"], true);
    assert_eq!(secrets["svid"]["chain"][0]["serial"], shown.serial());
    assert_eq!(secrets["bundles"][0]["trust_domain"], "cluster.local");
    assert_eq!(secrets["bundles"][0]["roots"][0]["valid"], true);

    let policies = ask(&["proxy", "policies"], &[admin]).await.good().json();
    assert_eq!(policies["source"]["namespace"], "data");
    assert_eq!(policies["in_force"]["mutual_tls"]["workload"]["mode"], "STRICT");

    let open = ask(&["proxy", "connections"], &[admin]).await.good().json();
    let all = open["connections"].as_array().unwrap();
    let mutual = all.iter().find(|one| one["security"] == "mutual_tls").unwrap();
    assert_eq!(
        (&mutual["peer"]["spiffe_id"], &mutual["own_id"], &mutual["port"]),
        (&json!(FRONTEND), &json!(BACKEND), &json!(7000))
    );

    let listeners = ask(&["proxy", "listeners"], &[admin]).await.good().json();
    let of = |way: &str| {
        let all = listeners["listeners"].as_array().unwrap();
        all.iter().find(|one| one["direction"] == way).unwrap()["address"].clone()
    };
    assert_eq!(of("inbound"), proxy.inbound(0));
    assert_eq!(of("outbound"), proxy.outbound(0));

    // Its other ports are not mistaken for the page.
    for other in [&proxy.metrics, &proxy.outbound(0)] {
        let ran = ask(&["proxy", "secrets"], &[other]).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("no admin page of a signet-proxy"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_is_a_no_go_as_soon_as_somebody_came_without_mutual_tls() {
    let world = World::start().await;
    let app = Echo::start().await;
    let start = async || {
        let setup = world.backend_proxy();
        setup.inbound(&app.address, json!({"port": 7000})).start().await
    };
    let (used, unused) = (start().await, start().await);
    let (used_admin, unused_admin) = (used.admin.clone(), unused.admin.clone());
    let both = [&*used_admin, &*unused_admin];

    // Mutual TLS is no reason against STRICT.
    let client = world.svid("web", "frontend").await;
    let mut mutual = connect(&used.inbound(0), Some(&client), &["istio"])
        .await
        .unwrap();
    says(&mut mutual, "hello").await.unwrap();
    let go = ask(&["strict-ready"], &both).await.good().json();
    assert_eq!(go["verdict"], "go");
    assert_eq!(go["proxies"][1]["admin"], unused_admin);
    assert_eq!(go["proxies"][0]["mode"], "PERMISSIVE");
    assert_eq!(go["proxies"][0]["spiffe_id"], BACKEND);
    assert!(go["proxies"][0]["observed_since"].is_string());

    // Nobody can say what was before the proxies started.
    let early = ask(&["strict-ready", "--window", "24h"], &both).await;
    assert_eq!(early.code, 2, "{early:?}");
    assert_eq!(early.json()["verdict"], "unanswered");
    assert!(early.stderr.contains("shorter --window"), "{early:?}");

    // Plaintext, and a TLS that is none of ours.
    for _ in 0..2 {
        let mut plain = TcpStream::connect(used.inbound(0)).await.unwrap();
        says(&mut plain, "open").await.unwrap();
    }
    connect(&used.inbound(0), None, &["h2"]).await.unwrap_err();
    used.record("what passed through", |record| {
        record["security"] == "passed_through"
    })
    .await;
    let no_go = ask(&["strict-ready"], &both).await;
    assert_eq!(no_go.code, 1, "{no_go:?}");
    let no_go = no_go.json();
    assert_eq!(
        (&no_go["proxies"][0]["verdict"], &no_go["proxies"][1]["verdict"]),
        (&json!("no_go"), &json!("go"))
    );
    let named = &no_go["proxies"][0]["clients"][0];
    assert_eq!(
        (
            &named["address"],
            &named["port"],
            &named["connections"],
            &named["passed_through"]
        ),
        (&json!("127.0.0.1"), &json!(7000), &json!(3), &json!(1))
    );
    let listed = ask(&["proxy", "plaintext-clients"], &[&used_admin])
        .await
        .good()
        .json();
    assert_eq!(listed["clients"][0]["last"], named["last"]);
    assert_eq!(listed["since"], no_go["proxies"][0]["observed_since"]);

    // A proxy that is gone forbids a go, and takes nothing from a no-go.
    drop(unused);
    assert_eq!(ask(&["strict-ready"], &both).await.code, 1);
    let gone = ask(&["strict-ready"], &[&unused_admin]).await;
    assert_eq!(gone.code, 2, "{gone:?}");
    assert!(gone.stderr.contains("is signet-proxy running"), "{gone:?}");
}

/// The commands of the document, in blocks of this kind.
fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```console proxy\n").skip(1);
    blocks
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .map(|line| line.strip_prefix("$ signet ").unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_a_proxy_do_what_they_are_there_for() {
    let world = World::start().await;
    let app = Echo::start().await;
    let proxy = world
        .backend_proxy()
        .inbound(&app.address, json!({}))
        .start()
        .await;
    let commands = documented();
    assert_eq!(commands.len(), 6, "{commands:?}");
    for command in commands {
        let asked = command.replace("127.0.0.1:15000", &proxy.admin);
        assert_ne!(asked, command, "it names the page");
        let arguments: Vec<&str> = asked.split(' ').collect();
        signet(&arguments).await.good();
    }
}
