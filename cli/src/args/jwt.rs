//! `signet jwt`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use signet_certs::{SpiffeId, TrustDomain};

use crate::times::Moment;

/// Verbs of `signet jwt`.
#[derive(Debug, Subcommand)]
pub enum JwtCommand {
    /// Get a JWT-SVID from an agent, as any workload does
    ///
    /// The agent looks at this very process: it gets a token if the workload it runs in may have one. The
    /// token goes to the file you name (0600); a token is good for whoever holds it.
    #[command(
        after_help = "Examples:\n  signet jwt fetch --socket /run/signet/workload/agent.sock --audience \
vault --out token\n  signet jwt fetch --socket /run/signet/workload/agent.sock --audience vault --out - | \
vault login token=-"
    )]
    Fetch(JwtFetchArgs),
    /// Show what a token says of itself; nothing is verified
    #[command(after_help = "Example:\n  signet jwt inspect token")]
    Inspect(JwtInspectArgs),
    /// Say whether a token is good for an audience (exit 0), or why not (exit 1)
    ///
    /// By a bundle in a file, or by an agent, which knows the bundles of all trust domains it accepts.
    #[command(
        after_help = "Examples:\n  signet jwt validate token --audience vault --bundle bundle.json\n  \
signet jwt validate token --audience vault --socket /run/signet/workload/agent.sock"
    )]
    Validate(JwtValidateArgs),
}

/// `signet jwt fetch`.
#[derive(Args, Debug)]
pub struct JwtFetchArgs {
    /// The agent's workload socket
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// For whom the token is to be good; may be given several times, but one is best
    #[arg(long, value_name = "AUDIENCE", required = true)]
    pub audience: Vec<String>,
    /// The identity, for a workload that has several [default: its first]
    #[arg(long, value_name = "SPIFFE-ID")]
    pub spiffe_id: Option<SpiffeId>,
    /// File for the token, mode 0600; "-" is standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `signet jwt inspect`.
#[derive(Args, Debug)]
pub struct JwtInspectArgs {
    /// File with the token; "-" is standard input
    pub token: PathBuf,
}

/// `signet jwt validate`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("jwt_judge").required(true).multiple(false))]
pub struct JwtValidateArgs {
    /// File with the token; "-" is standard input
    pub token: PathBuf,
    /// The audience the token has to be for
    #[arg(long, value_name = "AUDIENCE")]
    pub audience: String,
    /// The bundle to validate by: a SPIFFE JWK set
    #[arg(long, value_name = "FILE", group = "jwt_judge")]
    pub bundle: Option<PathBuf>,
    /// An agent's workload socket, to be asked in place of a bundle
    #[arg(long, value_name = "PATH", group = "jwt_judge")]
    pub socket: Option<PathBuf>,
    /// Trust domain of the bundle [default: the token's own]
    #[arg(long, value_name = "NAME", requires = "bundle")]
    pub trust_domain: Option<TrustDomain>,
    /// The time to judge by [default: now]
    #[arg(long, value_name = "RFC3339", value_parser = Moment::parse, requires = "bundle")]
    pub at: Option<Moment>,
    /// The SPIFFE ID the token must have
    #[arg(long, value_name = "SPIFFE-ID")]
    pub id: Option<SpiffeId>,
}
