//! `signet svid`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use signet_certs::{SpiffeId, TrustDomain};
use signet_runtime::config::HumanDuration;

use super::{AdminArgs, CaArgs};
use crate::times::Moment;

/// Verbs of `signet svid`.
#[derive(Debug, Subcommand)]
pub enum SvidCommand {
    /// Get an SVID from a CA with a service-account token
    ///
    /// Makes a key and a CSR, sends it, checks what comes back against the CA's roots, and only then
    /// writes key.pem (0600), cert-chain.pem (leaf first, without the root) and root-cert.pem.
    #[command(
        after_help = "Example:\n  signet svid request --ca signet-ca.signet-system.svc:15012 \\\n      \
--ca-root /var/run/secrets/signet/root-cert.pem \\\n      --token-file \
/var/run/secrets/tokens/signet-token --out ./svid"
    )]
    Request(RequestArgs),
    /// Show an SVID: who, signed by whom, how long, and every rule of the profile it keeps or breaks
    #[command(
        after_help = "Examples:\n  signet svid show cert-chain.pem\n  signet svid show --socket \
/run/signet/workload/agent.sock \\\n      --id spiffe://cluster.local/ns/shop/sa/cart\n  kubectl exec POD -c signet-agent -- signet svid show --admin \
/run/signet/admin/admin.sock"
    )]
    Show(ShowArgs),
    /// Say whether a bundle accepts a chain (exit 0), or why not (exit 1)
    #[command(
        after_help = "Example:\n  signet svid verify cert-chain.pem --bundle root-cert.pem \\\n      \
--id spiffe://cluster.local/ns/shop/sa/cart --at 2027-01-15T08:00:00Z"
    )]
    Verify(VerifyArgs),
    /// Print one line now and after every renewal, until interrupted
    #[command(after_help = "Example:\n  signet svid watch --admin /run/signet/admin/admin.sock")]
    Watch(WatchArgs),
    /// Renew now, without a restart, and print the old and the new serial
    #[command(
        after_help = "Examples:\n  signet svid rotate --admin /run/signet/admin/admin.sock\n  signet svid \
rotate --admin /run/signet/admin/admin.sock --id spiffe://cluster.local/ns/shop/sa/cart"
    )]
    Rotate(RotateArgs),
}

/// `signet svid request`.
#[derive(Args, Debug)]
pub struct RequestArgs {
    /// The CA
    #[command(flatten)]
    pub ca: CaArgs,
    /// File with a service-account token for the CA's audience; "-" is standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// Directory to write to; created with mode 0700 if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Lifetime to ask for; the CA clamps it to its bounds
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    pub ttl: HumanDuration,
}

/// `signet svid show`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("svid_source").required(true).multiple(false))]
pub struct ShowArgs {
    /// A PEM chain, leaf first
    #[arg(group = "svid_source")]
    pub file: Option<PathBuf>,
    /// An agent's workload socket: which identities we may have, and each over SDS as Envoy gets it
    #[arg(long, value_name = "PATH", group = "svid_source")]
    pub socket: Option<PathBuf>,
    /// An agent's admin socket: knows the next renewal as well
    #[arg(long, value_name = "SOCKET", group = "svid_source")]
    pub admin: Option<PathBuf>,
    /// Only the SVID of this identity [default: all of them]
    #[arg(long, value_name = "SPIFFE-ID")]
    pub id: Option<SpiffeId>,
}

/// `signet svid verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// A PEM chain, leaf first; a root at its end is left out
    pub chain: PathBuf,
    /// The bundle to verify against: PEM, or a SPIFFE JWK set
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,
    /// Trust domain of the bundle [default: the one its roots name, else the chain's own]
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<TrustDomain>,
    /// The time to judge by [default: now]
    #[arg(long, value_name = "RFC3339", value_parser = Moment::parse)]
    pub at: Option<Moment>,
    /// The SPIFFE ID the chain must have
    #[arg(long, value_name = "SPIFFE-ID")]
    pub id: Option<SpiffeId>,
}

/// `signet svid watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// The agent
    #[command(flatten)]
    pub admin: AdminArgs,
    /// End after this many lines
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// `signet svid rotate`.
#[derive(Args, Debug)]
pub struct RotateArgs {
    /// The agent
    #[command(flatten)]
    pub admin: AdminArgs,
    /// The identity, where the agent keeps several
    #[arg(long, value_name = "SPIFFE-ID")]
    pub id: Option<SpiffeId>,
}
