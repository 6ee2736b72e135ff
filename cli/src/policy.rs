//! `signet policy` and `signet analyze`: an operator's questions to policies.
//!
//! | module | owns |
//! |---|---|
//! | [`documents`] | files, directories, standard input, a cluster |
//! | [`inventory`] | what stands around policies: workloads, services, namespaces |
//! | [`question`] | who asks whom for what |
//! | [`judge`] | what a proxy would answer, step by step |
//! | [`literals`] | questions made up of the literals of policies |
//! | [`check`], [`explain`], [`diff`] | the verbs |
//! | [`analyze`] | known mistakes |
//! | [`mesh`] | trust domains, root namespace, providers |

pub mod analyze;
pub mod check;
mod cluster;
pub mod diff;
pub mod documents;
pub mod explain;
pub mod inventory;
pub mod judge;
pub mod literals;
pub mod mesh;
pub mod question;
mod tree;

use crate::Shell;
use crate::args::PolicyCommand;
use crate::fault::{Answer, Fault};

pub(crate) async fn run(command: PolicyCommand, shell: &mut Shell) -> Result<Answer, Fault> {
    match command {
        PolicyCommand::Check(args) => check::run(&args, shell).await,
        PolicyCommand::Explain(args) => explain::run(&args, shell).await,
        PolicyCommand::Diff(args) => diff::run(&args, shell).await,
    }
}
