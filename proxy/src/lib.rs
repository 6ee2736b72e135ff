//! The proxy beside one workload: mutual TLS by SPIFFE ID, Istio's policies, L4 and L7 in one hop.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`metrics`] | every metric, registered at start |
//! | [`keys`] | our SVID and the bundles: verified together, never backwards |
//! | [`listed`] | what is open, for those who have to tell it something |
//! | [`sds_client`] | where they come from: the agent's secrets |
//! | [`accept`] | listeners |
//! | [`connections`] | the connections that are open: bounded, shown |
//! | [`waiting`] | bytes that cannot be acted upon yet: bounded |
//! | [`first_bytes`] | what a connection begins with: pure |
//! | [`handshake`] | TLS of ours, TLS of others, or none |
//! | [`inbound`] | connections to the workload |
//! | [`outbound`] | connections of the workload, and dialling upstreams |
//! | [`original`] | where a redirected connection was going |
//! | [`spoken`] | what is spoken on which port, and who says so: pure |
//! | [`stream`] | the bytes of either end |
//! | [`tcp`] | connections without HTTP |
//! | [`redirect`] | the rules by which a pod's traffic comes here |
//! | [`probes`] | kubelet's probes of the workload, answered here |
//! | [`admin`] | what an operator can see |
//! | [`connection`] | what is known of a connection after its handshake |
//! | [`enforced`] | the policies in force now: one writer, many readers |
//! | [`policy_source`] | that writer: the agent's stream, or a directory |
//! | [`mod@http`] | HTTP: each request judged, and forwarded as it was judged |
//! | [`access_log`] | one record per request or connection, and the reasons of all outcomes |
//! | [`ext_authz`] | asking the providers of CUSTOM policies |
//! | [`jwt`] | tokens in requests: which are good, and what becomes of them |
//! | [`servers`] | servers that prove host names: issuers of tokens, providers |
//! | [`seldom`] | what strangers could have us log as often as they like: pure |
//! | [`shared`] | what every connection needs |
//! | [`vigil`] | watch over what is open: nothing that lost its permit goes on |
//! | [`tidy`] | memory of a burst that is over
//! | [`run`] | putting it together, and taking it down |
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )
)]

pub mod accept;
pub mod access_log;
pub mod admin;
pub mod config;
pub mod connection;
pub mod connections;
pub mod enforced;
pub mod ext_authz;
pub mod first_bytes;
pub mod handshake;
pub mod http;
pub mod inbound;
pub mod jwt;
pub mod keys;
pub mod listed;
pub mod metrics;
pub mod original;
pub mod outbound;
pub mod policy_source;
pub mod probes;
pub mod redirect;
pub mod run;
pub mod sds_client;
pub mod seldom;
pub mod servers;
pub mod shared;
pub mod spoken;
pub mod stream;
pub mod tcp;
pub mod tidy;
pub mod vigil;
pub mod waiting;

pub use shared::Shared;
