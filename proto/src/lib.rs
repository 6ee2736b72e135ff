//! The wire: generated gRPC code, and every conversion between wire and domain types.
//!
//! | module | surface |
//! |---|---|
//! | [`issue`] | `istio.v1.auth.IstioCertificateService` |
//! | [`authority`], [`mint`] | `signet.ca.v1.Authority`, our own service beside it |
//! | [`sds`] | `envoy.service.secret.v3.SecretDiscoveryService` |
//! | [`policy`] | `signet.policy.v1.PolicyDiscovery`, policies for local proxies |
//! | [`workload`] | `SpiffeWorkloadAPI`, the SPIFFE Workload API |
//! | [`wire`] | generated messages, clients and servers; made by `tests/generated.rs` |
//!
//! Envoy's messages are a trimmed set under their published package names and field numbers; what is
//! left out is skipped by the decoder.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that cannot go on ends by a panic"
    )
)]

pub mod authority;
pub mod issue;
pub mod mint;
pub mod policy;
pub mod sds;
pub mod workload;

#[path = "gen/mod.rs"]
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated: the lints are about code that people write"
)]
pub mod wire;

/// Messages that may carry a private key, a token or a password say only what they are.
macro_rules! redacted_debug {
    ($($message:path),+ $(,)?) => {$(
        impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), "(redacted)"))
            }
        }
    )+};
}

redacted_debug!(
    wire::envoy::config::core::v3::DataSource,
    wire::envoy::config::core::v3::HeaderValue,
    wire::envoy::service::auth::v3::attribute_context::HttpRequest,
    wire::envoy::service::discovery::v3::DiscoveryResponse,
    wire::envoy::service::discovery::v3::DeltaDiscoveryResponse,
    wire::envoy::service::discovery::v3::Resource,
    wire::signet::ca::v1::MintJwtSvidResponse,
    wire::X509svid,
    wire::Jwtsvid,
    wire::Witsvid,
    wire::ValidateJwtsvidRequest,
);
