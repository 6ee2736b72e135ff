//! `signet proxy` and `signet strict-ready`.

use clap::{Args, Subcommand};
use signet_runtime::config::HumanDuration;

use crate::proxy::address::AdminAddress;

/// Verbs of `signet proxy`.
#[derive(Debug, Subcommand)]
pub enum ProxyCommand {
    /// Show what a proxy presents and whom it believes: chain, serial, lifetimes, roots; no key
    ///
    /// The counterpart of `istioctl proxy-config secret`: the resources by the names under which the agent
    /// serves them, the SPIFFE ID, and how often a peer's chain had been verified before.
    #[command(
        after_help = "Examples:\n  kubectl -n shop exec deploy/cart -c signet-proxy -- signet proxy secrets\n  \
signet proxy secrets --admin 127.0.0.1:15000 -o json"
    )]
    Secrets(ProxyArgs),
    /// Show the policies that a proxy enforces, what it cannot enforce, and its mode of mutual TLS by port
    #[command(
        after_help = "Example:\n  kubectl -n shop exec deploy/cart -c signet-proxy -- signet proxy policies -o json"
    )]
    Policies(ProxyArgs),
    /// Show the connections that are open at a proxy: which way, how secured, with whom
    #[command(
        after_help = "Example:\n  kubectl -n shop exec deploy/cart -c signet-proxy -- signet proxy connections -o json"
    )]
    Connections(ProxyArgs),
    /// Show where a proxy listens, and in front of what
    #[command(
        after_help = "Example:\n  kubectl -n shop exec deploy/cart -c signet-proxy -- signet proxy listeners -o json"
    )]
    Listeners(ProxyArgs),
    /// Show the clients that came to a proxy's workload without mutual TLS since the proxy started
    #[command(
        after_help = "Example:\n  kubectl -n shop exec deploy/cart -c signet-proxy -- signet proxy \
plaintext-clients -o json"
    )]
    PlaintextClients(ProxyArgs),
}

/// A running proxy.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Admin page of the proxy, on loopback (its `admin_listen`)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15000")]
    pub admin: AdminAddress,
}

/// `signet strict-ready`.
#[derive(Args, Clone, Debug)]
pub struct StrictReadyArgs {
    /// Admin page of a proxy, on loopback; give it once for every proxy of the workload or namespace
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15000")]
    pub admin: Vec<AdminAddress>,
    /// Judge by this last stretch of time alone; no answer from a proxy that started later
    #[arg(long, value_name = "DURATION")]
    pub window: Option<HumanDuration>,
}
