//! Neither keys nor tokens get out (I3): a whole run at trace level, and everything it let out.

mod tokens;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use signet_devcluster::{Fault, FaultScope};
use signet_tests::agent::AgentSetup;
use signet_tests::ca::CaSetup;
use signet_tests::cli::{signet, signet_with};
use signet_tests::client::{Ask, Dial};
use signet_tests::cluster::Cluster;
use signet_tests::dir::{Dir, files_below};
use signet_tests::leaks::Secrets;
use signet_tests::metrics::Scrape;
use signet_tests::wait::until;
use signet_tests::{csrs, sds};

/// What is let out, with where.
#[derive(Default)]
struct Out(Vec<(String, Vec<u8>)>);

impl Out {
    fn add(&mut self, place: &str, what: impl Into<Vec<u8>>) {
        self.0.push((place.to_owned(), what.into()));
    }

    async fn pages(&mut self, place: &str, admin: &signet_tests::admin::Admin, pages: &[&str]) {
        for page in pages {
            self.add(&format!("{place}{page}"), admin.get(page).await.to_string());
        }
    }

    /// Every file below, but those that the contract gives secrets to.
    fn files(&mut self, directory: &Path, but: &[&Path]) {
        for file in files_below(directory) {
            if !but.contains(&file.as_path()) {
                self.add(
                    &file.display().to_string(),
                    std::fs::read(&file).unwrap_or_default(),
                );
            }
        }
    }

