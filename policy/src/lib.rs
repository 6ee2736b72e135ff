//! Who may: decisions over plain data, returning a permit or a typed reason. Pure; does not log.
//!
//! | module | owns |
//! |---|---|
//! | [`caller`] | who asks for an SVID, as proven by an authenticator |
//! | [`issuance`] | whether that caller may have an SVID for a name |
//! | [`node_rule`] | whether a node may have the name of a workload it runs |
//! | [`document`] | policy documents: from text to objects and faults |
//! | [`fault`] | what is wrong in a document, where, and what to write instead |
//! | [`model`] | the three kinds of `security.istio.io`, as checked |
//! | [`set`] | all objects, each in its last good version; what is in force for a workload |
//! | [`spoken`] | what is spoken on a port, by the words of those who describe it |
//! | [`scope`] | which objects concern a workload |
//! | [`mod@program`] | a workload's AuthorizationPolicies, compiled; decisions and traces |
//! | [`decision`] | what a decision says |
//! | [`connection`] | what a decision is about |
//! | [`mtls`] | which ports demand mutual TLS |
//! | [`tokens`] | which tokens are good, and what several mean together |
//! | [`issuer_keys`] | where the keys of token issuers are, and which addresses may be dialled for them |
//! | [`path`] | request paths: normalised once, compared and forwarded alike |
//! | [`matcher`], [`address`], [`principal`] | string rules, address blocks, names across trust domains |
//!
//! How policies are read is in `docs/policy.md`.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )
)]

pub mod address;
pub mod caller;
mod check;
mod clause;
pub mod connection;
mod cursor;
pub mod decision;
pub mod document;
pub mod fault;
mod index;
pub mod issuance;
pub mod issuer_keys;
pub mod matcher;
pub mod model;
pub mod mtls;
mod node;
pub mod node_rule;
pub mod path;
pub mod principal;
pub mod program;
pub mod scope;
pub mod set;
pub mod spoken;
mod table;
pub mod tokens;
mod trie;

pub use caller::{BoundPod, Caller};
pub use connection::{Connection, Headers, Request, RequestIdentity};
pub use decision::{Denial, Permit};
pub use document::{Content, Reading, read_object, read_text, read_text_as_json};
pub use issuance::{Denied, IssuancePermit};
pub use issuer_keys::{DialRules, KeyAddress};
pub use node_rule::{NodeDenied, PodFacts};
pub use path::{Normalization, RequestPath};
pub use program::{Gate, Program};
pub use scope::{Mesh, Workload};
pub use set::{InForce, PolicySet};
pub use spoken::Spoken;
pub use trie::Fold;
