//! `signet dev`: one command, the whole system, nothing left behind.

use std::path::Path;
use std::time::Duration;

use signet_tests::admin::Admin;
use signet_tests::cli::signet;
use signet_tests::dev::Dev;
use signet_tests::dir::mode;
use signet_tests::process::{Signal, program, runs};
use signet_tests::wait::{SOON, until};
use signet_tests::{http, sds};

const KEYS: [&str; 8] = [
    "kubeconfig",
    "ca_address",
    "ca_root",
    "agent_socket",
    "admin_socket",
    "token",
    "ca_metrics",
    "agent_metrics",
];

#[tokio::test(flavor = "multi_thread")]
async fn one_line_tells_where_everything_is_and_it_is_true() {
    let dev = Dev::start(&["--trust-domain", "dev.example", "--svid-ttl", "1m"]).await;
    for key in KEYS {
        assert!(!dev.value(key).is_empty(), "{key}");
    }
    for key in ["kubeconfig", "token"] {
        assert_eq!(mode(Path::new(dev.value(key))) & 0o077, 0, "{key} is private");
    }
    let token = std::fs::read_to_string(dev.value("token")).unwrap();
    assert!(
        !dev.ready.to_string().contains(token.trim()),
        "never the token itself"
    );
    for key in ["ca_metrics", "agent_metrics"] {
        let address = dev
            .value(key)
            .strip_prefix("http://")
            .expect("a URL")
            .trim_end_matches('/')
            .to_owned();
        assert_eq!(
            http::get(&address, "/healthz/ready").await.unwrap().status,
            200,
            "{key}"
        );
    }
    let secret = sds::fetch(Path::new(dev.value("agent_socket")), "default")
        .await
        .unwrap();
    let chain = sds::pair(&secret).chain;
    assert!(
        signet_certs::SvidChain::from_pem(chain.as_bytes())
            .unwrap()
            .id()
            .as_str()
            .starts_with("spiffe://dev.example/")
    );
    let out = dev.dir().join("svid").display().to_string();
    let request = [
        "svid",
        "request",
        "--ca",
        dev.value("ca_address"),
        "--ca-root",
        dev.value("ca_root"),
        "--token-file",
        dev.value("token"),
        "--out",
        &out,
    ];
    signet(&request).await.good();
    signet(&["svid", "show", "--admin", dev.value("admin_socket")])
        .await
        .good();
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_get_the_identities_that_were_asked_for_and_strangers_none() {
    // The command itself is a workload; this test, of the same user, is none.
    let own = program("signet").display().to_string();
    let bank = format!("shop/bank=executable:{own},hint:bank");
    let cart = format!("shop/cart=executable:{own}");
    let dev = Dev::start(&["--workload", &bank, "--workload", &cart]).await;
    let listed = signet(&[
        "workload",
        "list",
        "--admin",
        dev.value("admin_socket"),
        "-o",
        "json",
    ])
    .await
    .good()
    .json();
    let accounts: Vec<&str> = listed["workloads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["account"].as_str().unwrap())
        .collect();
    assert_eq!(accounts, ["shop/bank", "shop/cart"], "{listed}");
    assert!(
        listed["workloads"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["state"] == "served")
    );
    let socket = dev.value("agent_socket");
    let shown = signet(&["svid", "show", "--socket", socket, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(
        shown["svids"][0]["spiffe_id"], "spiffe://cluster.local/ns/shop/sa/bank",
        "the first rule is the default"
    );
    let (bank, cart) = (
        "spiffe://cluster.local/ns/shop/sa/bank",
        "spiffe://cluster.local/ns/shop/sa/cart",
    );
    assert_eq!(shown["svids"][1]["spiffe_id"], cart, "and all are shown");
    assert_eq!(shown["svids"][1]["bundle"]["key_matches"], true);
    for (source, place) in [("--socket", socket), ("--admin", dev.value("admin_socket"))] {
        let one = ["svid", "show", source, place, "--id", cart, "-o", "json"];
        let one = signet(&one).await.good().json();
        assert_eq!(one["svids"].as_array().unwrap().len(), 1, "{one}");
        assert_eq!(one["svids"][0]["spiffe_id"], cart);
        let other = bank.replace("bank", "vault");
        let none = signet(&["svid", "show", source, place, "--id", &other]).await;
        assert!(none.code == 1 && none.stderr.contains(&other), "{none:?}");
    }
    let refused = sds::fetch(Path::new(socket), "default").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(refused.message().contains("no identity issued"), "{refused:?}");
    assert!(dev.value("token").ends_with("tokens/bank/signet-token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_systems_accept_each_others_domain_by_bundle() {
    let partner = Dev::start(&["--trust-domain", "partner.example"]).await;
    let file = partner.dir().join("partner.json").display().to_string();
    let export = [
        "bundle",
        "export",
        "--admin",
        partner.value("ca_admin_socket"),
        "--out",
        &file,
    ];
    signet(&export).await.good();
    let foreign = format!("partner.example={file}");
    let dev = Dev::start(&["--foreign", &foreign]).await;
    let listed = signet(&[
        "federation",
        "list",
        "--admin",
        dev.value("admin_socket"),
        "-o",
        "json",
    ])
    .await
    .good()
    .json();
    assert_eq!(
        listed["federated"][0]["trust_domain"], "partner.example",
        "{listed}"
    );
    let token = dev.dir().join("token").display().to_string();
    let fetch = [
        "jwt",
        "fetch",
        "--socket",
        partner.value("agent_socket"),
        "--audience",
        "shop",
        "--out",
        &token,
    ];
    signet(&fetch).await.good();
    let validate = async |socket: &str| {
        signet(&[
            "jwt",
            "validate",
            &token,
            "--socket",
            socket,
            "--audience",
            "shop",
            "-o",
            "json",
        ])
        .await
    };
    let accepted = validate(dev.value("agent_socket")).await.good().json();
    assert_eq!(accepted["spiffe_id"], "spiffe://partner.example/ns/demo/sa/web");
    // Trust is not mutual by itself.
    let fetch = [
        "jwt",
        "fetch",
        "--socket",
        dev.value("agent_socket"),
        "--audience",
        "shop",
        "--out",
        &token,
    ];
    signet(&fetch).await.good();
    assert_eq!(validate(partner.value("agent_socket")).await.code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_is_told_before_anything_runs() {
    let foreign = ["dev", "--foreign", "partner.example=/nonexistent"];
    let ran = signet(&foreign).await;
    assert!(ran.code == 2 && ran.stderr.contains("/nonexistent"), "{ran:?}");
    let own = signet(&["dev", "--foreign", "cluster.local=/nonexistent"]).await;
    assert!(
        own.code == 2 && own.stderr.contains("our own trust domain"),
        "{own:?}"
    );
    let agent = signet(&["dev", "--workload", "signet-system/signet-agent"]).await;
    assert!(
        agent.code == 2 && agent.stderr.contains("an account of signet itself"),
        "{agent:?}"
    );
    let wrong = signet(&["dev", "--workload", "cart"]).await;
    assert!(
        wrong.code == 2 && wrong.stderr.contains("write NAMESPACE/ACCOUNT"),
        "{wrong:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_stop_all_of_it_and_leave_nothing_running() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut dev = Dev::start(&[]).await;
        let mut pids = Vec::new();
        for socket in ["admin_socket", "ca_admin_socket"] {
            let status = Admin::at(Path::new(dev.value(socket))).get("/v1/status").await;
            pids.push(u32::try_from(status["pid"].as_u64().unwrap()).unwrap());
        }
        assert!(pids.iter().all(|pid| runs(*pid)));
        dev.process.signal(signal);
        let status = dev.process.wait(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0), "{}", dev.process.tail());
        until("the daemons to be gone", SOON, async || {
            !pids.iter().any(|pid| runs(*pid))
        })
        .await;
        for key in ["agent_socket", "admin_socket"] {
            assert!(!Path::new(dev.value(key)).exists(), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_daemon_ends_the_command_and_the_other_daemon() {
    let mut dev = Dev::start(&[]).await;
    let pid = async |socket: &str| {
        let status = Admin::at(Path::new(dev.value(socket))).get("/v1/status").await;
        i32::try_from(status["pid"].as_u64().unwrap()).unwrap()
    };
    let (agent, ca) = (pid("admin_socket").await, pid("ca_admin_socket").await);
    let victim = rustix::process::Pid::from_raw(ca).unwrap();
    rustix::process::kill_process(victim, Signal::KILL).unwrap();
    let status = dev.process.wait(Duration::from_secs(20)).await;
    assert_ne!(status.code(), Some(0));
    assert!(
        dev.process.stderr().contains("signet-ca"),
        "{}",
        dev.process.tail()
    );
    until("the agent to be gone", SOON, async || {
        !runs(u32::try_from(agent).unwrap())
    })
    .await;
}
