//! `signet bundle`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use signet_certs::TrustDomain;

/// Verbs of `signet bundle`.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Show the roots and the JWT keys of a trust bundle
    #[command(
        after_help = "Examples:\n  signet bundle show root-cert.pem\n  signet bundle show --admin \
/run/signet/admin/admin.sock\n  signet bundle show --ca signet-ca.signet-system.svc:15012 --ca-root \
root-cert.pem"
    )]
    Show(BundleSourceArgs),
    /// Write a trust bundle as a SPIFFE JWK set, for federation and for `signet jwt validate`
    #[command(
        after_help = "Example:\n  signet bundle export --admin /run/signet/admin/admin.sock --out bundle.json"
    )]
    Export(BundleExportArgs),
}

/// Where a bundle comes from.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("bundle_source").required(true).multiple(false))]
pub struct BundleSourceArgs {
    /// A bundle file: PEM, or a SPIFFE JWK set
    #[arg(group = "bundle_source")]
    pub file: Option<PathBuf>,
    /// Admin socket of a CA or an agent
    #[arg(long, value_name = "SOCKET", group = "bundle_source")]
    pub admin: Option<PathBuf>,
    /// Address of a CA, asked over its bundle service
    #[arg(long, value_name = "HOST:PORT", group = "bundle_source", requires = "ca_root")]
    pub ca: Option<String>,
    /// Roots that may vouch for the CA, PEM
    #[arg(long, value_name = "FILE", requires = "ca")]
    pub ca_root: Option<PathBuf>,
    /// Name the CA must prove, as for `svid request`
    #[arg(long, value_name = "NAME", requires = "ca")]
    pub server_name: Option<String>,
    /// Trust domain of a bundle file that does not name one
    #[arg(long, value_name = "NAME", requires = "file")]
    pub trust_domain: Option<TrustDomain>,
}

/// `signet bundle export`.
#[derive(Args, Debug)]
pub struct BundleExportArgs {
    /// Where it comes from
    #[command(flatten)]
    pub source: BundleSourceArgs,
    /// File for the JWK set; "-" is standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}
