//! `signet token`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

/// Verbs of `signet token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Say what the CA will answer to a token, and how to mend it
    ///
    /// Asks the CA itself (--admin), or the API server (--kubeconfig). With neither, the token is only
    /// read and nothing is verified: the exit code is then 1 for a token that cannot pass and 2 for one
    /// that may. The token is never printed.
    #[command(after_help = "Examples:\n  signet token check --token-file \
/var/run/secrets/tokens/signet-token\n  kubectl create token cart -n shop --audience signet-ca | signet \
token check --token-file - --kubeconfig ~/.kube/config")]
    Check(TokenCheckArgs),
}

/// `signet token check`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("judge").required(false).multiple(false))]
pub struct TokenCheckArgs {
    /// File with the token; "-" is standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// Audience the CA accepts
    #[arg(long, default_value = "signet-ca", value_name = "AUDIENCE")]
    pub audience: String,
    /// Ask the API server of this cluster, by a TokenReview
    #[arg(long, value_name = "FILE", group = "judge")]
    pub kubeconfig: Option<PathBuf>,
    /// Ask the CA, by its admin socket
    #[arg(long, value_name = "SOCKET", group = "judge")]
    pub admin: Option<PathBuf>,
}
