//! The command line: noun, then verb. Every command says what it is for and shows one example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::print::Format;

mod authority;
mod bundle;
mod dev;
mod jwt;
mod policy;
mod proxy;
mod svid;
mod token;
mod workload;

pub use authority::{AuthorityCommand, ExportArgs, RestoreArgs, StateArgs};
pub use bundle::{BundleCommand, BundleExportArgs, BundleSourceArgs};
pub use dev::{DevArgs, DevCommand, DevFilesArgs};
pub use jwt::{JwtCommand, JwtFetchArgs, JwtInspectArgs, JwtValidateArgs};
pub use policy::{
    AnalyzeArgs, HttpArgs, MeshArgs, PolicyCheckArgs, PolicyCommand, PolicyDiffArgs, PolicyExplainArgs,
    QuestionArgs,
};
pub use proxy::{EndsArgs, PodArgs, ProxyArgs, ProxyCommand, RelayArgs, StrictReadyArgs, WhyArgs};
pub use svid::{RequestArgs, RotateArgs, ShowArgs, SvidCommand, VerifyArgs, WatchArgs};
pub use token::{TokenCheckArgs, TokenCommand};
pub use workload::{FederationCommand, WorkloadCommand};

/// Sees and steers signet: workloads, identities, trust bundles, authorities, tokens.
///
/// Data goes to stdout, words to stderr. Exit codes: 0 yes, 1 answered no, 2 could not answer. Keys,
/// tokens and passphrases come in by file or by standard input ("-"), and go out only to a file you name.
#[derive(Debug, Parser)]
#[command(
    name = "signet",
    version,
    propagate_version = true,
    after_help = "Start with `signet dev`: a \
whole system on this machine, without Kubernetes and without root rights."
)]
pub struct Cli {
    /// How to print data; json and yaml keep their shape from release to release
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub output: Format,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// X509-SVIDs: request, show, verify, watch, rotate
    #[command(subcommand)]
    Svid(SvidCommand),
    /// JWT-SVIDs: fetch, inspect, validate
    #[command(subcommand)]
    Jwt(JwtCommand),
    /// Workloads of a node: who they are and what they hold
    #[command(subcommand)]
    Workload(WorkloadCommand),
    /// Trust bundles: whom a trust domain accepts
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Foreign trust domains that are accepted beside our own
    #[command(subcommand)]
    Federation(FederationCommand),
    /// X.509 authorities of the CA: show, back up, restore
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Service-account tokens: what the CA will say to one, and why
    #[command(subcommand)]
    Token(TokenCommand),
    /// Policies: check, explain a verdict, compare two sets
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Find known mistakes in policies, and in workloads and services beside them
    ///
    /// Every finding has a code that never changes, what comes of it, a fix, and its place in docs/policy.md.
    /// Exit code 1 when there is an error or a warning. Give it workloads, services and namespaces together
    /// with the policies: half of the mistakes show only beside them.
    #[command(
        after_help = "Examples:\n  signet analyze deploy/\n  kustomize build . | signet analyze - -o json\n  \
signet analyze --kubeconfig ~/.kube/config --suppress SGN0013"
    )]
    Analyze(AnalyzeArgs),
    /// Running proxies: secrets, policies, connections, listeners, plaintext clients
    #[command(subcommand)]
    Proxy(ProxyCommand),
    /// Say whether STRICT would cut nobody off (exit 0) or somebody (exit 1), from what proxies saw
    ///
    /// Names every client that came without mutual TLS, how often, since when and when last, and since when each
    /// proxy looks: since its start. Exit code 2 when a proxy cannot be asked, or cannot have seen everybody: that
    /// is no go; a no-go of another one is a no-go all the same. With a NAMESPACE, every pod of it that has a
    /// proxy is asked, by `kubectl exec`: it takes the rights to list pods and to create pods/exec there.
    #[command(
        after_help = "Examples:\n  signet strict-ready shop --kubeconfig ~/.kube/config --window 24h\n  kubectl -n shop exec deploy/cart -c signet-proxy -- signet strict-ready \
--window 24h\n  kubectl -n shop port-forward deploy/cart 15000 &\n  kubectl -n shop port-forward deploy/bank \
15001:15000 &\n  signet strict-ready --admin 127.0.0.1:15000 --admin 127.0.0.1:15001"
    )]
    StrictReady(StrictReadyArgs),
    /// Make a real handshake between two workloads, and say which side is wrong
    ///
    /// The calling proxy makes it with its own SVID, since it was asked over its admin socket, and only to a
    /// destination of its configuration; the key stays where it is. The handshake is followed by its end: no
    /// request is sent. Exit code 0: both sides have proved who they are. 1: they have not, and why.
    #[command(
        after_help = "Examples:\n  signet tls-check web/deploy/frontend orders.shop.svc:8443 --to-proxy \
shop/orders-0 --to-address 10.1.2.3:8443 --kubeconfig ~/.kube/config\n  kubectl -n web exec deploy/frontend -c signet-proxy -- signet \
tls-check /run/signet/admin/admin.sock orders.shop.svc:8443"
    )]
    TlsCheck(EndsArgs),
    /// Walk the whole way of a request between two workloads, and say where it ends
    ///
    /// Source, destination, mode, certificates, request, token, policies, upstream: the calling proxy makes a
    /// handshake, as for `tls-check`; the proxy at the destination judges the request by what is in force, with the
    /// same functions that judge real ones, and sees whether its application listens. No request is sent, and no
    /// provider of a CUSTOM policy is asked. Exit code 0: it would be served. 1: it would not. 2: somebody was not
    /// asked.
    #[command(
        after_help = "Examples:\n  signet why web/deploy/frontend orders.shop.svc:8443 --to-proxy shop/orders-0 \
--to-address 10.1.2.3:8443 --method POST --path /api/v1/items\n  signet why /run/signet/admin/admin.sock 127.0.0.1:9000 --to-proxy \
backend/admin.sock --jwt-file token"
    )]
    Why(WhyArgs),
    /// A whole system on this machine: an in-memory cluster, a CA, an agent, proxies before applications
    Dev(DevArgs),
    /// Ends the daemons of a `signet dev` that was killed
    #[command(name = crate::dev::guard::COMMAND, hide = true)]
    DevGuard,
    /// Completions for a shell, on stdout
    #[command(after_help = "Example:\n  signet completions bash > /etc/bash_completion.d/signet")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How to reach a CA.
