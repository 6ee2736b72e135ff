//! What is deployed and documented: manifests, images, alerts and documents against the programs, and
//! the programs against a real API server.
//!
//! The tests of [`api`] need kube-apiserver and etcd and run in `make test-kube`; the others run in
//! `make test`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test as the test itself does"
)]

mod alerts;
mod api;
mod documents;
mod elf;
mod images;
mod manifests;
mod registered;
mod sidecar;
