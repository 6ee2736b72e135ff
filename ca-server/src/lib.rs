//! The CA: turns an authenticated, authorized CSR into an SVID chain; keeps and rotates the X.509
//! authorities.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the configuration file, checked as a whole |
//! | [`run`] | start-up, the order of it, and the end |
//! | [`service`] | `CreateCertificate` in five steps |
//! | [`bundle_service`] | `WatchBundle`, for our agents |
//! | [`jwt_service`] | `MintJwtSvid`, in the same five steps |
//! | [`federation`] | bundles of other trust domains |
//! | [`bundle_endpoint`], [`oidc`] | our bundle and keys for others; [`endpoint`] is their listener |
//! | [`trust`] | starts these three |
//! | [`ahead`], [`gather`] | fewer reads and writes of one connection |
//! | [`listener`] | TCP, TLS, limits |
//! | [`shares`] | places for strangers, of which no address gets all |
//! | [`serve`] | HTTP/2 and gRPC of one connection, in one task |
//! | [`authn`] | who the caller is: token precheck, JWKS, TokenReview, caches |
//! | [`authorizer`] | what the caller may have: the rules of `policy` with the facts they ask for |
//! | [`pod_index`], [`pod_watch`] | which account runs on which node, and the one watch that knows it |
//! | [`pod_lookup`] | asking the API server directly where the index may not be believed |
//! | [`slots`] | the authorities in use as one immutable snapshot |
//! | [`rotator`] | the loop that renews the issuing authority and follows root changes |
//! | [`state`] | the persisted form of roots, JWT authorities and sequence |
//! | [`jwt_keys`] | the JWT authorities and their phases |
//! | [`jwt_rotation`] | when they change phase |
//! | [`jwt_source`] | where their keys come from: made here, or the operator's file |
//! | [`store`] | where that form lives: a directory or a Secret |
//! | [`plugged_in`] | CAs in Istio's and Kubernetes' file layouts |
//! | [`serving`] | our own serving certificate |
//! | [`publisher`] | the roots as a ConfigMap in every namespace |
//! | [`audit`] | one record per issuance and per refusal |
//! | [`admin`] | the admin socket |
//! | [`metrics`] | every metric of this process |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod admin;
pub mod ahead;
pub mod audit;
pub mod authn;
pub mod authorizer;
pub mod bundle_endpoint;
pub mod bundle_service;
pub mod config;
pub mod endpoint;
pub mod federation;
pub mod gather;
pub mod jwt_keys;
pub mod jwt_rotation;
pub mod jwt_service;
pub mod jwt_source;
pub mod listener;
pub mod metrics;
pub mod oidc;
pub mod plugged_in;
pub mod pod_index;
pub mod pod_lookup;
pub mod pod_watch;
mod pod_wire;
pub mod publisher;
pub mod rotator;
pub mod run;
pub mod serve;
pub mod service;
pub mod serving;
pub mod shares;
pub mod slots;
pub mod state;
pub mod store;
pub mod trust;
