//! OpenSSL, as a program: another implementation's opinion, and keys that ring cannot make.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `openssl` with `input`; answers stdout.
///
/// # Panics
/// When it fails, with what it said.
#[must_use]
pub fn openssl(arguments: &[&str], input: &str) -> String {
    let (good, out, err) = run(arguments, input);
    assert!(good, "openssl {arguments:?}: {err}");
    out
}

/// Whether `chain` (leaf first, PEM) leads to `roots`, with OpenSSL's words.
///
/// # Panics
/// When files cannot be written.
#[must_use]
pub fn verifies(dir: &Path, chain: &str, roots: &str) -> (bool, String) {
    let (chain_file, roots_file) = (dir.join("openssl-chain.pem"), dir.join("openssl-roots.pem"));
    std::fs::write(&chain_file, chain).expect("chain");
    std::fs::write(&roots_file, roots).expect("roots");
    let (chain_file, roots_file) = (chain_file.display().to_string(), roots_file.display().to_string());
    let arguments = [
        "verify",
        "-x509_strict",
        "-CAfile",
        &roots_file,
        "-untrusted",
        &chain_file,
        &chain_file,
    ];
    let (good, out, err) = run(&arguments, "");
    (good, out + &err)
}

fn run(arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is needed for these tests");
    let mut stdin = child.stdin.take().expect("stdin");
    // A command that reads nothing closes the pipe.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let done = child.wait_with_output().expect("openssl");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (done.status.success(), text(done.stdout), text(done.stderr))
}
