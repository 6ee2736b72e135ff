//! Faults by the kernel: `strace` kills a program at its N-th system call of a kind.

use crate::peers;

/// Whether strace may trace and inject here; if not, the skip is noted.
#[must_use]
pub fn works() -> bool {
    let probe = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=getppid:error=EPERM",
        "true",
    ];
    peers::can(&probe, "strace is not there or may not trace")
}

/// Words to put before a program so that its `nth` call of any of `calls` (as strace names them) is its
/// last: killed as `kill -9` would, on the way into the call.
#[must_use]
pub fn killed_at(calls: &str, nth: usize) -> Vec<String> {
    let trace = format!("trace={calls}");
    let inject = format!("inject={calls}:signal=KILL:when={nth}");
    [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ]
    .iter()
    .map(|word| (*word).to_owned())
    .collect()
}
