//! Memory that a burst of connections needed goes back to the system.
//!
//! What one thread frees of another's stays with that other thread until it tidies up, which the allocator does once
//! in so many requests of memory. After a burst there may be none for hours. So each worker is given that many to
//! make, a moment after the number of connections has changed much: they cost less than a millisecond, and touch
//! nothing. (When it has grown, what goes back is what the handshakes needed.)

use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use crate::connections::Connections;

/// How often it is looked whether there was a burst.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many connections more or fewer are a burst.
const BURST: usize = 500;
/// The allocator tidies up once in so many requests that its quick path does not meet…
const REQUESTS: usize = 10_000;
/// …which those of this size are.
const REQUEST_BYTES: usize = 2 * 1024;
/// What was freed goes back to the system a second later, at the next such occasion.
const ROUNDS: usize = 3;
/// As often as this a worker that has done its part gives another one the chance to take the task.
const ATTEMPTS: usize = 64;

thread_local! {
    static LAST_ROUND: Cell<u64> = const { Cell::new(0) };
}

/// Looks now and then, without end.
pub async fn for_ever(connections: Connections, workers: usize) {
    let (mut tidied, mut rounds, mut round) = (0_usize, 0, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let open = connections.count();
        if open.abs_diff(tidied) >= BURST {
            (tidied, rounds) = (open, ROUNDS);
        }
        if rounds > 0 {
            (rounds, round) = (rounds - 1, round + 1);
            tidy(workers, round).await;
        }
    }
}

/// Once on each worker, as far as they can be got.
async fn tidy(workers: usize, round: u64) {
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..ATTEMPTS {
                    if LAST_ROUND.replace(round) != round {
                        return ask_for_memory();
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}

fn ask_for_memory() {
    for _ in 0..REQUESTS {
        drop(black_box(Vec::<u8>::with_capacity(black_box(REQUEST_BYTES))));
    }
}
