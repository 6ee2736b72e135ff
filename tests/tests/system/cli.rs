//! `signet` against a running system.

use std::time::Duration;

use serde_json::Value;
use signet_devcluster::TokenSpec;
use signet_tests::agent::Agent;
use signet_tests::ca::{Ca, SERVER_NAME};
use signet_tests::cli::{Ran, signet, signet_with};
use signet_tests::cluster::Cluster;
use signet_tests::dir::{Dir, mode};
use signet_tests::mesh::short_lived_ca;
use signet_tests::wait::until;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

struct Place {
    dir: Dir,
    cluster: Cluster,
    ca: Ca,
}

impl Place {
    async fn new() -> Self {
        let cluster = Cluster::start();
        let ca = short_lived_ca(&cluster).start().await;
        let dir = Dir::new();
        dir.write("root.pem", ca.roots().await);
        dir.write_secret("token", cluster.token("shop", "cart"));
        Self { dir, cluster, ca }
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn ca_admin(&self) -> String {
        self.ca.admin().socket().display().to_string()
    }

    async fn request(&self, more: &[&str]) -> Ran {
        let (root, token, out) = (self.path("root.pem"), self.path("token"), self.path("svid"));
        let known = [
            "svid",
            "request",
            "--ca",
            &self.ca.address,
            "--ca-root",
            &root,
            "--token-file",
            &token,
            "--out",
            &out,
        ];
        signet(&[&known[..], more].concat()).await
    }

    async fn check(&self, token: &str) -> Ran {
        let admin = self.ca_admin();
        let ran = signet_with(
            &[
                "token",
                "check",
                "--token-file",
                "-",
                "--admin",
                &admin,
                "-o",
                "json",
            ],
            token,
        )
        .await;
        assert!(
            token.is_empty() || !(ran.stdout.clone() + &ran.stderr).contains(token),
            "the token is printed"
        );
        ran
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_is_requested_shown_and_verified() {
    let place = Place::new().await;
    let ran = place.request(&["-o", "json", "--ttl", "2h"]).await.good().json();
    assert_eq!(ran["spiffe_id"], CART);
    let (chain, root) = (place.path("svid/cert-chain.pem"), place.path("root.pem"));
    assert_eq!(mode(&place.dir.join("svid")), 0o700);
    assert_eq!(mode(&place.dir.join("svid/key.pem")), 0o600);
    assert_eq!(
        std::fs::read_to_string(place.path("svid/root-cert.pem")).unwrap(),
        place.ca.roots().await
    );
    let text = std::fs::read_to_string(&chain).unwrap();
    assert_eq!(
        text.matches("BEGIN CERTIFICATE").count(),
        2,
        "leaf and issuing authority, without the root"
    );

    let shown = signet(&["svid", "show", &chain, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(shown["svids"][0]["spiffe_id"], CART);
    assert_eq!(shown["svids"][0]["serial"], ran["serial"]);
    let rules = shown["svids"][0]["rules"].as_array().unwrap();
    assert!(rules.iter().all(|rule| rule["kept"] == true), "{rules:?}");

    let verify = ["svid", "verify", &chain, "--bundle", &root];
    signet(&verify).await.good();
    signet(&[&verify[..], &["--id", CART]].concat()).await.good();
    let other = signet(&[&verify[..], &["--id", "spiffe://cluster.local/ns/shop/sa/bank"]].concat()).await;
    assert_eq!(other.code, 1, "{other:?}");
    let late = signet(&[&verify[..], &["--at", "2099-01-01T00:00:00Z", "-o", "json"]].concat()).await;
    assert_eq!(
        (late.code, late.json()["accepted"].clone()),
        (1, Value::Bool(false))
    );
    let unanswered = signet(&["svid", "verify", &chain, "--bundle", "/nonexistent"]).await;
    assert_eq!(unanswered.code, 2, "{unanswered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_says_what_to_do_and_writes_nothing() {
    let place = Place::new().await;
    place
        .dir
        .write_secret("token", Cluster::start().token("shop", "cart"));
    let ran = place.request(&[]).await;
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("signet token check"), "{ran:?}");
    assert!(!place.dir.join("svid/key.pem").exists());

    place
        .dir
        .write_secret("token", place.cluster.token("shop", "cart"));
    let wrong = place.request(&["--server-name", "somebody.else"]).await;
    assert_ne!(wrong.code, 0);
    assert!(wrong.stderr.contains("somebody.else"), "{wrong:?}");
    place.request(&["--server-name", SERVER_NAME]).await.good();
    place
        .dir
        .write("root.pem", Ca::start(&Cluster::start()).await.roots().await);
    let untrusted = place.request(&[]).await;
    assert_ne!(untrusted.code, 0);
    assert!(untrusted.stderr.contains("handshake"), "{untrusted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agents_svid_is_shown_watched_and_rotated() {
    let place = Place::new().await;
    let agent = Agent::start(&place.cluster, &place.ca, "shop", "cart", "10s").await;
    let admin = agent.admin().socket().display().to_string();
    let socket = agent.socket().display().to_string();
    let by_admin = signet(&["svid", "show", "--admin", &admin, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(by_admin["svids"][0]["spiffe_id"], CART);
    assert_eq!(by_admin["svids"][0]["renewal"]["estimated"], false);
    let by_socket = signet(&["svid", "show", "--socket", &socket, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(by_socket["svids"][0]["bundle"]["accepted"], true);
    assert_eq!(by_socket["svids"][0]["bundle"]["key_matches"], true);

    let watch = ["svid", "watch", "--admin", &admin, "--count", "2"];
    let (watched, rotated) = tokio::join!(signet(&watch), async {
        // Right after a renewal it is too soon for another.
        let mut last = None;
        until("a rotation", Duration::from_secs(20), async || {
            let ran = signet(&["svid", "rotate", "--admin", &admin, "-o", "json"]).await;
            let good = ran.code == 0;
            last = Some(ran);
            good
        })
        .await;
        last.unwrap().json()
    });
    assert_ne!(rotated["old_serial"], rotated["new_serial"]);
    let watched = watched.good();
    assert!(watched.stdout.lines().count() >= 2, "{watched:?}");
    assert!(agent.renewals().await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_fetches_a_token_and_its_receiver_validates_it() {
    let place = Place::new().await;
    let agent = Agent::start(&place.cluster, &place.ca, "shop", "cart", "1h").await;
    let (socket, admin) = (
        agent.socket().display().to_string(),
        agent.admin().socket().display().to_string(),
    );
    let token = place.path("jwt");
    let fetch = [
        "jwt",
        "fetch",
        "--socket",
        &socket,
        "--audience",
        "vault",
        "--out",
        &token,
        "-o",
        "json",
    ];
    let fetched = signet(&fetch).await.good();
    assert_eq!(fetched.json()["spiffe_id"], CART);
    assert_eq!(mode(&place.dir.join("jwt")), 0o600);
    let text = std::fs::read_to_string(&token).unwrap();
    assert!(
        !(fetched.stdout + &fetched.stderr).contains(text.trim()),
        "the token is printed"
    );
    let inspected = signet(&["jwt", "inspect", &token, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(
        (&inspected["verified"], &inspected["well_formed"]),
        (&false.into(), &true.into())
    );
    assert_eq!(inspected["claims"]["sub"], CART);

    // By the agent, by the CA's bundle in a file, and by the agent's.
    let by_agent = ["jwt", "validate", &token, "--socket", &socket, "--audience"];
    signet(&[&by_agent[..], &["vault"]].concat()).await.good();
    let refused = signet(&[&by_agent[..], &["db"]].concat()).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    for source in [place.ca_admin(), admin] {
        let bundle = place.path("bundle.json");
        signet(&["bundle", "export", "--admin", &source, "--out", &bundle])
            .await
            .good();
        let validate = [
            "jwt",
            "validate",
            &token,
            "--bundle",
            &bundle,
            "--audience",
            "vault",
            "-o",
            "json",
        ];
        let verdict = signet(&validate).await.good().json();
        assert_eq!(
            (&verdict["spiffe_id"], &verdict["kid"]),
            (&CART.into(), &inspected["kid"])
        );
        let shown = signet(&["bundle", "show", &bundle, "-o", "json"])
            .await
            .good()
            .json();
        let kids = shown["jwt_keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| &key["kid"]);
        assert!(kids.into_iter().any(|kid| *kid == inspected["kid"]), "{shown}");
    }
    let other = signet(
        &[
            &fetch[..],
            &["--spiffe-id", "spiffe://cluster.local/ns/shop/sa/bank"],
        ]
        .concat(),
    )
    .await;
    assert_eq!(other.code, 1, "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_workload_of_a_sidecar_is_listed_with_its_clients() {
    let place = Place::new().await;
    let agent = Agent::start(&place.cluster, &place.ca, "shop", "cart", "1h").await;
    let mut stream = signet_tests::sds::Stream::open(&agent.socket(), &["default"])
        .await
        .unwrap();
    stream.next().await.unwrap();
    let admin = agent.admin().socket().display().to_string();
    let listed = signet(&["workload", "list", "--admin", &admin, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(listed["attestor"], "own");
    let row = &listed["workloads"][0];
    assert_eq!(
        (&row["spiffe_id"], &row["account"]),
        (&CART.into(), &"shop/cart".into())
    );
    assert_eq!(
        (&row["state"], &row["clients"]["sotw"]),
        (&"served".into(), &1.into()),
        "{listed}"
    );
    let table = signet(&["workload", "list", "--admin", &admin])
        .await
        .good()
        .stdout;
    assert!(table.contains("sotw 1") && table.contains(CART), "{table}");
    let federation = signet(&["federation", "list", "--admin", &admin, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(federation["federated"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bundle_and_authorities_are_shown() {
    let place = Place::new().await;
    let agent = Agent::start(&place.cluster, &place.ca, "shop", "cart", "1h").await;
    let (admin, root) = (place.ca_admin(), place.path("root.pem"));
    let agent_admin = agent.admin().socket().display().to_string();
    let authorities = signet(&["authority", "show", "--admin", &admin, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(authorities["issuing"]["source"], "own_root");
    let id = &authorities["roots"][0]["authority_id"];
    for source in [
        vec!["--admin", admin.as_str()],
        vec!["--admin", agent_admin.as_str()],
        vec![root.as_str()],
        vec!["--ca", place.ca.address.as_str(), "--ca-root", root.as_str()],
    ] {
        let shown = signet(&[&["bundle", "show", "-o", "json"][..], &source].concat())
            .await
            .good()
            .json();
        assert_eq!(&shown["roots"][0]["authority_id"], id, "{source:?}");
    }
    let nobody = signet(&["authority", "show", "--admin", "/nonexistent/admin.sock"]).await;
    assert_eq!(nobody.code, 2, "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_judged_with_the_exact_fix() {
    let place = Place::new().await;
    let good = place
        .check(&place.cluster.token("shop", "cart"))
        .await
        .good()
        .json();
    assert_eq!(
        (&good["accepted"], &good["judged_by"]),
        (&true.into(), &"ca".into())
    );
    assert_eq!(good["spiffe_id"], CART);

    let other = place
        .cluster
        .mint(&TokenSpec::new("shop", "cart").audience("vault").pod("cart-0"));
    let ran = place.check(&other).await;
    assert_eq!(ran.code, 1);
    let page = ran.json();
    assert_eq!(
        page["explanation"],
        "token is for audience [\"vault\"], this CA accepts [\"signet-ca\"]"
    );
    assert!(
        page["fix"].as_str().unwrap().contains("audience: signet-ca"),
        "{page}"
    );

    let gone = place.cluster.token("shop", "bank");
    place.cluster.api.delete_pod("shop", "bank-0").unwrap();
    let page = place.check(&gone).await;
    assert_eq!(page.code, 1);
    assert!(
        page.json()["explanation"]
            .as_str()
            .unwrap()
            .contains("the API server refused the token")
    );

    // By the API server itself, without a CA; and by nobody.
    let (token, kubeconfig) = (
        place.path("token"),
        place.cluster.kubeconfig().display().to_string(),
    );
    let check = ["token", "check", "--token-file", &token];
    signet(&[&check[..], &["--kubeconfig", &kubeconfig]].concat())
        .await
        .good();
    let unasked = signet(&check).await;
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(unasked.stderr.contains("nothing was verified"), "{unasked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_restored_from_a_backup() {
    let mut place = Place::new().await;
    let roots = place.ca.roots().await;
    until("the roots to be published", Duration::from_secs(15), async || {
        place.cluster.published("default").as_deref() == Some(roots.as_str())
    })
    .await;
    let passphrase = place
        .dir
        .write_secret("passphrase", "correct horse battery staple");
    let (passphrase, backup) = (passphrase.display().to_string(), place.path("backup"));
    let state = place.ca.setup.state_file();
    let directory = state.parent().unwrap().display().to_string();
    let place_of_state = [
        "--state-directory",
        directory.as_str(),
        "--passphrase-file",
        passphrase.as_str(),
    ];
    signet(&[&["authority", "export", "--out", &backup][..], &place_of_state].concat())
        .await
        .good();
    assert_eq!(mode(&place.dir.join("backup")), 0o600);
    let encrypted = std::fs::read(&backup).unwrap();
    assert_eq!(signet_tests::leaks::Secrets::any_key().find(&encrypted), None);

    place.ca.process.terminate().await;
    std::fs::remove_file(&state).unwrap();
    assert!(
        place
            .ca
            .setup
            .refused()
            .await
            .contains("signet authority restore")
    );
    let wrong = place.dir.write_secret("wrong", "guess").display().to_string();
    let with_wrong = [
        "--state-directory",
        directory.as_str(),
        "--passphrase-file",
        wrong.as_str(),
    ];
    let refused = signet(&[&["authority", "restore", &backup][..], &with_wrong].concat()).await;
    assert_ne!(refused.code, 0);
    assert!(!state.exists());
    signet(&[&["authority", "restore", &backup][..], &place_of_state].concat())
        .await
        .good();
    place.ca.start_again().await;
    assert_eq!(place.ca.roots().await, roots);
    place.request(&[]).await.good();
}
