//! The configuration file: [`Raw`] as written, [`Config`] as checked.

mod block;
mod check;
mod ext_authz;
mod limits;
mod listeners;
mod tokens;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use signet_certs::TrustDomain;
use signet_policy::{Mesh, Normalization, Workload};
use signet_runtime::config::{ConfigFaults, Faults, HumanDuration, load};
use signet_runtime::logs::LogFormat;

pub use block::Block;
pub use ext_authz::{ProviderConfig, ProviderPlace, RawProvider, RawProviderTls};
pub use limits::{Limits, RawLimits};
pub use listeners::{
    Capture, Destination, Inbound, Outbound, Outgoing, Protocol, RawCapture, RawDestination, RawInbound,
    RawMutual, RawOutbound, Reach, Speaks, Terminates,
};

use crate::probes::{Probes, RawProbes};
pub use tokens::{KeyFetching, RawTokens};

/// The file as written. Unknown keys are refused.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    trust_domain: Option<String>,
    trust_domain_aliases: Option<Vec<String>>,
    root_namespace: Option<String>,
    agent_socket: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<RawPolicies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<RawWorkload>,
    inbound: Option<Vec<RawInbound>>,
    outbound: Option<Vec<RawOutbound>>,
    destinations: Option<Vec<RawDestination>>,
    default_outbound: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<RawCapture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probes: Option<RawProbes>,
    path_normalization: Option<String>,
    jwt: Option<RawTokens>,
    ext_authz: Option<Vec<RawProvider>>,
    tls12: Option<bool>,
    close_on_expiry: Option<bool>,
    limits: Option<RawLimits>,
    access_log: Option<String>,
    admin_listen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_socket: Option<PathBuf>,
    metrics_listen: Option<String>,
    workers: Option<u8>,
    log_format: Option<String>,
    log_filter: Option<String>,
    drain: Option<HumanDuration>,
}

/// `policies` as written: `agent`, or a directory and whose policies are wanted.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum RawPolicies {
    /// A word.
    Word(String),
    /// A directory.
    Files(RawFiles),
}

/// `policies` of a directory.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawFiles {
    directory: PathBuf,
    namespace: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

/// `workload` as written: what metrics call the local side.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawWorkload {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
}

/// Where policies come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// The agent streams those that concern this workload.
    Agent,
    /// YAML files, for this workload.
    Files {
        /// The directory.
        directory: PathBuf,
        /// Whose policies are wanted.
        workload: Workload,
    },
}

/// What metrics call the local side; nothing is `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The workload, as in the name of its Deployment.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its service.
    pub service: Option<String>,
    /// Its application.
    pub app: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its cluster.
    pub cluster: Option<String>,
}

/// Which access records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// All.
    All,
    /// Those of refusals and failures.
    Refused,
    /// None; metrics still count.
    Off,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our trust domain.
    pub trust_domain: TrustDomain,
    /// The agent's socket.
    pub agent_socket: PathBuf,
    /// What the whole mesh agrees on.
    pub mesh: Mesh,
    /// Where policies come from.
    pub policies: PolicySource,
    /// What metrics call the local side.
    pub local: Local,
    /// Listeners towards the workload.
    pub inbound: Vec<Inbound>,
    /// Listeners of the workload towards others.
    pub outbound: Vec<Outbound>,
    /// Listeners for traffic that was redirected.
    pub capture: Option<Capture>,
    /// Checks of the workload that kubelet may ask for here.
    pub probes: Option<Probes>,
    /// Known destinations of redirected traffic, and what happens to all others.
    pub destinations: (Vec<Destination>, Reach),
    /// What is done to request paths before they are compared and forwarded.
    pub normalization: Normalization,
    /// How keys of token issuers are fetched.
    pub key_fetching: KeyFetching,
    /// Providers of CUSTOM policies.
    pub ext_authz: Vec<ProviderConfig>,
    /// Whether TLS 1.2 is spoken beside 1.3.
    pub tls12: bool,
    /// Whether TCP connections end with the SVID they were opened with.
    pub close_on_expiry: bool,
    /// Bounds.
    pub limits: Limits,
    /// Which access records are written.
    pub access_log: AccessLog,
    /// The admin page.
    pub admin_listen: SocketAddr,
    /// Where an operator can ask this proxy to try something; nowhere, unless it is said.
    pub admin_socket: Option<PathBuf>,
    /// Metrics and health.
    pub metrics_listen: SocketAddr,
    /// Threads that serve connections.
    pub workers: u8,
    /// Log format and filter.
    pub logs: (LogFormat, String),
    /// How long connections may take to end after SIGTERM.
    pub drain: Duration,
    effective: Raw,
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

    /// Checks a raw configuration.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn check(raw: Raw) -> Result<Self, ConfigFaults> {
        let mut faults = Faults::default();
        let effective = check::with_defaults(raw);
        let config = check::typed(&effective, &mut faults);
        faults.finish(config)
    }

    /// Checks a configuration given as text.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn from_text(text: &str) -> Result<Self, ConfigFaults> {
        Self::check(signet_runtime::config::from_text(text)?)
    }

    /// The configuration in force as YAML, defaults included. It holds no secrets.
    ///
    /// # Errors
    /// When it cannot be written as YAML, which paths that are not UTF-8 cause.
    pub fn print(&self) -> Result<String, String> {
        serde_saphyr::to_string(&self.effective).map_err(|e| format!("print configuration: {e}"))
    }
}

#[cfg(test)]
mod tests;
