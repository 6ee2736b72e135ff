//! The configuration file: [`Raw`] as written, [`Config`] as checked.

mod attestor;
mod check;
mod policies;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use signet_certs::TrustDomain;
use signet_runtime::config::{ConfigFaults, Faults, HumanDuration, load};
use signet_runtime::logs::LogFormat;

use crate::attest;
pub use attestor::RawRule;
use check::{host_and_port, typed};
pub use policies::RawPolicies;

/// The file as written. Every key is optional; unknown ones are refused.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    trust_domain: Option<String>,
    ca_address: Option<String>,
    ca_server_name: Option<String>,
    ca_root_file: Option<PathBuf>,
    ca_deadline: Option<HumanDuration>,
    token_file: Option<PathBuf>,
    socket: Option<PathBuf>,
    socket_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_uids: Option<Vec<u32>>,
    attestor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workloads: Option<Vec<RawRule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_proc: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubeconfig: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<RawPolicies>,
    admin_socket: Option<PathBuf>,
    metrics_listen: Option<String>,
    svid_ttl: Option<HumanDuration>,
    jwt_svid_ttl: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<RawOutput>,
    log_format: Option<String>,
    log_filter: Option<String>,
    drain: Option<HumanDuration>,
}

/// `output` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawOutput {
    directory: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_change: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<RawSignal>,
}

/// `output.signal` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawSignal {
    pid_file: PathBuf,
    name: String,
}

/// Where the CA is and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca {
    /// Host name or IP address to dial.
    pub host: String,
    /// Port to dial.
    pub port: u16,
    /// The name its serving certificate must carry.
    pub server_name: ServerName<'static>,
    /// Roots that authenticate it until the first bundle is here.
    pub root_file: PathBuf,
    /// The service-account token, read at each use.
    pub token_file: PathBuf,
    /// Bound of every call.
    pub deadline: Duration,
}

impl Ca {
    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The socket workloads dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its path.
    pub socket: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

/// A signal that may follow a change of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalName {
    /// `SIGHUP`
    Hup,
    /// `SIGUSR1`
    Usr1,
    /// `SIGUSR2`
    Usr2,
}

impl std::str::FromStr for SignalName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "SIGHUP" => Ok(Self::Hup),
            "SIGUSR1" => Ok(Self::Usr1),
            "SIGUSR2" => Ok(Self::Usr2),
            _ => Err("is not one of SIGHUP, SIGUSR1, SIGUSR2".into()),
        }
    }
}

/// What happens after each change of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Nothing; readers look by themselves.
    None,
    /// A program and its arguments, run without a shell.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// A signal to the process named in a file.
    Signal {
        /// Holds the process id as decimal text.
        pid_file: PathBuf,
        /// Which signal.
        signal: SignalName,
    },
}

/// Key, chain and roots as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where the three files go.
    pub directory: PathBuf,
    /// What follows each change.
    pub hook: Hook,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our trust domain.
    pub trust_domain: TrustDomain,
    /// The CA.
    pub ca: Ca,
    /// The workload socket.
    pub workload: Workload,
    /// Who gets which identity.
    pub attestor: attest::Settings,
    /// Where policies for local proxies come from, if any are served.
    pub policies: Option<crate::policy::Settings>,
    /// The admin socket's path.
    pub admin_socket: PathBuf,
    /// Metrics and health.
    pub metrics_listen: SocketAddr,
    /// The life of SVIDs asked for; the CA may clamp it.
    pub svid_ttl: Duration,
    /// The life of tokens asked for; the CA may clamp it.
    pub jwt_svid_ttl: Duration,
    /// Optional file output.
    pub output: Option<Output>,
    /// Log format and filter.
    pub logs: (LogFormat, String),
    /// How long streams may take to end after SIGTERM.
    pub drain: Duration,
    effective: Raw,
}

/// What a pod knows of itself, as the downward API puts it into the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downward {
    /// `NODE_NAME`.
    pub node_name: Option<String>,
    /// `POD_UID`.
    pub pod_uid: Option<String>,
}

