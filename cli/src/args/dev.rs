//! `signet dev`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use signet_certs::TrustDomain;
use signet_runtime::config::HumanDuration;

use crate::dev::{App, Foreign, Workload};

/// `signet dev`.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  signet dev --dir ./dev --svid-ttl 1m\n  signet dev --app shop/cart=127.0.0.1:8080 \
--app shop/web\n  signet dev apply deny-all.yaml --dir ./dev\n  signet dev --workload shop/cart \
--workload shop/bank=executable:/usr/bin/curl\n  signet dev --foreign partner.example=partner.json\n\nWithout \
--app and --workload it runs a sample: an application shop/backend, and shop/frontend and other/intruder who call \
it, each behind a signet-proxy.\n\nEnds with SIGINT or SIGTERM and leaves no process behind. After `kill -9` a \
guard process ends signet-ca, signet-agent and the proxies; the temporary directory stays."
)]
pub struct DevArgs {
    /// For a system that runs
    #[command(subcommand)]
    pub command: Option<DevCommand>,
    /// Directory for configurations, sockets, logs and state [default: a new private temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Trust domain of the system
    #[arg(long, default_value = "cluster.local", value_name = "NAME")]
    pub trust_domain: TrustDomain,
    /// Lifetime of SVIDs; short ones renew while you look
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    pub svid_ttl: HumanDuration,
    /// A workload and the processes that are it [default: demo/web, every process of yours]
    ///
    /// NAMESPACE/ACCOUNT, then if wanted =SELECTOR,SELECTOR…, all of which must fit: uid:NUMBER, gid:NUMBER,
    /// executable:PATH; hint:WORD names the identity to clients. Without a selector every process of yours
    /// fits. May be given several times; a process that fits several gets all of them, in this order.
    #[arg(long = "workload", value_name = "NAMESPACE/ACCOUNT[=SELECTORS]")]
    pub workloads: Vec<Workload>,
    /// An application that gets a signet-proxy [default: a sample of three, unless there is a --workload]
    ///
    /// NAMESPACE/ACCOUNT, then where it listens: =ADDRESS:PORT for HTTP, =tcp://ADDRESS:PORT for anything else,
    /// =echo for a small one that is brought along, nothing for one that only asks others. Every proxy gets a
    /// port of loopback for each of the others. May be given several times. The agent tells the proxies apart
    /// by the file they run, which between processes of one user is no boundary.
    #[arg(long = "app", value_name = "NAMESPACE/ACCOUNT[=PLACE]")]
    pub apps: Vec<App>,
    /// A foreign trust domain to accept, by its bundle: a SPIFFE JWK set; may be given several times
    #[arg(long, value_name = "TRUST-DOMAIN=FILE")]
    pub foreign: Vec<Foreign>,
    /// Print one line of JSON when all is ready, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Verbs of `signet dev`, for a system that runs.
#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Apply policies to a running system; they are in force within a second
    ///
    /// What `signet policy check` finds fault with is shown and not applied (exit 1).
    #[command(after_help = "Example:\n  signet dev apply deny-all.yaml --dir ./dev")]
    Apply(DevFilesArgs),
    /// Delete policies from a running system
    #[command(after_help = "Example:\n  signet dev delete deny-all.yaml --dir ./dev")]
    Delete(DevFilesArgs),
}

/// Policies, and where the system runs.
#[derive(Args, Debug)]
pub struct DevFilesArgs {
    /// Files, directories (all .yaml, .yml and .json below them), or "-" for standard input
    #[arg(value_name = "FILE|DIR|-", required = true)]
    pub paths: Vec<PathBuf>,
    /// The directory of the running system, as given to `signet dev --dir`
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}
