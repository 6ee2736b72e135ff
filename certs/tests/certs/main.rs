//! What signet-certs promises, claim by claim. One binary: a module per subject, `support` is the
//! test CA and `limbo` its corpus of one chain per defect.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod authorities;
mod bundles;
mod chain_cache;
mod csrs;
mod ids;
mod issuing;
mod jwts;
mod limbo;
mod openssl;
mod plugged_in;
mod properties;
mod secrets;
mod support;
mod tls;