impl Config {
    /// Reads and checks the file at `path`; what it leaves out of the pod's own facts comes from
    /// `downward`.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn load(path: &Path, downward: Downward) -> Result<Self, ConfigFaults> {
        let raw: Raw = load(path)?;
        Self::check(raw.in_pod(downward)).map_err(|faults| ConfigFaults {
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
        let effective = with_defaults(raw);
        let config = typed(&effective, &mut faults);
        faults.finish(config)
    }

    /// Which attestor, as the file names it.
    #[must_use]
    pub fn attestor_name(&self) -> &'static str {
        attestor::name(&self.attestor)
    }

    /// The configuration in force as YAML, defaults included. It names files that hold secrets and
    /// holds none itself.
    ///
    /// # Errors
    /// When it cannot be written as YAML, which paths that are not UTF-8 cause.
    pub fn print(&self) -> Result<String, String> {
        serde_saphyr::to_string(&self.effective).map_err(|e| format!("print configuration: {e}"))
    }
}

impl Raw {
    /// With the pod's own facts, where the attestor needs them and the file does not have them.
    fn in_pod(mut self, downward: Downward) -> Self {
        if self.attestor.as_deref() == Some(attestor::KUBERNETES) {
            self.node_name = self.node_name.or(downward.node_name);
            self.pod_uid = self.pod_uid.or(downward.pod_uid);
        }
        self
    }
}

/// Every key that has a default gets it.
fn with_defaults(raw: Raw) -> Raw {
    let text = |value: Option<String>, default: &str| Some(value.unwrap_or_else(|| default.to_owned()));
    let path = |value: Option<PathBuf>, default: &str| Some(value.unwrap_or_else(|| PathBuf::from(default)));
    let wait = |value: Option<HumanDuration>, seconds: u64| {
        Some(value.unwrap_or(HumanDuration(Duration::from_secs(seconds))))
    };
    let attestor = raw.attestor.unwrap_or_else(|| "own".to_owned());
    let uids = match raw.allowed_uids {
        Some(uids) if !uids.is_empty() => Some(uids),
        _ if attestor == "own" => Some(vec![signet_runtime::socket::own_uid()]),
        other => other,
    };
    let host_proc = match raw.host_proc {
        None if attestor != "own" => Some(PathBuf::from("/proc")),
        other => other,
    };
    let ca_address = raw
        .ca_address
        .unwrap_or_else(|| "signet-ca.signet-system.svc:15012".to_owned());
    let host = host_and_port(&ca_address).map(|(host, _)| host);
    Raw {
        trust_domain: text(raw.trust_domain, "cluster.local"),
        ca_server_name: raw.ca_server_name.or_else(|| host.ok()),
        ca_address: Some(ca_address),
        ca_root_file: path(raw.ca_root_file, "/var/run/secrets/signet/root-cert.pem"),
        ca_deadline: wait(raw.ca_deadline, 10),
        token_file: path(raw.token_file, "/var/run/secrets/tokens/signet-token"),
        socket: path(raw.socket, "/run/signet/workload/agent.sock"),
        socket_mode: text(raw.socket_mode, "0660"),
        allowed_uids: uids,
        attestor: Some(attestor),
        workloads: raw.workloads,
        host_proc,
        node_name: raw.node_name,
        pod_uid: raw.pod_uid,
        kubeconfig: raw.kubeconfig,
        policies: raw.policies.map(RawPolicies::with_defaults),
        admin_socket: path(raw.admin_socket, "/run/signet/admin/admin.sock"),
        metrics_listen: text(raw.metrics_listen, "0.0.0.0:15020"),
        svid_ttl: wait(raw.svid_ttl, 86_400),
        jwt_svid_ttl: wait(raw.jwt_svid_ttl, 300),
        output: raw.output,
        log_format: text(raw.log_format, "json"),
        log_filter: text(raw.log_filter, "info"),
        drain: wait(raw.drain, 5),
    }
}

#[cfg(test)]
mod tests;
