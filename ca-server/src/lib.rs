//! The CA: turns an authenticated, authorized CSR into an SVID chain; keeps and rotates the X.509
//! authorities.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the configuration file, checked as a whole |
//! | [`run`] | start-up, the order of it, and the end |
//! | [`service`] | `CreateCertificate` in five steps |
//! | [`bundle_service`] | `WatchBundle`, for our agents |
//! | [`gather`] | writes of one connection that go out together |
//! | [`listener`] | TCP, TLS, limits; connections for tonic |
//! | [`authn`] | who the caller is: token precheck, JWKS, TokenReview, caches |
//! | [`slots`] | the authorities in use as one immutable snapshot |
//! | [`rotator`] | the loop that renews the issuing authority and follows root changes |
//! | [`state`] | the persisted form of roots and sequence |
//! | [`store`] | where that form lives: a directory or a Secret |
//! | [`plugged_in`] | CAs in Istio's and Kubernetes' file layouts |
//! | [`serving`] | our own serving certificate |
//! | [`publisher`] | the roots as a ConfigMap in every namespace |
//! | [`audit`] | one record per issuance and per refusal |
//! | [`admin`] | the admin socket |
//! | [`metrics`] | every metric of this process |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod admin;
pub mod audit;
pub mod authn;
pub mod bundle_service;
pub mod config;
pub mod gather;
pub mod listener;
pub mod metrics;
pub mod plugged_in;
pub mod publisher;
pub mod rotator;
pub mod run;
pub mod service;
pub mod serving;
pub mod slots;
pub mod state;
pub mod store;
