//! From the configuration as written to the one in force, every fault told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_certs::TrustDomain;
use signet_policy::scope::Role;
use signet_policy::{Mesh, Normalization, Workload, principal::LocalDomains};
use signet_runtime::config::{Faults, HumanDuration};
use signet_runtime::logs::LogFormat;

use crate::probes::RawProbes;

use super::{
    AccessLog, Config, Local, PolicySource, Raw, RawPolicies, RawWorkload, Reach, ext_authz, listeners,
};

/// Most listeners of one direction.
const MAX_LISTENERS: usize = 256;
/// Most threads.
const MAX_WORKERS: u8 = 64;

/// Every key that has a default gets it.
pub(super) fn with_defaults(raw: Raw) -> Raw {
    let text = |value: Option<String>, default: &str| Some(value.unwrap_or_else(|| default.to_owned()));
    Raw {
        trust_domain: text(raw.trust_domain, "cluster.local"),
        trust_domain_aliases: Some(raw.trust_domain_aliases.unwrap_or_default()),
        root_namespace: text(raw.root_namespace, "istio-system"),
        agent_socket: Some(
            raw.agent_socket
                .unwrap_or_else(|| PathBuf::from("/run/signet/workload/agent.sock")),
        ),
        inbound: Some(raw.inbound.unwrap_or_default()),
        outbound: Some(raw.outbound.unwrap_or_default()),
        destinations: Some(raw.destinations.unwrap_or_default()),
        default_outbound: text(raw.default_outbound, "refuse"),
        probes: raw.probes.map(RawProbes::with_defaults),
        path_normalization: text(raw.path_normalization, "BASE"),
        jwt: Some(raw.jwt.unwrap_or_default()),
        ext_authz: Some(raw.ext_authz.unwrap_or_default()),
        tls12: Some(raw.tls12.unwrap_or(false)),
        close_on_expiry: Some(raw.close_on_expiry.unwrap_or(false)),
        limits: Some(raw.limits.unwrap_or_default().with_defaults()),
        access_log: text(raw.access_log, "all"),
        admin_listen: text(raw.admin_listen, "127.0.0.1:15000"),
        metrics_listen: text(raw.metrics_listen, "0.0.0.0:15090"),
        workers: Some(raw.workers.unwrap_or(2)),
        log_format: text(raw.log_format, "json"),
        log_filter: text(raw.log_filter, "info"),
        drain: Some(raw.drain.unwrap_or(HumanDuration(Duration::from_secs(5)))),
        ..raw
    }
}

pub(super) fn typed(raw: &Raw, faults: &mut Faults) -> Option<Config> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let trust_domain: Option<TrustDomain> = faults.parse("trust_domain", &text(&raw.trust_domain));
    let mesh = trust_domain.as_ref().map(|own| mesh(raw, own, faults));
    let policies = policies(raw.policies.as_ref(), faults);
    let local = local(raw.workload.as_ref(), policies.as_ref());
    let inbound = listeners::inbound(raw.inbound.as_deref().unwrap_or_default(), faults);
    let outbound = listeners::outbound(raw.outbound.as_deref().unwrap_or_default(), faults);
    for (key, count) in [("inbound", inbound.len()), ("outbound", outbound.len())] {
        if count > MAX_LISTENERS {
            faults.add(
                key,
                format!("has {count} listeners, at most {MAX_LISTENERS} are served"),
            );
        }
    }
    let destinations = listeners::destinations(raw.destinations.as_deref().unwrap_or_default(), faults);
    let reach = word("default_outbound", &text(&raw.default_outbound), REACH, faults);
    let capture = raw.capture.as_ref().map(|raw| listeners::capture(raw, faults));
    let admin_listen = admin(&text(&raw.admin_listen), faults);
    if let Some(socket) = &raw.admin_socket {
        private(socket, raw.agent_socket.as_deref(), faults);
    }
    let metrics_listen = faults.parse("metrics_listen", &text(&raw.metrics_listen));
    let pages = [admin_listen, metrics_listen].into_iter().flatten();
    let captures = capture
        .iter()
        .flat_map(|capture| [capture.inbound, capture.outbound]);
    let taken = pages
        .chain(captures.flatten())
        .chain(inbound.iter().map(|one| one.listen));
    let taken: Vec<u16> = taken.map(|address: SocketAddr| address.port()).collect();
    let probes = raw.probes.as_ref().and_then(|raw| raw.check(&taken, faults));
    let named = text(&raw.path_normalization);
    let normalization: Option<Normalization> = faults.parse("path_normalization", &named);
    let key_fetching = key_fetching(raw, faults);
    let ext_authz = ext_authz::check(raw.ext_authz.as_deref().unwrap_or_default(), faults);
    let limits = raw.limits.clone().unwrap_or_default().check(faults);
    let access_log = word("access_log", &text(&raw.access_log), ACCESS_LOG, faults);
    let workers = raw.workers.unwrap_or_default();
    if !(1..=MAX_WORKERS).contains(&workers) {
        faults.add("workers", format!("must be between 1 and {MAX_WORKERS}"));
    }
    let format = word("log_format", &text(&raw.log_format), LOG_FORMAT, faults);
    Some(Config {
        trust_domain: trust_domain?,
        agent_socket: raw.agent_socket.clone()?,
        mesh: mesh?,
        policies: policies?,
        local,
        inbound,
        outbound,
        capture,
        probes,
        destinations: (destinations, reach?),
        normalization: normalization?,
        key_fetching,
        ext_authz,
        tls12: raw.tls12.unwrap_or(false),
        close_on_expiry: raw.close_on_expiry.unwrap_or(false),
        limits,
        access_log: access_log?,
        admin_listen: admin_listen?,
        admin_socket: raw.admin_socket.clone(),
        metrics_listen: metrics_listen?,
        workers,
        logs: (format?, text(&raw.log_filter)),
        drain: raw.drain.map_or(Duration::ZERO, |drain| drain.0),
        effective: raw.clone(),
    })
}

