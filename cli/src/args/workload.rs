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
    /// Say whether every proxy of a node has every policy in force as it stands (exit 0), or what is in the way (1)
    ///
    /// Asks the node's agent: which version it sent to the proxy of each workload and which it put in force, which
    /// policies cannot be read and what is in force in their place, how their source is, and which key sets of token
    /// issuers are missing.
    #[command(
        after_help = "Example:\n  kubectl exec -n signet-node ds/signet-agent -- signet workload policies --admin \
/run/signet/admin/admin.sock"
    )]
    Policies(AdminArgs),
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
