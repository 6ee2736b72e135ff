//! The proxy's public behaviour: real bytes in, real upstreams behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod handshake;
mod http;
mod tcp;
