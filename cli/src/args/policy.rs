//! `signet policy` and `signet analyze`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Map, Value};
use signet_certs::TrustDomain;
use signet_policy::Normalization;
use signet_policy::scope::ProviderKind;

use crate::policy::question::{Caller, Target, claims, header, labels, workload};

/// Verbs of `signet policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say whether policies can be enforced as they stand (exit 0), or what is wrong with them (exit 1)
    ///
    /// Every fault comes with file, line, field and what to write instead. An object with a fault is not in
    /// force, whole; its last good version is, and without one it counts as the strictest it could be.
    /// Warnings are for what can be enforced and is often not meant; `signet analyze` looks at more.
    #[command(
        after_help = "Examples:\n  signet policy check policies/\n  kustomize build . | signet policy check \
-\n  signet policy check --kubeconfig ~/.kube/config -o json"
    )]
    Check(PolicyCheckArgs),
    /// Say whether a request would pass (exit 0) or not (exit 1), which rule decides, and what to change
    ///
    /// Goes through what a proxy does, in its order: mutual TLS (PeerAuthentication), the path, CUSTOM, the
    /// token (RequestAuthentication), DENY, ALLOW. Every policy that reaches the workload has a vote: it
    /// matches, or the first field that does not is named with what was there and what was wanted. Values
    /// of headers and claims are never shown.
    #[command(
        after_help = "Examples:\n  signet policy explain --policies policies/ --from web/frontend --to \
shop/cart:8080 --labels app=cart --method GET --path /api/v1/items\n  signet policy explain --policies \
policies/ --from none --to shop/cart:9000 --labels app=cart --tcp"
    )]
    Explain(Box<PolicyExplainArgs>),
    /// Say who gains and who loses access between two sets of policies (exit 1), or that nobody does (exit 0)
    ///
    /// Asks both sets the same questions: those you give, and made-up ones with every name, path, method,
    /// port, host, address and claim that stands in a rule of either. Workloads are those in the files and
    /// one for every selector. Requests may be those that a proxy recorded: its access records, as it logs them.
    #[command(
        after_help = "Examples:\n  signet policy diff policies/ policies.new/\n  signet policy diff old.yaml \
new.yaml --requests requests.jsonl -o json\n  kubectl -n shop logs deploy/cart -c signet-proxy | signet policy diff \
policies/ policies.new/ --requests - --only-requests --recorded-by shop/cart --labels app=cart\n\n\
A line of a requests file, or an access record of a proxy (lines of its log that are none are skipped):\n  {\"from\": \"web/frontend\", \
\"to\": \"shop/cart:8080\", \"labels\": {\"app\": \"cart\"}, \"method\": \"GET\", \"path\": \"/api\"}"
    )]
    Diff(PolicyDiffArgs),
}

/// What the mesh agrees on; as in the configuration of the proxies.
#[derive(Args, Clone, Debug)]
pub struct MeshArgs {
    /// Our own trust domain
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// A further trust domain that counts as ours; may be given several times
    #[arg(long, value_name = "NAME")]
    pub trust_domain_alias: Vec<TrustDomain>,
    /// The namespace whose policies reach every namespace
    #[arg(long, value_name = "NAME", default_value = "istio-system")]
    pub root_namespace: String,
    /// A provider of CUSTOM policies and how it is asked; may be given several times
    #[arg(long, value_name = "NAME=grpc|http", value_parser = provider)]
    pub provider: Vec<(String, ProviderKind)>,
    /// What is done to paths: NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES
    #[arg(long, value_name = "NAME", default_value = "BASE", value_parser = normalization)]
    pub path_normalization: Normalization,
    /// The namespace of objects that name none
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
}

fn provider(text: &str) -> Result<(String, ProviderKind), String> {
    match text.split_once('=') {
        Some((name, "grpc")) if !name.is_empty() => Ok((name.to_owned(), ProviderKind::Grpc)),
        Some((name, "http")) if !name.is_empty() => Ok((name.to_owned(), ProviderKind::Http)),
        _ => Err("write NAME=grpc or NAME=http".to_owned()),
    }
}

fn normalization(text: &str) -> Result<Normalization, String> {
    text.parse()
        .map_err(|e: signet_policy::path::UnknownNormalization| e.to_string())
}

