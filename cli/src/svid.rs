//! `signet svid`: one file per verb.
//!
//! | module | owns |
//! |---|---|
//! | [`request`] | a key, a CSR, a checked answer, three files |
//! | [`show`] | SVIDs from a file, a workload socket or an admin socket |
//! | [`facts`] | what there is to say about one SVID, and its page |
//! | [`sds`] | secrets fetched as Envoy fetches them |
//! | [`verify`] | whether a bundle accepts a chain |
//! | [`watch`], [`rotate`] | renewals seen and asked for |

pub mod facts;
pub mod request;
pub mod rotate;
pub mod sds;
pub mod show;
pub mod verify;
pub mod watch;