    /// Searches all of it, in which these logs are, each at trace level.
    fn holds_none(&self, secrets: &Secrets, logs: &[&str]) {
        for log in logs {
            let found = self.0.iter().find(|(place, _)| place.ends_with(log));
            let (_, text) = found.unwrap_or_else(|| panic!("{log} is missing"));
            assert!(
                text.len() > 20_000,
                "{log} is not at trace level: {} bytes",
                text.len()
            );
        }
        for (place, text) in &self.0 {
            assert_eq!(secrets.find(text), None, "in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_run_at_trace_level_lets_out_neither_key_nor_token() {
    let mut out = Out::default();
    let mut secrets = Secrets::any_key();
    let cluster = Cluster::start();
    let mut ca = CaSetup::new(&cluster)
        .set("log_filter", "trace")
        .set("min_svid_ttl", "10s")
        .set("review_timeout", "1s")
        .start()
        .await;
    let state: Value = serde_json::from_slice(&std::fs::read(ca.setup.state_file()).unwrap()).unwrap();
    secrets.key("the root key", state["roots"][0]["key"].as_str().unwrap());
    secrets.token("the API server's admin token", cluster.api.admin_token());

    let setup = AgentSetup::new(&cluster, &ca, "shop", "cart")
        .await
        .set("log_filter", "trace")
        .set("svid_ttl", "10s");
    let files = setup.dir().join("out");
    let mut agent = setup.set("output", json!({"directory": files})).start().await;
    let token_file = agent.setup.dir().join("token");
    secrets.token(
        "the agent's token",
        &std::fs::read_to_string(&token_file).unwrap(),
    );
    let socket = agent.socket();
    let served = async |secrets: &mut Secrets| {
        let pair = sds::pair(&sds::fetch(&socket, "default").await.unwrap());
        secrets.key("a key of the agent", &pair.key);
    };
    served(&mut secrets).await;

    // Requests that are granted, and refused at every step.
    let (good, foreign) = (
        cluster.token("shop", "bank"),
        Cluster::start().token("shop", "bank"),
    );
    let gone = cluster.token("shop", "gone");
    cluster.api.delete_pod("shop", "gone-0").unwrap();
    for (name, token) in [
        ("a good token", &good),
        ("a foreign token", &foreign),
        ("a dead token", &gone),
    ] {
        secrets.token(name, token);
    }
    let channel = Dial::default().channel(&ca).await;
    let asks = [
        Ask::good().token(&good),
        Ask::good().token(&foreign),
        Ask::good().token(&gone),
        Ask::good().token(&good[..good.len() - 10]),
        Ask::good().header("authorization", &format!("Basic {good}")),
        Ask::csr(csrs::asking_for_ca()).token(&good),
        Ask::csr(good.clone()).token(&good),
        Ask::good().token(&good).metadata("ImpersonatedIdentity", &good),
    ];
    for ask in &asks {
        if let Err(status) = ask.send(&channel).await {
            out.add("a status", format!("{status:?}"));
        }
    }
    for fault in [Fault::Garbage, Fault::InternalError, Fault::CloseConnection] {
        cluster.api.set_fault(FaultScope::TokenReviews, fault);
        let token = cluster.token("shop", "late");
        secrets.token("a token that could not be reviewed", &token);
        let status = Ask::good().token(&token).send(&channel).await.unwrap_err();
        out.add("a status", format!("{status:?}"));
        let checked = ca
            .admin()
            .post("/v1/token/check", &json!({"token": token}))
            .await
            .unwrap();
        out.add("token/check", checked.to_string());
    }
    cluster.api.clear_fault(FaultScope::TokenReviews);
    for token in [&good, &foreign, &gone] {
        let admin = ca.admin().socket().display().to_string();
        for more in [&["--admin", &admin][..], &[]] {
            let ran = signet_with(
                &[&["token", "check", "--token-file", "-"][..], more].concat(),
                token,
            )
            .await;
            out.add("signet token check", ran.stdout + &ran.stderr);
        }
    }
    let dir = Dir::new();
    let (root, wanted) = (
        dir.write("root.pem", ca.roots().await),
        dir.join("svid").display().to_string(),
    );
    let (root, token) = (root.display().to_string(), token_file.display().to_string());
    let request = [
        "svid",
        "request",
        "--ca",
        &ca.address,
        "--ca-root",
        &root,
        "--token-file",
        &token,
        "--out",
        &wanted,
    ];
    let ran = signet(&request).await.good();
    out.add("signet svid request", ran.stdout + &ran.stderr);
    let key = dir.join("svid/key.pem");
    secrets.key("a requested key", &std::fs::read_to_string(&key).unwrap());
    let admin = agent.admin().socket().display().to_string();
    let workload = socket.display().to_string();
    for show in [["--admin", &admin], ["--socket", &workload]] {
        let ran = signet(&[&["svid", "show", "-o", "json"][..], &show].concat())
            .await
            .good();
        out.add("signet svid show", ran.stdout + &ran.stderr);
    }

    // A renewal, and a CA that is away.
    agent.wait_renewals(1, Duration::from_secs(60)).await;
    served(&mut secrets).await;
    secrets.key(
        "the key in the file",
        &std::fs::read_to_string(files.join("key.pem")).unwrap(),
    );
    out.pages(
        "CA ",
        &ca.admin(),
        &["/v1/status", "/v1/authorities", "/v1/bundle"],
    )
    .await;
    out.add("the CA's metrics", ca.scrape().await.text());
    out.add("configmaps", cluster.published("default").unwrap_or_default());
    ca.process.terminate().await;
    until("a failed renewal", Duration::from_secs(60), async || {
        !agent.svid().await["last_failure"].is_null()
    })
    .await;
    out.pages(
        "agent ",
        &agent.admin(),
        &["/v1/status", "/v1/svids", "/v1/bundle", "/v1/streams"],
    )
    .await;
    out.add("the agent's metrics", Scrape::of(&agent.metrics).await.text());
    agent.process.terminate().await;

    // Logs are among the files.
    let state = ca.setup.state_file();
    out.files(ca.setup.dir().path(), &[&state]);
    // Files that change together are links to those of one set.
    let kept = files.join("key.pem").canonicalize().unwrap();
    out.files(agent.setup.dir().path(), &[&token_file, &kept]);
    out.files(dir.path(), &[&key]);
    out.holds_none(&secrets, &["signet-ca.err", "signet-agent-cart.err"]);
}
