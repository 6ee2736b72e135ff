//! The agent: one fresh SVID for each identity in use on this node, served to attested local programs.
//! In workload mode, beside one application, the only identity is its own.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`metrics`] | every metric, registered at start |
//! | [`token`] | the service-account token: read at each use, its account as a cross-check |
//! | [`ca_client`] | the one warm connection to the CA, and what its failures mean |
//! | [`bundle_watch`] | following the CA's trust bundles, our own and foreign ones |
//! | [`attest`] | which identities the process at the other end of a connection may have |
//! | [`rotation`] | of one SVID: when to ask, retry, publish and withdraw: pure |
//! | [`roster`] | of all of them: which are kept, and whose turn it is to ask: pure |
//! | [`keeper`] | the loop that carries out what [`roster`] decides |
//! | [`status`] | how the keeping of one SVID goes |
//! | [`svids`] | the shelves: one writer, a view for each workload, never backwards |
//! | [`secrets`] | SDS resources, each encoded once |
//! | [`sds`] | Envoy's secret discovery service |
//! | [`workload_api`] | the SPIFFE Workload API |
//! | [`jwt_cache`] | JWT-SVIDs, each asked for once and kept for half of its life |
//! | [`policy`] | policies for local proxies: followed once, to each what concerns it |
//! | [`workload_socket`] | the socket workloads dial, and who is admitted |
//! | [`calls`] | bounds on calls under way and on what their messages hold, whatever the service |
//! | [`authority`] | a connection whose client may call the server what it likes |
//! | [`preface`] | a connection that gives its place back unless it begins |
//! | [`guarded`] | a connection that gives its place back when it ends |
//! | [`quiet`] | a bound on how often the same thing is logged |
//! | [`output`] | key, chain and roots as files, for programs that only read files |
//! | [`admin`] | what an operator can see and ask, over a private socket |
//! | [`run`] | putting it together, and taking it down |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod admin;
pub mod attest;
pub mod authority;
pub mod bundle_watch;
pub mod ca_client;
pub mod calls;
pub mod config;
pub mod guarded;
pub mod jwt_cache;
pub mod keeper;
pub mod metrics;
pub mod output;
pub mod policy;
pub mod preface;
pub mod quiet;
pub mod roster;
pub mod rotation;
pub mod run;
pub mod sds;
pub mod secrets;
pub mod status;
pub mod svids;
pub mod token;
pub mod workload_api;
pub mod workload_socket;
