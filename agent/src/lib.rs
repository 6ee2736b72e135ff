//! The agent in workload mode: one identity, its own, kept fresh and served to local programs.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`metrics`] | every metric, registered at start |
//! | [`token`] | the service-account token: read at each use, its account as a cross-check |
//! | [`ca_client`] | the one warm connection to the CA, and what its failures mean |
//! | [`bundle_watch`] | following the CA's trust bundle |
//! | [`rotation`] | when to ask, retry, publish and withdraw: pure |
//! | [`rotator`] | the loop that carries out what [`rotation`] decides |
//! | [`svids`] | the shelf: one snapshot, one writer, never backwards |
//! | [`secrets`] | a snapshot's SDS resources, each encoded once |
//! | [`sds`] | Envoy's secret discovery service |
//! | [`workload_socket`] | the socket workloads dial, and who is admitted |
//! | [`guarded`] | a connection that gives its place back when it ends |
//! | [`quiet`] | a bound on how often the same thing is logged |
//! | [`output`] | key, chain and roots as files, for programs that only read files |
//! | [`admin`] | what an operator can see and ask, over a private socket |
//! | [`run`] | putting it together, and taking it down |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod admin;
pub mod bundle_watch;
pub mod ca_client;
pub mod config;
pub mod guarded;
pub mod metrics;
pub mod output;
pub mod quiet;
pub mod rotation;
pub mod rotator;
pub mod run;
pub mod sds;
pub mod secrets;
pub mod svids;
pub mod token;
pub mod workload_socket;
