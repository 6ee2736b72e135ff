//! A whole system on this machine: the in-memory cluster in this process; `signet-ca`, `signet-agent` and a
//! `signet-proxy` for each application as child processes.
//!
//! The parts are public, so that whole-system tests start, watch and stop the same processes.
//!
//! | module | owns |
//! |---|---|
//! | [`process`] | a daemon as a child process: started, awaited, stopped, its last words |
//! | [`configs`] | the configuration files of a CA and an agent |
//! | [`workload`] | which processes are which workload, and foreign trust domains, as an operator says it |
//! | [`app`] | which applications get a proxy, as an operator says it |
//! | [`cluster`] | the cluster with its accounts, and tokens kept fresh as kubelet keeps them |
//! | [`plan`] | what to start, and where everything is then |
//! | [`ports`] | ports that are known before who listens there runs |
//! | [`proxies`] | the proxies, and who calls whom |
//! | [`echo`], [`sample`] | the application that is brought along, and what runs if nothing is asked for |
//! | [`system`] | all of it together |
//! | [`guard`] | ends the daemons when this process is killed |
//! | [`command`], `page` | `signet dev`, and what it says where everything is |
//! | [`apply`] | `signet dev apply` and `signet dev delete` |

pub mod app;
pub mod apply;
pub mod cluster;
pub mod command;
pub mod configs;
pub mod echo;
pub mod guard;
mod page;
pub mod plan;
pub mod ports;
pub mod process;
pub mod proxies;
pub mod sample;
pub mod system;
pub mod workload;

pub use app::{App, AppError, Application};
pub use cluster::{Projected, TokenFiles};
pub use configs::{AgentConfig, CaConfig, FederatedFile, ProxyConfig, UnixRule};
pub use plan::{Ready, ReadyProxy, SystemOptions};
pub use process::{Process, ProcessError, Program};
pub use system::{System, SystemError};
pub use workload::{Foreign, Workload, WorkloadError};
