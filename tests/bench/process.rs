//! CPU time and memory of processes, from the kernel.

use std::time::Duration;

/// Ticks of `/proc/<pid>/stat`: 100 a second on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// CPU time of a process, user and system, all threads.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // Fields after the name, which is in parentheses and may hold anything.
    let rest = stat.rsplit_once(") ").expect("a stat line").1;
    let field = |n: usize| {
        rest.split(' ')
            .nth(n)
            .and_then(|f| f.parse::<u32>().ok())
            .expect("a number")
    };
    TICK * (field(11) + field(12))
}

/// Resident memory of a process, in MiB.
pub(crate) fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .expect("a VmRSS line");
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    kib / 1024.0
}

/// Keeps this thread, and those it starts from now on, on one core; says whether that worked and
/// another core is left.
pub(crate) fn stay_on(core: usize) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let taskset = std::process::Command::new("taskset")
        .arg("--version")
        .output()
        .is_ok();
    if cores < 2 || !taskset {
        return false;
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).is_ok()
}

/// Lets this thread, and those it starts from now on, run on every core again.
pub(crate) fn roam() {
    let mut set = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU.min(64)).for_each(|core| set.set(core));
    // What cannot be undone stays; the figures then say so themselves.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}
