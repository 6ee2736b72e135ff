//! A whole system on this machine: the in-memory cluster in this process, `signet-ca` and
//! `signet-agent` as child processes.
//!
//! The parts are public, so that whole-system tests start, watch and stop the same processes.
//!
//! | module | owns |
//! |---|---|
//! | [`process`] | a daemon as a child process: started, awaited, stopped, its last words |
//! | [`configs`] | the configuration files of a CA and an agent |
//! | [`cluster`] | the cluster with its accounts, and tokens kept fresh as kubelet keeps them |
//! | [`system`] | all of it together, and where everything is |
//! | [`guard`] | ends the daemons when this process is killed |
//! | [`command`] | `signet dev` |

pub mod cluster;
pub mod command;
pub mod configs;
pub mod guard;
pub mod process;
pub mod system;

pub use cluster::{Projected, TokenFiles};
pub use configs::{AgentConfig, CaConfig};
pub use process::{Process, ProcessError, Program};
pub use system::{Ready, System, SystemError, SystemOptions};
