//! Peers a machine may lack. A test without its peer says so aloud; it never passes silently.
//!
//! `SIGNET_SKIP_LOG` names a file that collects what was skipped; with `SIGNET_PEERS=required` a
//! missing peer is a failure.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[expect(clippy::disallowed_methods, reason = "where tests learn of their peers")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Notes that the running test is skipped, and why.
///
/// # Panics
/// When peers are required.
#[expect(clippy::print_stderr, reason = "a skip is never silent")]
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let line = format!("SIGNET-SKIP {test}: {reason}");
    assert!(
        env("SIGNET_PEERS").as_deref() != Some("required"),
        "{line} (and SIGNET_PEERS=required)"
    );
    eprintln!("{line}");
    if let Some(log) = env("SIGNET_SKIP_LOG") {
        let file = std::fs::File::options().create(true).append(true).open(&log);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.unwrap_or_else(|e| panic!("SIGNET_SKIP_LOG {log}: {e}"));
    }
}

/// The real Envoy, or nothing after noting the skip.
#[must_use]
pub fn envoy() -> Option<PathBuf> {
    let found = env("SIGNET_ENVOY").map(PathBuf::from);
    if found.is_none() {
        skip("no Envoy: SIGNET_ENVOY is not set (scripts/envoy.sh prints what to set it to)");
    }
    found
}

/// A Python with the SPIFFE library, and with it that of gRPC and one for WebSockets, or nothing after noting the skip.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let found = env("SIGNET_PYTHON").map(PathBuf::from);
    if found.is_none() {
        skip(
            "no SPIFFE library for Python: SIGNET_PYTHON is not set (scripts/spiffe-python.sh prints what to set it to)",
        );
    }
    found
}

/// The client on go-spiffe, or nothing after noting the skip.
#[must_use]
pub fn go_client() -> Option<PathBuf> {
    let found = env("SIGNET_GO_CLIENT").map(PathBuf::from);
    if found.is_none() {
        skip(
            "no client on go-spiffe: SIGNET_GO_CLIENT is not set (scripts/spiffe-go.sh prints what to set it to)",
        );
    }
    found
}

/// Whether `command` runs and succeeds here; if not, the skip is noted with `why`.
#[must_use]
pub fn can(command: &[&str], why: &str) -> bool {
    let Some((program, arguments)) = command.split_first() else {
        return false;
    };
    let run = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let works = run.is_ok_and(|status| status.success());
    if !works {
        skip(why);
    }
    works
}
