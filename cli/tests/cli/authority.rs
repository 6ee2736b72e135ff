//! `authority export` and `authority restore`, between a directory, a Secret and a backup.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use signet_devcluster::{DevCluster, Options};

use crate::support::{Pki, Ran, file, signet, signet_with, text};

const PASSPHRASE: &str = "a passphrase of some length\n";

/// `state.json` as a CA writes it.
fn state(pki: &Pki, sequence: u64) -> String {
    serde_json::json!({
        "schema": 1, "trust_domain": "cluster.local", "sequence": sequence, "active": 0,
        "roots": [{"certificate": pki.root.certificate().to_pem(), "key": pki.root.key().expose_pem().as_str()}],
    })
    .to_string()
}

/// A state directory with this state.
fn directory(state: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state.json"), state).unwrap();
    directory
}

async fn export(from: &[&str], out: &Path) -> Ran {
    let mut arguments = vec!["authority", "export", "--passphrase-file", "-", "--out"];
    let out = text(out);
    arguments.push(&out);
    arguments.extend(from);
    signet_with(&arguments, &[], PASSPHRASE.as_bytes()).await
}

async fn restore(backup: &Path, passphrase: &str, to: &[&str]) -> Ran {
    let backup = text(backup);
    let mut arguments = vec![
        "authority",
        "restore",
        &backup,
        "--passphrase-file",
        "-",
        "-o",
        "json",
    ];
    arguments.extend(to);
    signet_with(&arguments, &[], passphrase.as_bytes()).await
}

#[tokio::test]
async fn what_is_exported_comes_back_byte_for_byte_and_private() {
    let pki = Pki::new();
    let original = state(&pki, 5);
    let (from, to) = (directory(&original), tempfile::tempdir().unwrap());
    let backup = to.path().join("ca.backup");
    let ran = export(&["--state-directory", &text(from.path())], &backup).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.err.starts_with("keep the backup and its passphrase apart"),
        "{}",
        ran.err
    );
    let sealed = std::fs::read(&backup).unwrap();
    assert!(
        !sealed
            .windows(11)
            .any(|w| w == b"PRIVATE KEY" || w == b"CERTIFICATE")
    );
    let place = to.path().join("state");
    let ran = restore(&backup, PASSPHRASE, &["--state-directory", &text(&place)]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.json()["roots"][0]["authority_id"], pki.root.id());
    assert_eq!(
        std::fs::read_to_string(place.join("state.json")).unwrap(),
        original
    );
    for (path, mode) in [
        (&backup, 0o600),
        (&place.join("state.json"), 0o600),
        (&place, 0o700),
    ] {
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            mode,
            "{}",
            path.display()
        );
    }
    let again = export(&["--state-directory", &text(from.path())], &backup).await;
    assert_eq!(again.code, 2, "a backup is not replaced without --force");
    assert!(!ran.out.contains("PRIVATE") && !ran.err.contains("PRIVATE"));
}

