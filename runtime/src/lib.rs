//! The process shell shared by the binaries. It knows no identity nouns.
//!
//! | module | owns |
//! |---|---|
//! | [`clock`] | wall time as a value, waiting that notices clock jumps |
//! | [`config`] | one YAML file, durations as `"24h"`, all faults at once |
//! | [`logs`] | structured logs to stderr, text or JSON |
//! | [`grpc`] | channels over connections of our own: TLS by a rustls config, unix sockets |
//! | [`http`] | `/metrics`, `/healthz/live`, `/healthz/ready` |
//! | [`fetch`] | one bounded GET, of addresses that may be dialled |
//! | [`kept`] | documents from elsewhere, kept fresh |
//! | [`socket`] | unix sockets: bound beside and renamed, one owner, peers checked |
//! | [`files`] | atomic writes, files that kubelet swaps |
//! | [`directory`] | directories that are followed by the contents of their files |
//! | [`shutdown`] | signals, tasks that are joined, drain before deadline |
//! | [`backoff`] | capped exponential waits with full jitter |
//! | [`harden`] | no core dumps, no tracers, descriptor limits |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod backoff;
pub mod clock;
pub mod config;
pub mod directory;
pub mod fetch;
pub mod files;
pub mod grpc;
pub mod harden;
pub mod http;
pub mod kept;
pub mod logs;
pub mod shutdown;
pub mod socket;

pub use clock::{Clock, SystemClock};
pub use rustls_pki_types::UnixTime;
