//! The file output.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use signet_certs::{SigningKey, SvidChain, X509Svid};

use crate::fake_ca::{FakeCa, Mood};
use crate::harness::{Agent, eventually};

#[tokio::test]
async fn files_are_private_belong_together_and_are_followed_by_the_hook() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(4))).await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mark = dir.path().join("mark");
    let script = format!("cat {}/cert-chain.pem >> {}", out.display(), mark.display());
    let more = format!(
        "output: {{directory: {}, on_change: [sh, -c, {script:?}]}}\n",
        out.display()
    );
    let agent = Agent::start(&ca, &more);
    let marked = eventually("two runs of the hook", || async {
        let marked = std::fs::read_to_string(&mark).unwrap_or_default();
        (marked.matches("BEGIN").count() >= 4).then_some(marked)
    })
    .await;
    let chains: Vec<&str> = marked.split_inclusive("-----END CERTIFICATE-----\n").collect();
    assert_ne!(chains[0], chains[2], "the hook saw a new leaf");
    agent.stop().await;
    for name in ["key.pem", "cert-chain.pem", "root-cert.pem"] {
        let mode = std::fs::metadata(out.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(
        std::fs::read_dir(&out).unwrap().count(),
        5,
        "three names, the link they lead through and the set it leads to"
    );
    let read = |name: &str| std::fs::read(out.join(name)).unwrap();
    let key = SigningKey::from_pem(&read("key.pem")).unwrap();
    let chain = SvidChain::from_pem(&read("cert-chain.pem")).unwrap();
    assert_eq!(chain.intermediates().len(), 1, "leaf first, without the root");
    X509Svid::new(chain, std::sync::Arc::new(key)).unwrap();
    assert_eq!(read("root-cert.pem"), ca.root_pem().into_bytes());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_counted_and_tried_again_while_sds_goes_on() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(3_600))).await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    std::fs::write(&out, "a file where the directory should be").unwrap();
    let agent = Agent::start(&ca, &format!("output: {{directory: {}}}\n", out.display()));
    agent.svid(|_| true).await;
    eventually("a failure to be counted", || async {
        let metrics = agent.metrics().await;
        metrics
            .contains("signet_agent_output_writes_total{outcome=\"failed\"}")
            .then_some(())
    })
    .await;
    std::fs::remove_file(&out).unwrap();
    eventually("the files", || async {
        out.join("cert-chain.pem").exists().then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_signal_reaches_the_process_named_in_the_file_and_no_other() {
    use signet_agent::config::{Hook, Output, SignalName};
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(3_600))).await;
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(&pid_file, format!("{}\n", child.id())).unwrap();
    let more = format!(
        "output: {{directory: {}/out, signal: {{pid_file: {}, name: SIGUSR1}}}}\n",
        dir.path().display(),
        pid_file.display()
    );
    let agent = Agent::start(&ca, &more);
    let ended = eventually("the signal", || {
        let ended = child.try_wait().unwrap();
        async move { ended }
    });
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended.await),
        Some(10)
    );
    agent.stop().await;

    // Ids that mean groups or everybody to the kernel are no ids here.
    for text in ["-1", "0", "1", "", "12 34"] {
        std::fs::write(&pid_file, text).unwrap();
        let hook = Hook::Signal {
            pid_file: pid_file.clone(),
            signal: SignalName::Hup,
        };
        let output = Output {
            directory: dir.path().join("out"),
            hook,
        };
        let error = signet_agent::output::tell(&output.hook)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("does not hold the id of a process"),
            "{text:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_failing_hook_is_counted_and_tried_again() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(3_600))).await;
    let dir = tempfile::tempdir().unwrap();
    let switch = dir.path().join("switch");
    let more = format!(
        "output: {{directory: {}/out, on_change: [test, -e, {}]}}\n",
        dir.path().display(),
        switch.display()
    );
    let agent = Agent::start(&ca, &more);
    agent.svid(|_| true).await;
    let counted = async |outcome: &'static str| {
        eventually("the hook to be counted", || async {
            let wanted = format!("signet_agent_output_hooks_total{{outcome=\"{outcome}\"}}");
            agent.metrics().await.contains(&wanted).then_some(())
        })
        .await;
    };
    counted("failed").await;
    std::fs::write(&switch, "").unwrap();
    counted("done").await;
    agent.stop().await;
}
