//! The configuration file: [`Raw`] as written, [`Config`] as checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use signet_certs::TrustDomain;
use signet_runtime::config::{ConfigFaults, Faults, HumanDuration, load};
use signet_runtime::logs::LogFormat;

/// Shortest SVID life asked for; below it renewal and clock skew leave nothing.
const SHORTEST_TTL: Duration = Duration::from_secs(10);
/// Most uids that may be admitted. A pod has a handful of containers.
const MAX_UIDS: usize = 64;

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
    allowed_uids: Option<Vec<u32>>,
    admin_socket: Option<PathBuf>,
    metrics_listen: Option<String>,
    svid_ttl: Option<HumanDuration>,
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
    /// Whose connections are admitted, by the kernel's word.
    pub allowed_uids: Vec<u32>,
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
    /// The admin socket's path.
    pub admin_socket: PathBuf,
    /// Metrics and health.
    pub metrics_listen: SocketAddr,
    /// The life asked for; the CA may clamp it.
    pub svid_ttl: Duration,
    /// Optional file output.
    pub output: Option<Output>,
    /// Log format and filter.
    pub logs: (LogFormat, String),
    /// How long streams may take to end after SIGTERM.
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
        let effective = with_defaults(raw);
        let config = typed(&effective, &mut faults);
        faults.finish(config)
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

/// Every key that has a default gets it.
fn with_defaults(raw: Raw) -> Raw {
    let text = |value: Option<String>, default: &str| Some(value.unwrap_or_else(|| default.to_owned()));
    let path = |value: Option<PathBuf>, default: &str| Some(value.unwrap_or_else(|| PathBuf::from(default)));
    let wait = |value: Option<HumanDuration>, seconds: u64| {
        Some(value.unwrap_or(HumanDuration(Duration::from_secs(seconds))))
    };
    let uids = match raw.allowed_uids {
        Some(uids) if !uids.is_empty() => uids,
        _ => vec![signet_runtime::socket::own_uid()],
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
        allowed_uids: Some(uids),
        admin_socket: path(raw.admin_socket, "/run/signet/admin/admin.sock"),
        metrics_listen: text(raw.metrics_listen, "0.0.0.0:15020"),
        svid_ttl: wait(raw.svid_ttl, 86_400),
        output: raw.output,
        log_format: text(raw.log_format, "json"),
        log_filter: text(raw.log_filter, "info"),
        drain: wait(raw.drain, 5),
    }
}

fn typed(raw: &Raw, faults: &mut Faults) -> Option<Config> {
    let seconds = |value: Option<HumanDuration>| value.map_or(Duration::ZERO, |d| d.0);
    let trust_domain = faults.parse("trust_domain", raw.trust_domain.as_deref().unwrap_or_default());
    let ca = ca(raw, faults);
    let workload = workload(raw, faults);
    let admin_socket = raw.admin_socket.clone()?;
    check_sockets(raw, &admin_socket, faults);
    let metrics_listen = faults.parse(
        "metrics_listen",
        raw.metrics_listen.as_deref().unwrap_or_default(),
    );
    let svid_ttl = seconds(raw.svid_ttl);
    if svid_ttl < SHORTEST_TTL {
        faults.add(
            "svid_ttl",
            format!("must be at least {}", HumanDuration(SHORTEST_TTL)),
        );
    }
    let output = raw.output.as_ref().map(|output| check_output(output, faults));
    let format = match raw.log_format.as_deref() {
        Some("json") => LogFormat::Json,
        Some("text") => LogFormat::Text,
        other => {
            let found = other.unwrap_or_default();
            faults.add(
                "log_format",
                format!("{found:?} is neither \"json\" nor \"text\""),
            );
            LogFormat::Json
        }
    };
    Some(Config {
        trust_domain: trust_domain?,
        ca: ca?,
        workload: workload?,
        admin_socket,
        metrics_listen: metrics_listen?,
        svid_ttl,
        output,
        logs: (format, raw.log_filter.clone().unwrap_or_default()),
        drain: seconds(raw.drain),
        effective: raw.clone(),
    })
}

