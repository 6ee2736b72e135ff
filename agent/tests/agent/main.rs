//! The agent as its neighbours see it: a real SDS client over its socket, a CA of this process above
//! it, an operator at its admin socket.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends by a panic"
)]

mod admin;
mod fake_ca;
mod harness;
mod keeping;
mod machines;
mod node;
mod output;
mod policies;
mod replicas;
mod rotation;
mod sds;
mod shelves;
mod socket;
