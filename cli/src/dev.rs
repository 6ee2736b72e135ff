//! A whole system on this machine: the in-memory cluster in this process, `signet-ca` and
//! `signet-agent` as child processes.
//!
//! The parts are public, so that whole-system tests start, watch and stop the same processes.
//!
//! | module | owns |
//! |---|---|
//! | [`process`] | a daemon as a child process: started, awaited, stopped, its last words |
//! | [`configs`] | the configuration files of a CA and an agent |
//! | [`workload`] | which processes are which workload, and foreign trust domains, as an operator says it |
//! | [`cluster`] | the cluster with its accounts, and tokens kept fresh as kubelet keeps them |
//! | [`plan`] | what to start, and where everything is then |
//! | [`system`] | all of it together |
//! | [`guard`] | ends the daemons when this process is killed |
//! | [`command`] | `signet dev` |

pub mod cluster;
pub mod command;
pub mod configs;
pub mod guard;
pub mod plan;
pub mod process;
pub mod system;
pub mod workload;

pub use cluster::{Projected, TokenFiles};
pub use configs::{AgentConfig, CaConfig, FederatedFile, UnixRule};
pub use plan::{Ready, SystemOptions};
pub use process::{Process, ProcessError, Program};
pub use system::{System, SystemError};
pub use workload::{Foreign, Workload, WorkloadError};