fn ca(raw: &Raw, faults: &mut Faults) -> Option<Ca> {
    let address = raw.ca_address.as_deref().unwrap_or_default();
    let parts = faults.take("ca_address", host_and_port(address));
    let name = raw.ca_server_name.clone().unwrap_or_default();
    let server_name = match (&parts, ServerName::try_from(name.clone())) {
        (_, Ok(server_name)) => Some(server_name),
        // The name came from the address, whose own fault is told already.
        (None, Err(_)) if name.is_empty() => None,
        (_, Err(_)) => {
            faults.add(
                "ca_server_name",
                format!("{name:?} is neither a DNS name nor an IP address"),
            );
            None
        }
    };
    let deadline = raw.ca_deadline.map_or(Duration::ZERO, |d| d.0);
    if deadline < Duration::from_millis(100) || deadline > Duration::from_secs(300) {
        faults.add("ca_deadline", "must be between 100ms and 5m");
    }
    let (host, port) = parts?;
    Some(Ca {
        host,
        port,
        server_name: server_name?,
        root_file: raw.ca_root_file.clone()?,
        token_file: raw.token_file.clone()?,
        deadline,
    })
}

/// Splits `host:port`; IPv6 addresses stand in brackets.
fn host_and_port(address: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{address:?} is not host:port, as in signet-ca.signet-system.svc:15012");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match bare {
        Some(inner) if inner.contains(':') => inner,
        None if !host.contains(':') => host,
        _ => return Err(wrong()),
    };
    match port.parse::<u16>() {
        Ok(port) if port != 0 && !host.is_empty() && !host.contains('/') => Ok((host.to_owned(), port)),
        _ => Err(wrong()),
    }
}

fn workload(raw: &Raw, faults: &mut Faults) -> Option<Workload> {
    let text = raw.socket_mode.as_deref().unwrap_or_default();
    let mode = match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o777 == 0 && mode & 0o600 == 0o600 => Some(mode),
        _ => {
            let fault =
                format!("{text:?} is not an octal mode that lets the owner read and write, as in \"0660\"");
            faults.add("socket_mode", fault);
            None
        }
    };
    let allowed_uids = raw.allowed_uids.clone().unwrap_or_default();
    if allowed_uids.len() > MAX_UIDS {
        faults.add(
            "allowed_uids",
            format!("has {} entries, at most {MAX_UIDS} are read", allowed_uids.len()),
        );
    }
    Some(Workload {
        socket: raw.socket.clone()?,
        mode: mode?,
        allowed_uids,
    })
}

/// The admin socket never lies in the directory that is mounted into pods.
fn check_sockets(raw: &Raw, admin: &Path, faults: &mut Faults) {
    let Some(socket) = &raw.socket else { return };
    for (key, path) in [("socket", socket.as_path()), ("admin_socket", admin)] {
        if !path.is_absolute() {
            faults.add(key, format!("{} must be an absolute path", path.display()));
        }
    }
    if socket.parent() == admin.parent() {
        faults.add(
            "admin_socket",
            format!(
                "must not lie in {}, the directory of the workload socket, which is mounted into pods",
                socket.parent().unwrap_or(Path::new("/")).display()
            ),
        );
    }
}

fn check_output(raw: &RawOutput, faults: &mut Faults) -> Output {
    if !raw.directory.is_absolute() {
        faults.add(
            "output.directory",
            format!("{} must be an absolute path", raw.directory.display()),
        );
    }
    let hook = match (&raw.on_change, &raw.signal) {
        (None, None) => Hook::None,
        (Some(argv), None) => match argv.split_first() {
            Some((program, arguments)) if !program.is_empty() => Hook::Command {
                program: program.clone(),
                arguments: arguments.to_vec(),
            },
            _ => {
                faults.add(
                    "output.on_change",
                    "names no program; write it as [program, argument, …]",
                );
                Hook::None
            }
        },
        (None, Some(signal)) => match faults.parse("output.signal.name", &signal.name) {
            Some(name) => Hook::Signal {
                pid_file: signal.pid_file.clone(),
                signal: name,
            },
            None => Hook::None,
        },
        (Some(_), Some(_)) => {
            faults.add("output", "has both on_change and signal; keep one");
            Hook::None
        }
    };
    Output {
        directory: raw.directory.clone(),
        hook,
    }
}

#[cfg(test)]
mod tests;
