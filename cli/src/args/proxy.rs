//! `signet proxy`, `signet strict-ready`, `signet tls-check` and `signet why`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use signet_runtime::config::HumanDuration;

use super::HttpArgs;
use crate::proxy::address::AdminAddress;
use crate::proxy::place::Place;

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
    /// Pass bytes between standard input and output and the admin socket of the proxy beside it
    ///
    /// `signet tls-check`, `why` and `strict-ready` run this in a pod, by `kubectl exec`.
    #[command(
        after_help = "Example:\n  kubectl -n shop exec -i deploy/cart -c signet-proxy -- signet proxy relay --admin-socket \
/run/signet/admin/admin.sock"
    )]
    Relay(RelayArgs),
}

/// `signet proxy relay`.
#[derive(Args, Clone, Debug)]
pub struct RelayArgs {
    /// Admin socket of the proxy (its `admin_socket`)
    #[arg(long, value_name = "SOCKET", default_value = "/run/signet/admin/admin.sock")]
    pub admin_socket: PathBuf,
}

/// How proxies in pods are asked.
#[derive(Args, Clone, Debug)]
pub struct PodArgs {
    /// The cluster, for kubectl and for listing pods [default: kubectl's own; the cluster this runs in]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Container of the proxy in its pod
    #[arg(long, value_name = "NAME", default_value = "signet-proxy")]
    pub container: String,
    /// The kubectl to run
    #[arg(long, value_name = "PROGRAM", default_value = "kubectl")]
    pub kubectl: PathBuf,
}

/// `signet tls-check`, and of `signet why` the two ends: between whom, and how their proxies are asked.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct EndsArgs {
    /// The calling proxy: its admin socket, or NAMESPACE/POD
    #[arg(value_name = "FROM")]
    pub from: Place,
    /// The destination, as the calling proxy's configuration or its application names it
    #[arg(value_name = "HOST:PORT")]
    pub to: String,
    /// The proxy at the destination, which then says what it demands and would answer: its admin socket, or
    /// NAMESPACE/POD
    #[arg(long, value_name = "PROXY")]
    pub to_proxy: Option<Place>,
    /// Address at which the destination's proxy is reached, where a Service stands in between [default: what was
    /// dialled]
    #[arg(long, value_name = "IP:PORT", requires = "to_proxy")]
    pub to_address: Option<SocketAddr>,
    /// Pods
    #[command(flatten)]
    pub pods: PodArgs,
}

/// `signet why`.
#[derive(Args, Clone, Debug)]
pub struct WhyArgs {
    /// The ends
    #[command(flatten)]
    pub ends: EndsArgs,
    /// The request, on ports that speak HTTP; its token goes to the destination's admin socket alone
    #[command(flatten)]
    pub request: HttpArgs,
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
    /// Ask the proxies in all pods of this namespace, through kubectl exec
    #[arg(value_name = "NAMESPACE", conflicts_with = "admin")]
    pub namespace: Option<String>,
    /// Admin page of a proxy, on loopback; give it once for every proxy of the workload or namespace
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15000")]
    pub admin: Vec<AdminAddress>,
    /// Judge by this last stretch of time alone; no answer from a proxy that started later
    #[arg(long, value_name = "DURATION")]
    pub window: Option<HumanDuration>,
    /// Pods
    #[command(flatten)]
    pub pods: PodArgs,
}
