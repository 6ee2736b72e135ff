//! OpenSSL as a peer: found once, skipped by name where it is absent.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// An `openssl` that works, in a scratch directory of its own.
pub(crate) struct OpenSsl {
    dir: tempfile::TempDir,
}

/// What one run left.
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl OpenSsl {
    /// Nothing where there is no `openssl`; then the skip is recorded under the test's name.
    ///
    /// # Panics
    /// When peers are required.
    #[expect(clippy::disallowed_methods, reason = "where tests learn of their peers")]
    pub(crate) fn find(test: &str) -> Option<Self> {
        let works = Command::new("openssl")
            .arg("version")
            .output()
            .is_ok_and(|o| o.status.success());
        if works {
            return Some(Self {
                dir: tempfile::tempdir().unwrap(),
            });
        }
        let line = format!("SIGNET-SKIP {test}: openssl not found");
        write_aloud(&line);
        if let Some(log) = std::env::var_os("SIGNET_SKIP_LOG") {
            let mut log = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .unwrap();
            writeln!(log, "{line}").unwrap();
        }
        assert!(
            std::env::var_os("SIGNET_PEERS").is_none_or(|p| p != "required"),
            "{line}"
        );
        None
    }

    /// Writes a file into the scratch directory and names it.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let output = Command::new("openssl")
            .args(args)
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ran {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a run that must succeed.
    pub(crate) fn must(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert!(ran.ok, "openssl {args:?}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }
}

#[expect(
    clippy::print_stdout,
    reason = "whoever watches a test run sees what it left out"
)]
fn write_aloud(line: &str) {
    println!("{line}");
}
