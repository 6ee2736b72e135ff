//! The binary `signet` as its users run it: arguments in, stdout, stderr and an exit code out.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod authority;
mod daemons;
mod fake_ca;
mod jwt;
mod node;
mod policy;
mod policy_cluster;
mod policy_page;
mod proxy;
mod request;
mod support;
mod svid;
mod token;

use support::{signet, signet_with};

#[tokio::test]
async fn a_command_line_that_is_none_is_exit_2_with_the_usage() {
    let ran = signet(&["svid", "verify"]).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("--bundle <FILE>") && ran.out.is_empty(),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn completions_come_for_three_shells_and_do_not_name_hidden_commands_in_help() {
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef signet"),
        ("fish", "complete -c signet"),
    ] {
        let ran = signet(&["completions", shell]).await;
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains(word), "{shell}");
    }
    assert!(!signet(&["--help"]).await.out.contains("dev-guard"));
}

#[tokio::test]
async fn a_reader_that_leaves_early_is_no_error() {
    let binary = env!("CARGO_BIN_EXE_signet");
    let script = format!("{binary} completions bash | true; echo ${{PIPESTATUS[0]}}");
    let ran = tokio::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "0\n");
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
}

#[tokio::test]
async fn output_into_a_pipe_has_no_colours_whatever_the_surroundings_say() {
    let chain = support::Pki::new().chain_file("cart");
    for no_color in ["", "1"] {
        let ran = signet_with(&["svid", "show", &chain.path], &[("NO_COLOR", no_color)], b"").await;
        assert_eq!(ran.code, 0);
        assert!(!ran.out.contains('\u{1b}'));
    }
}
