//! The configuration file: `Raw` as written, [`Config`] as checked.

mod check;
mod print;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use signet_certs::lifetime::TtlBounds;
use signet_certs::{ServiceAccountId, TrustDomain};
use signet_runtime::config::{ConfigFaults, HumanDuration, load};
use signet_runtime::logs::LogFormat;

pub use trust::{
    BundleEndpoint, EndpointProfile, Federated, ForeignSource, JwtSettings, RawEndpoint, RawFederated,
    RawJwt, TrustSettings,
};

/// The file as written. Every key is optional; unknown ones are refused.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    trust_domain: Option<String>,
    service_account: Option<String>,
    listen: Option<String>,
    metrics_listen: Option<String>,
    admin_socket: Option<PathBuf>,
    serving_names: Option<Vec<String>>,
    audiences: Option<Vec<String>>,
    istio_compatibility: Option<bool>,
    trusted_node_accounts: Option<Vec<String>>,
    kubeconfig: Option<PathBuf>,
    state_directory: Option<PathBuf>,
    state_secret: Option<String>,
    plugged_in_ca: Option<PathBuf>,
    svid_ttl: Option<HumanDuration>,
    max_svid_ttl: Option<HumanDuration>,
    min_svid_ttl: Option<HumanDuration>,
    issuing_life: Option<HumanDuration>,
    root_life: Option<HumanDuration>,
    bundle_refresh_hint: Option<HumanDuration>,
    roots_configmap: Option<String>,
    publish_roots: Option<bool>,
    extra_dns_names: Option<BTreeMap<String, Vec<String>>>,
    review_timeout: Option<HumanDuration>,
    reviews_in_flight: Option<usize>,
    requests_in_flight: Option<usize>,
    connections: Option<usize>,
    connections_per_address: Option<usize>,
    connection_age: Option<HumanDuration>,
    log_format: Option<String>,
    log_filter: Option<String>,
    drain: Option<HumanDuration>,
    jwt_svid: Option<RawJwt>,
    oidc_listen: Option<String>,
    bundle_endpoint: Option<RawEndpoint>,
    federation: Option<Vec<RawFederated>>,
}

/// Where the root and the bundle's sequence are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateAt {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A Kubernetes Secret that all replicas share.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Lifetimes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Bounds of leaves.
    pub svid: TtlBounds,
    /// Life of the issuing authority.
    pub issuing: Duration,
    /// Life of a root made here.
    pub root: Duration,
    /// How often pollers of the bundle should ask.
    pub refresh_hint: Duration,
}

/// Bounds on what strangers can make this process do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A TokenReview is given up after this.
    pub review_timeout: Duration,
    /// TokenReviews under way at once.
    pub reviews: usize,
    /// `CreateCertificate` calls under way or waiting at once.
    pub requests: usize,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one address.
    pub connections_per_address: usize,
    /// Connections that are about as old are told to dial again.
    pub connection_age: Duration,
}

/// Addresses and sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// gRPC over TLS.
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// Admin socket.
    pub admin: PathBuf,
    /// DNS names of the serving certificate.
    pub names: Vec<String>,
}

/// How the roots are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// ConfigMap names; more than one with Istio compatibility.
    pub configmaps: Vec<String>,
    /// Whether to publish at all.
    pub enabled: bool,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our trust domain.
    pub trust_domain: TrustDomain,
    /// The account the CA itself runs as; its serving certificate is an SVID of it.
    pub account: ServiceAccountId,
    /// Where to listen.
    pub endpoints: Endpoints,
    /// Audiences accepted in tokens.
    pub audiences: Vec<String>,
    /// Accounts whose pods may ask for what runs on their node; none turns that off.
    pub node_accounts: BTreeSet<ServiceAccountId>,
    /// How to reach the API server; nothing means in-cluster.
    pub kubeconfig: Option<PathBuf>,
    /// Where state is kept.
    pub state: StateAt,
    /// A CA that the operator brings.
    pub plugged_in: Option<PathBuf>,
    /// Lifetimes.
    pub lifetimes: Lifetimes,
    /// How the roots are published.
    pub publishing: Publishing,
    /// Extra DNS names per account.
    pub extra_dns: BTreeMap<ServiceAccountId, Vec<String>>,
    /// Bounds.
    pub limits: Limits,
    /// Log format and filter.
    pub logs: (LogFormat, String),
    /// How long calls under way may take to end after SIGTERM.
    pub drain: Duration,
    /// JWT-SVIDs, and trust beyond our own domain.
    pub trust: TrustSettings,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn load(path: &Path) -> Result<Self, ConfigFaults> {
        let raw: Raw = load(path)?;
        Self::check(raw).map_err(|faults| ConfigFaults {
            path: Some(path.to_owned()),
            ..faults
        })
    }
}

#[cfg(test)]
mod tests;