#[derive(Args, Clone, Debug)]
pub struct CaArgs {
    /// Address of the CA
    #[arg(long, value_name = "HOST:PORT")]
    pub ca: String,
    /// Roots that may vouch for the CA, PEM
    #[arg(long, value_name = "FILE")]
    pub ca_root: PathBuf,
    /// Name the CA must prove [default: the host of --ca; signet-ca.signet-system.svc for an IP address
    /// or localhost]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
}

/// A running part, by its admin socket.
#[derive(Args, Debug)]
pub struct AdminArgs {
    /// Admin socket of the running part; only its own user may connect
    #[arg(long, value_name = "SOCKET")]
    pub admin: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        for noun in Cli::command()
            .get_subcommands()
            .filter(|c| c.get_name() != "help" && !c.is_hide_set())
        {
            let verbs: Vec<_> = noun.get_subcommands().collect();
            for command in if verbs.is_empty() { vec![noun] } else { verbs } {
                let help = command
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let name = command.get_name();
                assert!(
                    help.contains(&format!("{name} ")),
                    "{name} shows no example: {help}"
                );
            }
        }
    }

    #[test]
    fn a_source_is_asked_for_exactly_once() {
        let parse = |line: &str| {
            Cli::try_parse_from(line.split(' '))
                .map(drop)
                .map_err(|e| e.kind())
        };
        use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument};
        parse("signet svid show chain.pem").unwrap();
        assert_eq!(parse("signet svid show"), Err(MissingRequiredArgument));
        assert_eq!(
            parse("signet svid show chain.pem --admin a"),
            Err(ArgumentConflict)
        );
        assert_eq!(parse("signet bundle show --ca a:1"), Err(MissingRequiredArgument));
        parse("signet bundle show --ca a:1 --ca-root r").unwrap();
        parse("signet token check --token-file t").unwrap();
        parse("signet token check --token-file t --kubeconfig k").unwrap();
        parse("signet authority export --out o --passphrase-file p --secret a/b --kubeconfig k").unwrap();
        assert_eq!(
            parse("signet token check --token-file t --admin a --kubeconfig k"),
            Err(ArgumentConflict)
        );
        assert_eq!(
            parse("signet authority export --out o --passphrase-file p"),
            Err(MissingRequiredArgument)
        );
    }
}
