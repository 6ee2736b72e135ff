//! From the configuration as written to the one in force, every fault told.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::ServerName;
use signet_runtime::config::{Faults, HumanDuration};
use signet_runtime::logs::LogFormat;

use super::{Ca, Config, Hook, Output, Raw, RawOutput, Workload, attestor, policies};

/// Shortest SVID life asked for; below it renewal and clock skew leave nothing.
const SHORTEST_TTL: Duration = Duration::from_secs(10);
/// Shortest life of a token asked for: verifiers allow for a minute of skew.
const SHORTEST_JWT_TTL: Duration = Duration::from_secs(30);
/// Longest life of a token asked for. Nobody can take one back.
const LONGEST_JWT_TTL: Duration = Duration::from_secs(86_400);

pub(super) fn typed(raw: &Raw, faults: &mut Faults) -> Option<Config> {
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
    let jwt_svid_ttl = seconds(raw.jwt_svid_ttl);
    if !(SHORTEST_JWT_TTL..=LONGEST_JWT_TTL).contains(&jwt_svid_ttl) {
        let (least, most) = (HumanDuration(SHORTEST_JWT_TTL), HumanDuration(LONGEST_JWT_TTL));
        faults.add("jwt_svid_ttl", format!("must be between {least} and {most}"));
    }
    let attestor = attestor::settings(raw, trust_domain.as_ref(), faults);
    let policies = policies::settings(raw, faults);
    let output = raw.output.as_ref().map(|output| check_output(output, faults));
    if output.is_some() && raw.attestor.as_deref() != Some(attestor::OWN) {
        faults.add(
            "output",
            "is written of the agent's own SVID only; leave it out, or set attestor: own",
        );
    }
    let format = log_format(raw.log_format.as_deref().unwrap_or_default(), faults);
    Some(Config {
        trust_domain: trust_domain?,
        ca: ca?,
        workload: workload?,
        attestor: attestor?,
        policies,
        admin_socket,
        metrics_listen: metrics_listen?,
        svid_ttl,
        jwt_svid_ttl,
        output,
        logs: (format, raw.log_filter.clone().unwrap_or_default()),
        drain: seconds(raw.drain),
        effective: raw.clone(),
    })
}

fn log_format(text: &str, faults: &mut Faults) -> LogFormat {
    match text {
        "json" => LogFormat::Json,
        "text" => LogFormat::Text,
        found => {
            faults.add(
                "log_format",
                format!("{found:?} is neither \"json\" nor \"text\""),
            );
            LogFormat::Json
        }
    }
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
pub(super) fn host_and_port(address: &str) -> Result<(String, u16), String> {
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
    Some(Workload {
        socket: raw.socket.clone()?,
        mode: mode?,
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
