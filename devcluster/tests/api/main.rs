//! The cluster as its users see it: the `kube` client, `kubectl`, and plain requests where neither shows enough.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test as the test itself does"
)]

mod access;
mod bounds;
mod faults;
mod http2;
mod kubectl;
mod objects;
mod pages;
mod reviews;
mod support;
mod tokens;
mod watches;
mod writes;
