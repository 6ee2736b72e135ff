//! `signet workload` and `signet federation`.

use clap::Subcommand;

use super::AdminArgs;

/// Verbs of `signet workload`.
#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// List the workloads of a node: who they are, what they hold, when it renews
    ///
    /// A line per workload and identity: the pod or process, its service account, the SPIFFE ID, how many
    /// clients of it are connected by kind, the age of the SVID, the next renewal, the last error.
    #[command(
        after_help = "Example:\n  kubectl exec -n signet-node ds/signet-agent -- signet workload list --admin \
/run/signet/admin/admin.sock"
    )]
    List(AdminArgs),
}

/// Verbs of `signet federation`.
#[derive(Debug, Subcommand)]
pub enum FederationCommand {
    /// List the trust domains whose SVIDs are accepted beside our own
    ///
    /// An agent knows what its workloads are served; a CA knows as well when it asks again, and what went
    /// wrong.
    #[command(
        after_help = "Example:\n  kubectl exec -n signet-system deploy/signet-ca -- signet federation list \
--admin /run/signet/admin/admin.sock"
    )]
    List(AdminArgs),
}
