//! Skips that are no missing peer: `make test` leaves these tests to `make test-kube`, and an old API
//! server cannot know what came after it.

use std::io::Write as _;

#[expect(clippy::disallowed_methods, reason = "where tests learn how they are run")]
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the tests against a real API server are left to another run; notes it if so.
#[must_use]
pub fn elsewhere() -> bool {
    let separately = env("SIGNET_KUBE_TESTS").as_deref() == Some("separately");
    if separately {
        note(
            "SIGNET-ELSEWHERE",
            &test(),
            "needs a real API server: make test-kube",
        );
    }
    separately
}

/// Notes that this test is skipped, because the peer is too old for it.
pub fn too_old(reason: &str) {
    note("SIGNET-SKIP-EXPECTED", &test(), reason);
}

fn test() -> String {
    std::thread::current().name().unwrap_or("test").to_owned()
}

#[expect(clippy::print_stderr, reason = "a skip is never silent")]
fn note(word: &str, test: &str, reason: &str) {
    let line = format!("{word} {test}: {reason}");
    eprintln!("{line}");
    if let Some(log) = env("SIGNET_SKIP_LOG") {
        let file = std::fs::File::options().create(true).append(true).open(&log);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.unwrap_or_else(|e| panic!("SIGNET_SKIP_LOG {log}: {e}"));
    }
}
