//! Nanoseconds per decision, among few rules and many, on one core:
//! `cargo bench -p signet-policy --bench decisions`.
//!
//! A line is one form of rules; its figures are medians of several runs, with the slowest run beside them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program run by hand: it measures, prints, and stops where it is wrong"
)]

use std::hint::black_box;
use std::time::Instant;

use signet_policy::{Connection, Gate, Program, Request};

#[path = "../tests/policy/corpus.rs"]
mod corpus;

use corpus::{FORMS, Form, mesh, workload};

const RUNS: usize = 9;
const DECISIONS: u32 = 200_000;

fn main() {
    println!(
        "{:<36} {:>7} {:>14} {:>14} {:>14}",
        "form", "rules", "permit ns", "denial ns", "compile ms"
    );
    for form in FORMS {
        for count in [10, 1_000, 10_000] {
            let set = form.set(count);
            let before = Instant::now();
            let program = set.in_force(&workload(), &mesh()).program;
            let compiled = before.elapsed();
            let permit = measure(&program, form, count / 2);
            let denial = measure(&program, form, 2 * count + 1);
            println!(
                "{:<36} {count:>7} {permit:>14} {denial:>14} {:>14.1}",
                form.name,
                compiled.as_secs_f64() * 1e3
            );
        }
    }
}

/// Nanoseconds per decision about the question of rule `number`.
fn measure(program: &Program, form: &Form, number: usize) -> String {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            form.with(number, |connection, request| {
                let before = Instant::now();
                for _ in 0..DECISIONS {
                    black_box(decide(program, black_box(connection), black_box(request)));
                }
                before.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS)
            })
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    let middle = runs.get(RUNS / 2).copied().unwrap_or_default();
    let slowest = runs.last().copied().unwrap_or_default();
    format!("{middle:.0} ({slowest:.0})")
}

fn decide(program: &Program, connection: &Connection<'_>, request: Option<&Request<'_>>) -> bool {
    match program.gate(connection, request) {
        Gate::Open(cleared) => cleared.decide(connection, request).is_ok(),
        Gate::Ask(_) | Gate::Shut(_) => false,
    }
}
