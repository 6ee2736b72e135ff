//! The whole system as processes: real binaries, an in-memory cluster, real Envoys. Each test has its
//! own of everything; no port is fixed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test as the test itself does"
)]

mod system {
    mod agent;
    mod attestation;
    mod ca_bounds;
    mod ca_calls;
    mod ca_crash;
    mod ca_crowds;
    mod ca_csrs;
    mod ca_issuing;
    mod ca_istio;
    mod ca_life;
    mod ca_plugged_in;
    mod ca_reviews;
    mod ca_roots;
    mod ca_tokens;
    mod cli;
    mod dev;
    mod dev_proxies;
    mod envoy;
    mod federation;
    mod house;
    mod impersonation;
    mod jwt;
    mod leaks;
    mod node_agent;
    mod node_faults;
    mod node_hostile;
    mod policy_envoy;
    mod policy_source;
    mod proxy_ask;
    mod proxy_bundles;
    mod proxy_capture;
    mod proxy_cli;
    mod proxy_h2;
    mod proxy_http;
    mod proxy_jwt;
    mod proxy_life;
    mod proxy_load;
    mod proxy_peers;
    mod proxy_policies;
    mod proxy_protocol;
    mod proxy_replay;
    mod proxy_tls;
    mod spiffe_clients;
    mod workload_api;
}