const REACH: &[(&str, Reach)] = &[("refuse", Reach::Refuse), ("plaintext", Reach::Plaintext)];
const ACCESS_LOG: &[(&str, AccessLog)] = &[
    ("all", AccessLog::All),
    ("refused", AccessLog::Refused),
    ("off", AccessLog::Off),
];
const LOG_FORMAT: &[(&str, LogFormat)] = &[("json", LogFormat::Json), ("text", LogFormat::Text)];

fn word<T: Copy>(key: &str, text: &str, words: &[(&str, T)], faults: &mut Faults) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        faults.add(key, format!("{text:?} is none of {}", all.join(", ")));
    }
    found.map(|(_, value)| *value)
}

fn mesh(raw: &Raw, own: &TrustDomain, faults: &mut Faults) -> Mesh {
    let names = raw.trust_domain_aliases.iter().flatten();
    let aliases: Vec<TrustDomain> = names
        .filter_map(|name| faults.parse("trust_domain_aliases", name))
        .collect();
    Mesh {
        domains: LocalDomains::new(own.clone(), aliases),
        root_namespace: raw.root_namespace.clone().unwrap_or_default(),
        providers: ext_authz::kinds(raw.ext_authz.as_deref().unwrap_or_default()),
    }
}

fn key_fetching(raw: &Raw, faults: &mut Faults) -> super::KeyFetching {
    let jwt = raw.jwt.clone().unwrap_or_default();
    if matches!(raw.policies, Some(RawPolicies::Word(_))) && !jwt.is_empty() {
        faults.add(
            "jwt",
            "has no effect with policies: agent; the agent fetches the keys, as policies.jwt says in its configuration",
        );
    }
    jwt.check(faults)
}

fn policies(raw: Option<&RawPolicies>, faults: &mut Faults) -> Option<PolicySource> {
    match raw {
        None => {
            faults.add(
                "policies",
                "write agent, or directory and namespace; nothing passes without policies",
            );
            None
        }
        Some(RawPolicies::Word(word)) if word == "agent" => Some(PolicySource::Agent),
        Some(RawPolicies::Word(word)) => {
            faults.add(
                "policies",
                format!("{word:?} is not agent; for files write directory and namespace"),
            );
            None
        }
        Some(RawPolicies::Files(files)) => {
            if files.namespace.is_empty() {
                faults.add("policies.namespace", "is empty");
            }
            Some(PolicySource::Files {
                directory: files.directory.clone(),
                workload: Workload {
                    namespace: files.namespace.clone(),
                    labels: files.labels.clone(),
                    role: Role::Sidecar,
                },
            })
        }
    }
}

fn local(raw: Option<&RawWorkload>, policies: Option<&PolicySource>) -> Local {
    let raw = raw.cloned().unwrap_or_default();
    let (namespace, app, version) = match policies {
        Some(PolicySource::Files { workload, .. }) => {
            let label = |name: &str| workload.labels.get(name).cloned();
            (Some(workload.namespace.clone()), label("app"), label("version"))
        }
        _ => (None, None, None),
    };
    Local {
        name: raw.name,
        namespace: raw.namespace.or(namespace),
        service: raw.service,
        app: raw.app.or(app),
        version: raw.version.or(version),
        cluster: raw.cluster,
    }
}

/// The application shares the loopback of its pod, and nobody else may ask.
fn admin(text: &str, faults: &mut Faults) -> Option<SocketAddr> {
    let address: SocketAddr = faults.parse("admin_listen", text)?;
    if !address.ip().is_loopback() {
        faults.add(
            "admin_listen",
            format!("{address} is not on loopback, as 127.0.0.1:15000 is"),
        );
    }
    Some(address)
}

/// The directory of the admin socket is made private, which the one that others mount must not be.
fn private(socket: &Path, agent: Option<&Path>, faults: &mut Faults) {
    let key = "admin_socket";
    if !socket.is_absolute() {
        faults.add(key, "must be an absolute path");
    }
    if agent.is_some_and(|agent| agent.parent() == socket.parent()) {
        faults.add(
            key,
            "must not be in the directory of agent_socket, which other containers mount",
        );
    }
}
