//! `signet authority`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::AdminArgs;

/// Verbs of `signet authority`.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Show the CA's roots and the authority it issues from
    #[command(
        after_help = "Example:\n  kubectl exec -n signet-system deploy/signet-ca -- signet authority \
show --admin /run/signet/admin/admin.sock"
    )]
    Show(AdminArgs),
    /// Back the CA's state up: roots, keys and bundle sequence, encrypted, in one file
    #[command(
        after_help = "Example:\n  signet authority export --secret signet-system/signet-ca-state \
--kubeconfig ~/.kube/config \\\n      --passphrase-file passphrase --out signet-ca.backup"
    )]
    Export(ExportArgs),
    /// Put a backup back where a CA will find it at its next start
    #[command(
        after_help = "Example:\n  signet authority restore signet-ca.backup --passphrase-file \
passphrase --state-directory /var/lib/signet"
    )]
    Restore(RestoreArgs),
}

/// Where a CA keeps its state.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("state").required(true).multiple(false))]
pub struct StateArgs {
    /// The CA's state directory
    #[arg(long, value_name = "DIR", group = "state")]
    pub state_directory: Option<PathBuf>,
    /// The CA's Secret
    #[arg(long, value_name = "NAMESPACE/NAME", group = "state")]
    pub secret: Option<String>,
    /// Cluster of the Secret [default: the one this runs in]
    #[arg(long, value_name = "FILE", requires = "secret")]
    pub kubeconfig: Option<PathBuf>,
}

/// `signet authority export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Where the state is
    #[command(flatten)]
    pub state: StateArgs,
    /// File with the passphrase; "-" is standard input
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: PathBuf,
    /// The backup to write, mode 0600
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

/// `signet authority restore`.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The backup to read
    pub backup: PathBuf,
    /// Where the state goes
    #[command(flatten)]
    pub state: StateArgs,
    /// File with the passphrase; "-" is standard input
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: PathBuf,
    /// Replace state that is there; the bundle's sequence still never goes backwards
    #[arg(long)]
    pub force: bool,
}
