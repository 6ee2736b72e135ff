//! Fuzz targets as functions: each takes any bytes and asserts what must hold for all of them. The
//! same functions are replayed over their corpora on every test run (`tests/replay.rs`) and driven by
//! libFuzzer for as long as one likes (`scripts/fuzz.sh`).
//!
//! A target is a line in [`TARGETS`] and a directory `corpus/<name>` with at least one seed.
#![allow(clippy::panic, reason = "a panic is how a target reports a broken invariant")]

mod agent;
mod bundle;
mod chain;
mod csr;
mod heads;
mod http;
mod jwt;
mod policy;
mod proxy;
mod request_tokens;
mod servers;
mod spiffe_id;
mod xfcc;

pub use agent::{agent_config, cgroup, http2_authority, sds_delta, sds_sotw};
pub use bundle::{bundle_jwks, bundle_pem};
pub use chain::{FIXTURE_TIME, ROOT, chain, pack, parts};
pub use csr::{csr_der, csr_pem};
pub use heads::{goes_on, header_aliases, request_head};
pub use http::{http1_framing, http2_frames};
pub use jwt::{jwt_svid, validate as validate_jwt};
pub use policy::{policy_documents, policy_path, policy_snapshot};
pub use proxy::{client_hello, sds_secret};
pub use request_tokens::{judge_request, jwks, jwt_request};
pub use servers::{ca_config, ca_state, duration, token_claims};
pub use spiffe_id::spiffe_id;
pub use xfcc::xfcc;

/// One parser under attack.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name of its corpus, and on the command line.
    pub name: &'static str,
    /// Panics when an invariant does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "spiffe_id",
        run: spiffe_id,
    },
    Target {
        name: "csr_der",
        run: csr_der,
    },
    Target {
        name: "csr_pem",
        run: csr_pem,
    },
    Target {
        name: "chain",
        run: chain,
    },
    Target {
        name: "bundle_pem",
        run: bundle_pem,
    },
    Target {
        name: "bundle_jwks",
        run: bundle_jwks,
    },
    Target {
        name: "jwt_svid",
        run: jwt_svid,
    },
    Target {
        name: "token_claims",
        run: token_claims,
    },
    Target {
        name: "ca_config",
        run: ca_config,
    },
    Target {
        name: "ca_state",
        run: ca_state,
    },
    Target {
        name: "duration",
        run: duration,
    },
    Target {
        name: "http2_authority",
        run: http2_authority,
    },
    Target {
        name: "sds_sotw",
        run: sds_sotw,
    },
    Target {
        name: "sds_delta",
        run: sds_delta,
    },
    Target {
        name: "agent_config",
        run: agent_config,
    },
    Target {
        name: "cgroup",
        run: cgroup,
    },
    Target {
        name: "policy_documents",
        run: policy_documents,
    },
    Target {
        name: "policy_path",
        run: policy_path,
    },
    Target {
        name: "policy_snapshot",
        run: policy_snapshot,
    },
    Target {
        name: "client_hello",
        run: client_hello,
    },
    Target {
        name: "sds_secret",
        run: sds_secret,
    },
    Target {
        name: "jwt_request",
        run: jwt_request,
    },
    Target {
        name: "jwks",
        run: jwks,
    },
    Target {
        name: "xfcc",
        run: xfcc,
    },
    Target {
        name: "header_aliases",
        run: header_aliases,
    },
    Target {
        name: "request_head",
        run: request_head,
    },
    Target {
        name: "http1_framing",
        run: http1_framing,
    },
    Target {
        name: "http2_frames",
        run: http2_frames,
    },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
