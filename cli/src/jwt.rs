//! `signet jwt`: one file per verb.
//!
//! | module | owns |
//! |---|---|
//! | [`fetch`] | a token from an agent, as any workload gets it |
//! | [`inspect`] | what a token says of itself, unproven |
//! | [`validate`] | whether a token is good, by a bundle or by an agent |

pub mod fetch;
pub mod inspect;
pub mod validate;
