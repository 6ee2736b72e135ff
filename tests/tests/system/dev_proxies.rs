//! `signet dev` with proxies: what it shows a newcomer, applications of one's own, policies that come and go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use signet_tests::admin::Admin;
use signet_tests::cli::{signet, signet_with};
use signet_tests::dev::Dev;
use signet_tests::dir::Dir;
use signet_tests::echo::{Echo, says};
use signet_tests::process::{Process, Signal, program, runs};
use signet_tests::wait::{SOON, until, until_some};
use signet_tests::{http, peers};
use tokio::net::TcpStream;

const ITEMS: &str = "/api/v1/items";
/// The proxy of an account.
fn proxy<'d>(ready: &'d Value, account: &str) -> &'d Value {
    let all = ready["proxies"].as_array().unwrap();
    let found = all.iter().find(|one| one["service_account"] == account);
    found.unwrap_or_else(|| panic!("no proxy of {account}: {ready}"))
}

/// Where `from` asks `to`.
fn way<'d>(ready: &'d Value, from: &str, to: &str) -> &'d str {
    proxy(ready, from)["outbound"][to].as_str().unwrap()
}

/// Status and body of a request by `from` to the sample's backend.
async fn ask(dev: &Dev, from: &str) -> (u16, String) {
    let answer = http::get(way(&dev.ready, from, "shop/backend"), ITEMS)
        .await
        .unwrap();
    (answer.status.as_u16(), answer.body)
}

async fn in_force(dev: &Dev, from: &str, status: u16) {
    until("the policies to be in force", SOON, async || {
        ask(dev, from).await.0 == status
    })
    .await;
}

