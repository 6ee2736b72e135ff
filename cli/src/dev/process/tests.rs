use super::*;

fn program(directory: &Path, script: &str) -> Program {
    let (text, path) = (directory.join("daemon.sh"), directory.join("daemon"));
    std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    // Another program makes the file that is executed: one that this process has open for writing could be inherited by a
    // child that another test starts at that moment, and executing it would be refused (`ETXTBSY`).
    let mut install = std::process::Command::new("install");
    install.args(["-m", "700"]).arg(text).arg(&path);
    assert!(install.status().unwrap().success());
    Program {
        name: "signet-test".into(),
        path,
        directory: directory.join("d"),
        admin_socket: directory.join("d/admin.sock"),
        arguments: Vec::new(),
    }
}

#[tokio::test]
async fn a_daemon_that_dies_is_told_with_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    let script = "for i in $(seq 30); do echo line $i; done; echo the reason >&2; exit 3";
    let mut process = program(directory.path(), script).start(&"config").unwrap();
    let text = process
        .ready(Duration::from_secs(30))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("signet-test ended with exit status: 3; its log is "),
        "{text}"
    );
    assert!(
        text.ends_with("  line 30\n  the reason") && !text.contains("line 11\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_daemon_that_never_is_ready_is_given_up_with_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = program(directory.path(), "exec sleep 60")
        .start(&"config")
        .unwrap();
    let text = process
        .ready(Duration::from_millis(80))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("is not ready after 0 s: ") && text.contains("is the daemon running"),
        "{text}"
    );
    assert!(
        !process.stop(Duration::from_secs(30)).await,
        "sleep ends by the signal, not with success"
    );
}

#[tokio::test]
async fn a_daemon_that_ignores_sigterm_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; echo up; while true; do sleep 1; done";
    let process = program(directory.path(), script).start(&"config").unwrap();
    let pid = process.pid().unwrap();
    assert!(!process.stop(Duration::from_millis(200)).await);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_missing_program_is_told_with_where_it_was_looked_for() {
    let text = Program::beside("signet-none", Path::new("/"), Path::new("/"))
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("signet-none is not beside this program (looked in /"),
        "{text}"
    );
    assert!(
        text.contains(" and ") && text.contains("cargo build --workspace --bins"),
        "{text}"
    );
}
