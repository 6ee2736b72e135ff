//! The CA's state through `kill -9` at every write, and on a full disk.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::cluster::Cluster;
use signet_tests::dir::{files_below, mode};
use signet_tests::plugged::{Files, KeyForm, Kind, TestCa};
use signet_tests::{peers, strace};

/// Every call that changes a file or makes a change last.
const CALLS: [&str; 8] = [
    "write",
    "writev",
    "fchmod",
    "fsync",
    "fdatasync",
    "rename",
    "renameat2",
    "unlink",
];
/// A start makes fewer calls of any kind than this until it is ready.
const MOST: usize = 200;

/// Kills a CA at its `nth` call of a kind; answers whether it came that far at all. One that is ready
/// before is stopped.
async fn killed(setup: CaSetup, call: &str, nth: usize) -> (CaSetup, bool) {
    assert!(nth < MOST, "{nth} times {call} and still not ready");
    let words = strace::killed_at(call, nth);
    let setup = setup.under(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let mut process = setup.spawn();
    let admin = setup.admin();
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = process.ended() {
            let tail = process.tail();
            assert_eq!(
                status.signal(),
                Some(9),
                "killed by nobody else: {status}\n{tail}"
            );
            return (setup, true);
        }
        let ready = admin
            .try_get("/v1/status")
            .await
            .is_ok_and(|status| status["ready"] == true);
        if ready {
            process.kill();
            return (setup, false);
        }
        assert!(
            tokio::time::Instant::now() < end,
            "neither killed nor ready\n{}",
            process.tail()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn state(path: &Path) -> Option<Value> {
    let text = std::fs::read(path).ok()?;
    assert_eq!(mode(path), 0o600);
    Some(serde_json::from_slice(&text).expect("a whole document"))
}

/// What any leftover beside the state is worth: nothing to a stranger.
fn nothing_readable_by_others(directory: &Path) {
    for file in files_below(directory) {
        assert_eq!(mode(&file) & 0o077, 0, "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_killed_at_any_write_of_its_first_state_has_none_or_the_whole() {
    if !strace::works() {
        return;
    }
    let cluster = Cluster::start();
    let (mut none, mut whole) = (Vec::new(), Vec::new());
    for call in CALLS {
        for nth in 1.. {
            let setup = CaSetup::new(&cluster).set("publish_roots", false);
            let (setup, was_killed) = killed(setup, call, nth).await;
            let found = state(&setup.state_file());
            nothing_readable_by_others(&setup.dir().join("state"));
            let place = if found.is_some() { &mut whole } else { &mut none };
            place.push(format!("{call} {nth}"));
            let first_of_its_kind = place.len() == 1;
            // The next start takes what is there, or makes the first.
            if was_killed && (found.is_none() || first_of_its_kind) {
                let ca = setup.under(&[]).start().await;
                if let Some(found) = found {
                    assert_eq!(
                        ca.roots().await,
                        found["roots"][0]["certificate"].as_str().unwrap()
                    );
                }
            }
            if !was_killed {
                break;
            }
        }
    }
    for call in ["fsync 1", "rename 1"] {
        assert!(
            none.iter().any(|killed| killed == call),
            "killed at {call}: {none:?}"
        );
    }
    assert!(
        whole.iter().any(|killed| killed == "fsync 2"),
        "killed after the change: {whole:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_killed_at_any_write_of_a_changed_state_has_the_old_or_the_new() {
    if !strace::works() {
        return;
    }
    let cluster = Cluster::start();
    let (old, new) = (TestCa::root("Old", Kind::P256), TestCa::root("New", Kind::P256));
    let mut seen = [Vec::new(), Vec::new()];
    let setup = CaSetup::new(&cluster).set("publish_roots", false);
    let files = Files::at(setup.dir().join("cacerts"));
    let setup = setup.set("plugged_in_ca", files.path().display().to_string());
    files.istio(&old, KeyForm::Pkcs8, &[], &[&old]);
    let mut ca = setup.start().await;
    ca.process.terminate().await;
    let Ca { mut setup, .. } = ca;
    let before = std::fs::read(setup.state_file()).unwrap();
    files.istio(&old, KeyForm::Pkcs8, &[], &[&old, &new]);
    for call in CALLS {
        for nth in 1.. {
            setup.dir().write_secret("state/state.json", &before);
            let was_killed;
            (setup, was_killed) = killed(setup, call, nth).await;
            let found = state(&setup.state_file()).expect("a state that was there stays");
            nothing_readable_by_others(&setup.dir().join("state"));
            let roots = found["roots"].as_array().unwrap().len();
            assert_eq!(found["sequence"], roots, "old with one root, or new with two");
            seen[roots - 1].push(format!("{call} {nth}"));
            if !was_killed {
                break;
            }
        }
    }
    for call in ["fsync 1", "rename 1"] {
        assert!(
            seen[0].iter().any(|killed| killed == call),
            "killed at {call}: {seen:?}"
        );
    }
    assert!(
        seen[1].iter().any(|killed| killed == "fsync 2"),
        "killed after the change: {seen:?}"
    );
}

/// Words that run a program with a full disk of 64 KiB mounted on `directory`, in a namespace of its own.
fn on_full_disk(directory: &Path, fill: &str) -> Vec<String> {
    let script = format!(
        "cp -a {dir} {dir}.kept && mount -t tmpfs -o size=64k,mode=700 none {dir} && cp -a {dir}.kept/. {dir}/ && \
         {fill} && exec \"$@\"",
        dir = directory.display()
    );
    ["unshare", "-Urm", "sh", "-c", &script, "sh"]
        .iter()
        .map(|word| (*word).to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_clear_error_and_leaves_the_old_state() {
    if !peers::can(&["unshare", "-Urm", "true"], "user namespaces are not permitted") {
        return;
    }
    let cluster = Cluster::start();
    let setup = CaSetup::new(&cluster).set("publish_roots", false);
    let directory = setup.dir().sub("state");
    let fill = format!(
        "dd if=/dev/zero of={}/ballast bs=1k count=64 2>/dev/null; true",
        directory.display()
    );

    // The first state: there is no room, so there is none, and no half of one.
    let words = on_full_disk(&directory, &fill);
    let listed = setup.dir().join("listing");
    let script = format!(
        "trap 'ls -A {} > {}' EXIT; \"$@\"",
        directory.display(),
        listed.display()
    );
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .chain(["sh", "-c", &script, "sh"])
        .collect();
    let setup = setup.under(&words);
    let said = setup.refused().await;
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains(&setup.state_file().display().to_string()), "{said}");
    let listing = std::fs::read_to_string(&listed).unwrap();
    let mut left: Vec<&str> = listing.lines().filter(|name| *name != "state.lock").collect();
    left.sort_unstable();
    assert_eq!(left, ["ballast"]);

    // A changed state: the old one stays, whole.
    std::fs::remove_dir_all(format!("{}.kept", directory.display())).unwrap();
    let files = Files::at(setup.dir().join("cacerts"));
    let (old, new) = (TestCa::root("Old", Kind::P256), TestCa::root("New", Kind::P256));
    files.istio(&old, KeyForm::Pkcs8, &[], &[&old]);
    let setup = setup
        .under(&[])
        .set("plugged_in_ca", files.path().display().to_string());
    let mut ca = setup.start().await;
    ca.process.terminate().await;
    let Ca { setup, .. } = ca;
    let before = std::fs::read(setup.state_file()).unwrap();
    files.istio(&old, KeyForm::Pkcs8, &[], &[&old, &new]);
    let copied = setup.dir().join("after.json");
    let script = format!(
        "trap 'cp {} {}' EXIT; \"$@\"",
        setup.state_file().display(),
        copied.display()
    );
    let words = on_full_disk(&directory, &fill);
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .chain(["sh", "-c", &script, "sh"])
        .collect();
    let setup = setup.under(&words);
    let said = setup.refused().await;
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(std::fs::read(&copied).unwrap(), before);
}