/// What runs below a directory, by process id.
fn running_below(directory: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let program = std::fs::read_link(entry.path().join("exe")).ok()?;
        program.starts_with(directory).then_some(pid)
    };
    processes.filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_answers_until_a_policy_says_otherwise_and_says_why() {
    let dev = Dev::start(&["--trust-domain", "dev.example"]).await;
    for (from, id) in [
        ("shop/frontend", "spiffe://dev.example/ns/shop/sa/frontend"),
        ("other/intruder", "spiffe://dev.example/ns/other/sa/intruder"),
    ] {
        let (status, body) = ask(&dev, from).await;
        assert_eq!(status, 200, "{body}");
        assert!(
            body.ends_with(&format!("asked by {id}\n")),
            "the proxy presents {id}: {body}"
        );
    }
    let (samples, dir) = (dev.value("samples"), dev.dir().display().to_string());
    let file = format!("{samples}/allow-frontend.yaml");
    signet(&["dev", "apply", &file, "--dir", &dir]).await.good();
    in_force(&dev, "other/intruder", 403).await;
    assert_eq!(ask(&dev, "shop/frontend").await.0, 200);
    let log = std::fs::read_to_string(proxy(&dev.ready, "shop/backend")["log"].as_str().unwrap()).unwrap();
    assert!(
        log.contains("AuthorizationPolicy shop/backend-allow-frontend"),
        "{log}"
    );

    signet(&["dev", "delete", &file, "--dir", &dir]).await.good();
    in_force(&dev, "other/intruder", 200).await;
    let strict = format!("{samples}/strict.yaml");
    signet(&["dev", "apply", &strict, "--dir", &dir]).await.good();
    let inbound = proxy(&dev.ready, "shop/backend")["inbound"].as_str().unwrap();
    until("plaintext to be refused", SOON, async || {
        http::get(inbound, ITEMS).await.is_err()
    })
    .await;
    assert_eq!(ask(&dev, "shop/frontend").await.0, 200);
    let denied = format!("{samples}/deny-all.yaml");
    signet(&["dev", "apply", &denied, "--dir", &dir]).await.good();
    in_force(&dev, "shop/frontend", 403).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_says_to_try_next_works() {
    if !peers::can(&["curl", "--version"], "no curl, which is what it says to try") {
        return;
    }
    let dir = Dir::new();
    let mut command = Command::new(program("signet"));
    command.args(["dev", "--dir"]).arg(dir.sub("dev"));
    let mut dev = Process::spawn("signet-dev", dir.path(), &mut command);
    let lines = until_some("the page", SOON * 2, async || {
        assert!(dev.ended().is_none(), "{}", dev.tail());
        dev.stderr().contains("ready").then_some(())?;
        let text = dev.stdout();
        let (_, next) = text.split_once("Try next, in another terminal\n")?;
        Some(next.lines().map(str::to_owned).collect::<Vec<_>>())
    })
    .await;
    let programs = program("signet").parent().unwrap().to_owned();
    let run = |line: &str| {
        let path = format!("{}:/usr/bin:/bin", programs.display());
        let done = Command::new("sh")
            .args(["-c", line])
            .env("PATH", path)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout) + &text(&done.stderr))
    };
    let [friend, apply, stranger, why, list] = lines.as_slice() else {
        panic!("five things to try: {lines:?}")
    };
    let (code, said) = run(friend);
    assert!(
        code == Some(0) && said.starts_with("HTTP/1.1 200"),
        "{friend}: {said}"
    );
    let (code, said) = run(apply);
    assert_eq!(code, Some(0), "{apply}: {said}");
    until("the stranger to be refused", SOON, async || {
        run(stranger).1.starts_with("HTTP/1.1 403")
    })
    .await;
    assert!(run(friend).1.starts_with("HTTP/1.1 200"));
    let (code, said) = run(why);
    assert!(
        code == Some(1) && said.contains("shop/backend-allow-frontend"),
        "{why}: {said}"
    );
    let (code, said) = run(list);
    assert!(
        code == Some(0) && said.contains("other/intruder"),
        "{list}: {said}"
    );
    assert_eq!(dev.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_of_ones_own_stand_behind_proxies_and_call_each_other() {
    let (store, cart) = (Echo::start().await, Echo::start().await);
    let apps = [
        format!("data/store=tcp://{}", store.address),
        format!("shop/cart=tcp://{}", cart.address),
    ];
    let dev = Dev::start(&["--app", &apps[0], "--app", &apps[1], "--workload", "demo/web"]).await;
    assert!(dev.ready["samples"].is_null());
    for (from, to) in [("data/store", "shop/cart"), ("shop/cart", "data/store")] {
        let mut stream = TcpStream::connect(way(&dev.ready, from, to)).await.unwrap();
        says(&mut stream, "hello").await.unwrap();
    }
    let admin = proxy(&dev.ready, "data/store")["admin_address"].as_str().unwrap();
    let shown = signet(&["proxy", "secrets", "--admin", admin, "-o", "json"])
        .await
        .good()
        .json();
    assert_eq!(
        shown["svid"]["spiffe_id"], "spiffe://cluster.local/ns/data/sa/store",
        "the proxy's own, though every process of this user is demo/web"
    );
    let file = PathBuf::from(dev.value("kubeconfig")).with_file_name("ready.json");
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(written, dev.ready, "for whoever comes later");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sound_policy_is_not_applied() {
    let dev = Dev::start(&["--app", "shop/web=echo"]).await;
    let dir = dev.dir().display().to_string();
    let apply = async |yaml: &str| signet_with(&["dev", "apply", "-", "--dir", &dir], yaml).await;
    let typo = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: typo, namespace: shop}\nspec: {rules: [{form: []}]}\n";
    let refused = apply(typo).await;
    assert!(
        refused.code == 1 && refused.stdout.contains("spec.rules[0].form"),
        "{refused:?}"
    );
    let other = apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n").await;
    assert!(
        other.code == 2 && other.stderr.contains("kubectl --kubeconfig"),
        "{other:?}"
    );
    let kubeconfig = dev.value("kubeconfig");
    let left = signet(&["policy", "check", "--kubeconfig", kubeconfig]).await;
    assert!(left.stderr.contains("no policy was found"), "{left:?}");
    let nowhere = signet(&["dev", "delete", "x.yaml", "--dir", "/nonexistent"]).await;
    assert!(
        nowhere.code == 2 && nowhere.stderr.contains("no kubeconfig"),
        "{nowhere:?}"
    );
    let twice = signet(&["dev", "--app", "shop/web", "--app", "shop/web=echo"]).await;
    assert!(
        twice.code == 2 && twice.stderr.contains("has one proxy"),
        "{twice:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_outlives_the_command_however_it_ends() {
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let mut dev = Dev::start(&["--app", "shop/web=echo", "--app", "shop/cart"]).await;
        let mut pids = running_below(&dev.dir().join("proxies"));
        assert_eq!(pids.len(), 2, "a process for each proxy");
        let status = Admin::at(Path::new(dev.value("admin_socket")))
            .get("/v1/status")
            .await;
        pids.push(u32::try_from(status["pid"].as_u64().unwrap()).unwrap());
        dev.process.signal(signal);
        let status = dev.process.wait(Duration::from_secs(20)).await;
        assert_eq!(
            status.code(),
            (signal != Signal::KILL).then_some(0),
            "{}",
            dev.process.tail()
        );
        until("all of them to be gone", SOON, async || {
            !pids.iter().any(|pid| runs(*pid))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_proxy_ends_the_command_and_says_whose_it_was() {
    let mut dev = Dev::start(&["--app", "shop/web=echo"]).await;
    let pids = running_below(&dev.dir().join("proxies"));
    let victim = rustix::process::Pid::from_raw(i32::try_from(pids[0]).unwrap()).unwrap();
    rustix::process::kill_process(victim, Signal::KILL).unwrap();
    let status = dev.process.wait(Duration::from_secs(20)).await;
    assert_ne!(status.code(), Some(0));
    let said = dev.process.stderr();
    assert!(said.contains("signet-proxy of shop/web"), "{said}");
}
