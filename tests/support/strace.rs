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

/// Words to put before a program so that the `nth` call of `call` (as strace names it) of any of its
/// threads is its last: killed as `kill -9` would, on the way into the call.
#[must_use]
pub fn killed_at(call: &str, nth: usize) -> Vec<String> {
    let trace = format!("trace={call}");
    // strace counts per thread and per system call, so a set of calls would leave gaps.
    let inject = format!("inject={call}:signal=KILL:when={nth}");
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