/// `signet policy check`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("checked").required(true).multiple(false))]
pub struct PolicyCheckArgs {
    /// Files, directories (all .yaml, .yml and .json below them), or "-" for standard input
    #[arg(value_name = "FILE|DIR|-", group = "checked")]
    pub paths: Vec<PathBuf>,
    /// Check what is in a cluster instead
    #[arg(long, value_name = "FILE", group = "checked")]
    pub kubeconfig: Option<PathBuf>,
    /// Warnings count as faults
    #[arg(long)]
    pub strict: bool,
    /// The mesh
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// `signet policy explain`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("explained").required(true).multiple(false))]
pub struct PolicyExplainArgs {
    /// Who asks: NAMESPACE/SERVICE-ACCOUNT, a SPIFFE ID, or none for a caller without mutual TLS
    #[arg(long, value_name = "WHO")]
    pub from: Caller,
    /// Who is asked; the port is the workload's own, not a service's
    #[arg(long, value_name = "NAMESPACE/WORKLOAD[:PORT]")]
    pub to: Target,
    /// Labels of the workload's pods [default: those of the workload of that name in the files]
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = labels)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Policies, and if you have them workloads and services: a file, a directory, or "-"; may be given
    /// several times
    #[arg(long, value_name = "FILE|DIR|-", group = "explained")]
    pub policies: Vec<PathBuf>,
    /// Take policies and pods of a cluster instead
    #[arg(long, value_name = "FILE", group = "explained")]
    pub kubeconfig: Option<PathBuf>,
    /// The request
    #[command(flatten)]
    pub request: QuestionArgs,
    /// Address at the other end of the connection
    #[arg(long, value_name = "ADDRESS")]
    pub source_ip: Option<IpAddr>,
    /// Address of the original client, where a trusted hop names it [default: --source-ip]
    #[arg(long, value_name = "ADDRESS")]
    pub remote_ip: Option<IpAddr>,
    /// Address that was dialled
    #[arg(long, value_name = "ADDRESS")]
    pub destination_ip: Option<IpAddr>,
    /// Server name that the client's TLS asks for
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// The mesh
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// The request of an explanation.
#[derive(Args, Debug)]
#[group(skip)]
pub struct QuestionArgs {
    /// The port carries no HTTP: there is a connection and no request
    #[arg(long, conflicts_with_all = ["method", "path", "host", "header", "jwt_file", "claims"])]
    pub tcp: bool,
    /// The request
    #[command(flatten)]
    pub http: HttpArgs,
    /// Claims of the request's token, which is then taken for well signed
    #[arg(long, value_name = "JSON", value_parser = claims, conflicts_with = "jwt_file")]
    pub claims: Option<Map<String, Value>>,
}

/// A request as it is sent.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct HttpArgs {
    /// Method of the request
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// Path of the request, as sent
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub path: String,
    /// Host of the request, with its port if the client sends one [default: the destination's name]
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// A header of the request; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub header: Vec<(String, String)>,
    /// File with the request's token; "-" is standard input
    #[arg(long, value_name = "FILE")]
    pub jwt_file: Option<PathBuf>,
}

/// `signet policy diff`.
#[derive(Args, Debug)]
pub struct PolicyDiffArgs {
    /// Policies as they are: a file, a directory, or "-"
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// Policies as they are to be: a file, a directory, or "-"
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// Requests to ask both about, one JSON object per line: as in the example, or a log of the proxy that was
    /// called; "-" is standard input
    #[arg(long, value_name = "FILE|-")]
    pub requests: Option<PathBuf>,
    /// The workload whose proxy wrote the access records [default: the one in the files that runs as who answered]
    #[arg(long, value_name = "NAMESPACE/WORKLOAD", value_parser = workload, requires = "requests")]
    pub recorded_by: Option<Target>,
    /// Labels of that workload's pods [default: those of the workload of that name in the files]
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = labels, requires = "recorded_by")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Ask the given requests only
    #[arg(long, requires = "requests")]
    pub only_requests: bool,
    /// Most questions that are made up
    #[arg(long, value_name = "COUNT", default_value_t = 200_000)]
    pub most: usize,
    /// The mesh
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// `signet analyze`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new("analyzed").required(true).multiple(false))]
pub struct AnalyzeArgs {
    /// Files, directories (all .yaml, .yml and .json below them), or "-" for standard input
    #[arg(value_name = "FILE|DIR|-", group = "analyzed")]
    pub paths: Vec<PathBuf>,
    /// Look at a cluster instead
    #[arg(long, value_name = "FILE", group = "analyzed")]
    pub kubeconfig: Option<PathBuf>,
    /// Leave this finding out; may be given several times
    #[arg(long, value_name = "CODE")]
    pub suppress: Vec<String>,
    /// The mesh
    #[command(flatten)]
    pub mesh: MeshArgs,
}
