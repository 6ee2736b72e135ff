//! What an identity is: SPIFFE IDs, keys, CSRs, SVIDs, trust bundles and X.509 authorities; how one is
//! issued and how a peer's is verified.
//!
//! This crate is pure: no sockets, files, tasks, clocks or logs. Time comes in as [`UnixTime`], bytes
//! come in as arguments, and every refusal is a typed reason.
//!
//! | module | owns |
//! |---|---|
//! | [`id`] | trust domains, SPIFFE IDs, service accounts (SPIFFE-ID §2) |
//! | [`key`] | private and public keys: what may sign, what is too weak |
//! | [`csr`] | certificate signing requests: parsed strictly, possession proven |
//! | [`certificate`] | the facts of one parsed certificate |
//! | [`svid`] | SVID chains, and an SVID with its key |
//! | [`profile`] | the X509-SVID profile, rule by rule (X509-SVID §2–§4) |
//! | [`bundle`] | trust bundles, PEM and JWKS |
//! | [`account_token`] | what a service-account token says of itself, unproven |
//! | [`jwt`] | JWT-SVIDs: keys, minting, validation |
//! | [`jws`] | tokens of other issuers, and their key sets |
//! | [`authority`] | X.509 authorities: root, issuing, plugged in |
//! | [`mod@issue`] | a permit's profile and a public key become a chain |
//! | [`verify`] | path validation and SPIFFE peer verification |
//! | [`lifetime`] | clamping, backdating, when to renew |
//! | [`tls`] | rustls configurations made from all of it |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod account_token;
pub mod authority;
pub mod bundle;
pub mod certificate;
pub mod csr;
mod der;
pub mod id;
pub mod issue;
mod jwk;
pub mod jws;
pub mod jwt;
pub mod key;
mod leaf;
pub mod lifetime;
pub mod profile;
mod serial;
pub mod svid;
pub mod tls;
pub mod verify;

pub use authority::Authority;
pub use bundle::{BundleSet, TrustBundle};
pub use csr::Csr;
pub use id::{ServiceAccountId, SpiffeId, TrustDomain};
pub use issue::{LeafProfile, issue};
pub use jwt::{JwtAuthority, JwtKey, JwtSvid};
pub use key::{PublicKey, SigningKey};
pub use rustls_pki_types::{CertificateDer, UnixTime};
pub use svid::{SvidChain, X509Svid};
