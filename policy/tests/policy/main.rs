//! Public behaviour of the policy engine, section by section of its semantics, and against an evaluator that
//! is too plain to be wrong.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod allocations;
mod corpus;
mod docs;
mod emptiness;
mod faults;
mod identity;
mod keys;
mod last_good;
mod matching;
mod naive;
mod order;
mod peers;
mod property;
mod support;
mod tcp;
mod tokens;
