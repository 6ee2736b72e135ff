//! The harness of the whole-system tests and of the demo: real binaries, an in-memory cluster, real
//! Envoys, and the clients to judge them by.
//!
//! | module | what it gives |
//! |---|---|
//! | [`dir`], [`process`], [`wait`] | temporary directories, child processes that never outlive a test, waiting for conditions |
//! | [`cluster`], [`ca`], [`agent`], [`dev`], [`cli`] | the system's parts as processes |
//! | [`admin`], [`metrics`], [`http`] | what they say of themselves |
//! | [`client`], [`csrs`], [`plugged`], [`openssl`] | a CA client that can misbehave, and what it sends |
//! | [`sds`], [`envoy`], [`mesh`], [`tls`], [`load`] | the real peer, what it serves, and traffic through it |
//! | [`app`] | an application that speaks HTTP |
//! | [`nodes`] | node agents, and what they ask for |
//! | [`node`], [`guest`] | a node with an agent that attests pods, and processes in these pods |
//! | [`pods`] | networks as pods have them |
//! | [`follower`], [`churn`] | a workload that notes what it must never be told, and pods that come and go |
//! | [`spiffe`], [`workload`] | workloads on SPIFFE libraries that others wrote, an agent that attests them, and a client without manners |
//! | [`python`] | peers in Python, on libraries that others wrote |
//! | [`trust`] | what a CA says is trusted, and tokens from it |
//! | [`kube`] | a real kube-apiserver, and signet installed in it from `deploy/` |
//! | [`peers`], [`strace`], [`leaks`] | optional peers and skips, faults by the kernel, a search for secrets |
//!
//! Everything here ends a test by panicking: a harness has no caller who could do better.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness fails the test it serves"
)]

pub mod admin;
pub mod agent;
pub mod app;
pub mod ca;
pub mod churn;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod csrs;
pub mod dev;
pub mod dir;
pub mod echo;
pub mod envoy;
pub mod follower;
pub mod guest;
pub mod http;
pub mod kube;
pub mod leaks;
pub mod load;
pub mod local;
pub mod mesh;
pub mod metrics;
pub mod node;
pub mod nodes;
pub mod openssl;
pub mod peers;
pub mod plugged;
pub mod pods;
pub mod process;
pub mod proxy;
pub mod python;
pub mod sds;
pub mod spiffe;
pub mod strace;
pub mod tls;
pub mod trust;
pub mod wait;
pub mod workload;

/// Installs the one crypto provider. Any number of times, from any thread.
pub fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Somebody else's being first is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