#[tokio::test]
async fn state_that_is_there_is_replaced_only_by_force_and_never_goes_backwards() {
    let (old, new) = (Pki::new(), Pki::new());
    let backups = tempfile::tempdir().unwrap();
    let backup = backups.path().join("ca.backup");
    let from = directory(&state(&old, 5));
    assert_eq!(
        export(&["--state-directory", &text(from.path())], &backup)
            .await
            .code,
        0
    );
    let there = directory(&state(&new, 9));
    let place = text(there.path());
    let ran = restore(&backup, PASSPHRASE, &["--state-directory", &place]).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err
            .contains("holds state already; pass --force to replace it"),
        "{}",
        ran.err
    );
    assert_eq!(
        std::fs::read_to_string(there.path().join("state.json")).unwrap(),
        state(&new, 9)
    );
    let ran = restore(&backup, PASSPHRASE, &["--state-directory", &place, "--force"]).await;
    assert_eq!(
        (ran.code, ran.json()["sequence"].as_u64()),
        (0, Some(10)),
        "{}",
        ran.err
    );
    assert!(
        ran.err.starts_with("note: the sequence is raised from 5 to 10"),
        "{}",
        ran.err
    );
    let written = std::fs::read_to_string(there.path().join("state.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["sequence"], 10);
    assert_eq!(
        written["roots"][0]["certificate"],
        old.root.certificate().to_pem()
    );
}

#[tokio::test]
async fn every_way_a_backup_can_be_wrong_is_told_apart() {
    let backups = tempfile::tempdir().unwrap();
    let backup = backups.path().join("ca.backup");
    let from = directory(&state(&Pki::new(), 1));
    assert_eq!(
        export(&["--state-directory", &text(from.path())], &backup)
            .await
            .code,
        0
    );
    let sealed = std::fs::read(&backup).unwrap();
    let altered = |change: fn(&mut Vec<u8>)| {
        let mut bytes = sealed.clone();
        change(&mut bytes);
        file(bytes)
    };
    let place = text(&backups.path().join("state"));
    for (backup, passphrase, sentence) in [
        (
            file(&sealed),
            "another passphrase\n",
            "the passphrase is wrong, or the file was altered",
        ),
        (
            altered(|b| b.truncate(100)),
            PASSPHRASE,
            "is cut off: 100 bytes are there",
        ),
        (
            altered(|b| b[9] = 7),
            PASSPHRASE,
            "is a backup of version 7, this signet reads version 1",
        ),
        (
            altered(|b| b[60] ^= 1),
            PASSPHRASE,
            "the passphrase is wrong, or the file was altered",
        ),
        (file("PK"), PASSPHRASE, "is no signet backup"),
        (file(&sealed), "short\n", "has 5 bytes; use at least 12"),
    ] {
        let ran = restore(
            Path::new(&backup.path),
            passphrase,
            &["--state-directory", &place],
        )
        .await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{sentence}");
        assert!(ran.err.contains(sentence), "{}", ran.err);
        assert!(!Path::new(&place).exists(), "{sentence}: nothing may be written");
    }
}

#[tokio::test]
async fn what_is_no_state_is_not_exported() {
    let out = tempfile::tempdir().unwrap();
    let newer = directory("{\"schema\":3}");
    let empty = tempfile::tempdir().unwrap();
    for (from, sentence) in [
        (&newer, "is state of schema 3, this signet knows schema 2"),
        (&empty, "holds no state; has a CA ever been started with it?"),
    ] {
        let ran = export(&["--state-directory", &text(from.path())], &out.path().join("b")).await;
        assert_eq!(ran.code, 2);
        assert!(ran.err.contains(sentence), "{}", ran.err);
    }
    let ran = export(&["--secret", "no-slash"], &out.path().join("b")).await;
    assert_eq!(ran.err, "signet: --secret \"no-slash\" is not NAMESPACE/NAME\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_and_written_as_the_ca_keeps_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let scratch = tempfile::tempdir().unwrap();
    let kubeconfig = text(&scratch.path().join("kubeconfig"));
    let cluster = DevCluster::start(Options::default()).unwrap();
    cluster.write_kubeconfig(&kubeconfig).unwrap();
    cluster.create_namespace("signet-system").unwrap();
    let original = state(&Pki::new(), 5);
    let (from, backup) = (directory(&original), scratch.path().join("b"));
    assert_eq!(
        export(&["--state-directory", &text(from.path())], &backup)
            .await
            .code,
        0
    );
    let secret = ["--secret", "signet-system/ca", "--kubeconfig", &kubeconfig];
    assert_eq!(restore(&backup, PASSPHRASE, &secret).await.code, 0);
    let object = signet_devcluster::ObjectRef::core("secrets", "signet-system", "ca");
    assert_eq!(cluster.get(&object).unwrap()["type"], "signet.io/ca-state");
    assert_eq!(
        restore(&backup, PASSPHRASE, &secret).await.code,
        2,
        "not without --force"
    );
    let forced = [&secret[..], &["--force"]].concat();
    assert_eq!(restore(&backup, PASSPHRASE, &forced).await.code, 0);
    let second = scratch.path().join("b2");
    assert_eq!(export(&secret, &second).await.code, 0);
    let place = scratch.path().join("state");
    assert_eq!(
        restore(&second, PASSPHRASE, &["--state-directory", &text(&place)])
            .await
            .code,
        0
    );
    assert_eq!(
        std::fs::read_to_string(place.join("state.json")).unwrap(),
        original
    );
    let gone = signet(&[
        "authority",
        "export",
        "--secret",
        "signet-system/none",
        "--kubeconfig",
        &kubeconfig,
        "--passphrase-file",
        &file(PASSPHRASE).path,
        "--out",
        &text(&scratch.path().join("b3")),
    ])
    .await;
    assert!(
        gone.err.contains("secret signet-system/none holds no state"),
        "{}",
        gone.err
    );
    cluster.shutdown().await;
}
