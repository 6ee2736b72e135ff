//! The command line: noun, then verb. Every command says what it is for and shows one example.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use signet_certs::{SpiffeId, TrustDomain};
use signet_runtime::config::HumanDuration;

use crate::print::Format;
use crate::times::Moment;

/// Sees and steers signet: identities, trust bundles, authorities, tokens.
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
    /// Trust bundles: whom a trust domain accepts
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// X.509 authorities of the CA: show, back up, restore
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Service-account tokens: what the CA will say to one, and why
    #[command(subcommand)]
    Token(TokenCommand),
    /// A whole system on this machine: an in-memory cluster, a CA, an agent
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
/run/signet/workload/agent.sock\n  kubectl exec POD -c signet-agent -- signet svid show --admin \
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
    #[command(after_help = "Example:\n  signet svid rotate --admin /run/signet/admin/admin.sock")]
    Rotate(AdminArgs),
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
    /// An agent's workload socket: asked over SDS, as Envoy does
    #[arg(long, value_name = "PATH", group = "svid_source")]
    pub socket: Option<PathBuf>,
    /// An agent's admin socket: knows the next renewal as well
    #[arg(long, value_name = "SOCKET", group = "svid_source")]
    pub admin: Option<PathBuf>,
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

/// A running part, by its admin socket.
#[derive(Args, Debug)]
pub struct AdminArgs {
    /// Admin socket of the running part; only its own user may connect
    #[arg(long, value_name = "SOCKET")]
    pub admin: PathBuf,
}

/// Verbs of `signet bundle`.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Show the roots of a trust bundle
    #[command(
        after_help = "Examples:\n  signet bundle show root-cert.pem\n  signet bundle show --admin \
/run/signet/admin/admin.sock\n  signet bundle show --ca signet-ca.signet-system.svc:15012 --ca-root \
root-cert.pem"
    )]
    Show(BundleShowArgs),
}

/// `signet bundle show`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("bundle_source").required(true).multiple(false))]
pub struct BundleShowArgs {
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

/// `signet dev`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  signet dev --dir ./dev --svid-ttl 1m\n\nEnds with SIGINT or SIGTERM \
and leaves no process behind. After `kill -9` a guard process ends signet-ca and signet-agent; the \
temporary directory stays."
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
    /// Print one line of JSON when all is ready, for scripts
    #[arg(long)]
    pub json: bool,
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
