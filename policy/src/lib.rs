//! Who may: decisions over plain data, returning a permit or a typed reason. Pure; does not log.
//!
//! | module | owns |
//! |---|---|
//! | [`caller`] | who asks, as proven by an authenticator |
//! | [`issuance`] | whether that caller may have an SVID for a name |
//! | [`node_rule`] | whether a node may have the name of a workload it runs |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod caller;
pub mod issuance;
pub mod node_rule;

pub use caller::{BoundPod, Caller};
pub use issuance::{Denied, IssuancePermit};
pub use node_rule::{NodeDenied, PodFacts};
