//! `signet dev`.

use std::path::PathBuf;

use clap::Args;
use signet_certs::TrustDomain;
use signet_runtime::config::HumanDuration;

use crate::dev::{Foreign, Workload};

/// `signet dev`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  signet dev --dir ./dev --svid-ttl 1m\n  signet dev --workload shop/cart \
--workload shop/bank=executable:/usr/bin/curl\n  signet dev --foreign partner.example=partner.json\n\nEnds \
with SIGINT or SIGTERM and leaves no process behind. After `kill -9` a guard process ends signet-ca and \
signet-agent; the temporary directory stays."
)]
pub struct DevArgs {
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
    /// A foreign trust domain to accept, by its bundle: a SPIFFE JWK set; may be given several times
    #[arg(long, value_name = "TRUST-DOMAIN=FILE")]
    pub foreign: Vec<Foreign>,
    /// Print one line of JSON when all is ready, for scripts
    #[arg(long)]
    pub json: bool,
}
