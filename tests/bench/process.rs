//! CPU time and memory of processes, from the kernel.

use std::time::Duration;

pub(crate) use signet_tests::process::{cpu, resident};

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
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
