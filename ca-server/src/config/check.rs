//! From the file as written to a configuration that can be worked with: every fault at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use signet_certs::ServiceAccountId;
use signet_certs::lifetime::TtlBounds;
use signet_runtime::config::{ConfigFaults, Faults, HumanDuration};
use signet_runtime::logs::LogFormat;

use super::trust::RawTrust;
use super::{Config, Endpoints, Lifetimes, Limits, Publishing, Raw, StateAt};

/// Shortest life that may be configured; below it renewal and clock skew leave nothing.
const SHORTEST_TTL: Duration = Duration::from_secs(10);
/// Waiting for a place and for the answer may take this each, within the deadline of a whole call.
const REVIEW_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(9);
/// Younger connections cost more handshakes than they help.
const SHORTEST_AGE: Duration = Duration::from_secs(1);
/// The name Istio's clients dial unless told otherwise.
const ISTIO_NAMES: &[&str] = &["istiod.istio-system.svc"];

impl Config {
    /// Checks a raw configuration.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn check(raw: Raw) -> Result<Self, ConfigFaults> {
        let mut faults = Faults::default();
        let text = |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.into());
        let istio = raw.istio_compatibility.unwrap_or(false);
        let trust_domain = faults.parse("trust_domain", &text(&raw.trust_domain, "cluster.local"));
        let account = faults.parse(
            "service_account",
            &text(&raw.service_account, "signet-system/signet-ca"),
        );
        let node_accounts = node_accounts(raw.trusted_node_accounts.as_deref(), &mut faults);
        let state = state_at(&raw, &mut faults);
        let lifetimes = lifetimes(&raw, &mut faults);
        let logs = logs(&raw, &mut faults);
        let limits = limits(&raw, &mut faults);
        let trust = RawTrust {
            jwt_svid: raw.jwt_svid.clone(),
            oidc_listen: raw.oidc_listen.clone(),
            bundle_endpoint: raw.bundle_endpoint.clone(),
            federation: raw.federation.clone(),
        };
        let hint = lifetimes.as_ref().map(|l| l.refresh_hint);
        let trust = trust.check(trust_domain.as_ref(), hint, &mut faults);
        let endpoints = endpoints(&raw, istio, &mut faults);
        let names = endpoints.as_ref().map_or(&[][..], |e| &e.names);
        let extra_dns = extra_dns(raw.extra_dns_names.unwrap_or_default(), names, &mut faults);
        let mut audiences = raw.audiences.unwrap_or_else(|| vec!["signet-ca".into()]);
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            faults.add("audiences", "name at least one, and none that is empty");
        }
        let mut configmaps = vec![text(&raw.roots_configmap, "signet-ca-root-cert")];
        if istio {
            audiences.push("istio-ca".into());
            configmaps.push("istio-ca-root-cert".into());
        }
        audiences.dedup();
        let built = || {
            Some(Self {
                trust_domain: trust_domain?,
                account: account?,
                endpoints: endpoints?,
                audiences,
                node_accounts,
                kubeconfig: raw.kubeconfig,
                state: state?,
                plugged_in: raw.plugged_in_ca,
                lifetimes: lifetimes?,
                publishing: Publishing {
                    configmaps,
                    enabled: raw.publish_roots.unwrap_or(true),
                },
                extra_dns,
                limits,
                logs,
                drain: duration(raw.drain, 10),
                trust: trust?,
            })
        };
        let config = built();
        faults.finish(config)
    }
}

fn logs(raw: &Raw, faults: &mut Faults) -> (LogFormat, String) {
    let filter = raw.log_filter.clone().unwrap_or_else(|| "info".into());
    match raw.log_format.as_deref().unwrap_or("json") {
        "json" => (LogFormat::Json, filter),
        "text" => (LogFormat::Text, filter),
        other => {
            faults.add(
                "log_format",
                format!("{other:?} is neither \"json\" nor \"text\""),
            );
            (LogFormat::Json, filter)
        }
    }
}

fn limits(raw: &Raw, faults: &mut Faults) -> Limits {
    let mut bound = |key: &str, value: Option<usize>, default: usize| {
        let value = value.unwrap_or(default);
        if value == 0 {
            faults.add(key, "must be at least 1");
        }
        value
    };
    let review_timeout = duration(raw.review_timeout, 5);
    let connections = bound("connections", raw.connections, 10_000);
    let connection_age = duration(raw.connection_age, 1_800);
    let limits = Limits {
        review_timeout,
        reviews: bound("reviews_in_flight", raw.reviews_in_flight, 32),
        requests: bound("requests_in_flight", raw.requests_in_flight, 512),
        connections,
        connections_per_address: bound(
            "connections_per_address",
            raw.connections_per_address,
            (connections / 4).max(1),
        ),
        connection_age,
    };
    if connection_age < SHORTEST_AGE {
        let least = HumanDuration(SHORTEST_AGE);
        faults.add("connection_age", format!("must be at least {least}"));
    }
    if !REVIEW_TIMEOUTS.contains(&review_timeout) {
        let (least, most) = (
            HumanDuration(*REVIEW_TIMEOUTS.start()),
            HumanDuration(*REVIEW_TIMEOUTS.end()),
        );
        faults.add("review_timeout", format!("must be between {least} and {most}"));
    }
    limits
}

fn duration(value: Option<HumanDuration>, default_seconds: u64) -> Duration {
    value.map_or(Duration::from_secs(default_seconds), |d| d.0)
}

/// Each as `namespace/name`; one that cannot be read fails the file, since leaving it out would be as
/// wrong as guessing it.
fn node_accounts(raw: Option<&[String]>, faults: &mut Faults) -> BTreeSet<ServiceAccountId> {
    let mut accounts = BTreeSet::new();
    for text in raw.unwrap_or_default() {
        if let Some(account) = faults.parse("trusted_node_accounts", text)
            && !accounts.insert(account)
        {
            faults.add("trusted_node_accounts", format!("{text:?} is named twice"));
        }
    }
    accounts
}

fn state_at(raw: &Raw, faults: &mut Faults) -> Option<StateAt> {
    match (&raw.state_directory, &raw.state_secret) {
        (Some(path), None) => Some(StateAt::Directory(path.clone())),
        (None, Some(secret)) => match secret.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Some(StateAt::Secret {
                namespace: namespace.into(),
                name: name.into(),
            }),
            _ => {
                faults.add(
                    "state_secret",
                    format!("{secret:?} is not of the form \"namespace/name\""),
                );
                None
            }
        },
        _ => {
            faults.add(
                "state_directory",
                "say where the root is kept: either state_directory (one machine) or state_secret (a cluster)",
            );
            None
        }
    }
}

fn lifetimes(raw: &Raw, faults: &mut Faults) -> Option<Lifetimes> {
    const DAY: u64 = 86_400;
    let max = duration(raw.max_svid_ttl, DAY);
    let default = raw.svid_ttl.map_or(max.min(Duration::from_secs(DAY)), |d| d.0);
    let min = raw
        .min_svid_ttl
        .map_or(default.min(Duration::from_secs(60)), |d| d.0);
    let issuing = duration(raw.issuing_life, 14 * DAY);
    let root = duration(raw.root_life, 3650 * DAY);
    let show = HumanDuration;
    let mut good = true;
    let mut demand = |holds: bool, key: &str, fault: String| {
        if !holds {
            faults.add(key, fault);
            good = false;
        }
    };
    demand(
        min >= SHORTEST_TTL,
        "min_svid_ttl",
        format!("{} is below the least, {}", show(min), show(SHORTEST_TTL)),
    );
    demand(
        default >= min,
        "svid_ttl",
        format!("{} is below min_svid_ttl, {}", show(default), show(min)),
    );
    demand(
        default <= max,
        "svid_ttl",
        format!("{} is above max_svid_ttl, {}", show(default), show(max)),
    );
    demand(
        max <= issuing / 2,
        "max_svid_ttl",
        format!(
            "{} is above half of issuing_life, {}; an SVID must end before the authority that signed it, \
             which is renewed at half its life",
            show(max),
            show(issuing)
        ),
    );
    demand(
        issuing <= root / 2,
        "issuing_life",
        format!("{} is above half of root_life, {}", show(issuing), show(root)),
    );
    let refresh_hint = duration(raw.bundle_refresh_hint, 300);
    good.then_some(Lifetimes {
        svid: TtlBounds { min, default, max },
        issuing,
        root,
        refresh_hint,
    })
}

fn endpoints(raw: &Raw, istio: bool, faults: &mut Faults) -> Option<Endpoints> {
    let grpc = faults.parse("listen", raw.listen.as_deref().unwrap_or("0.0.0.0:15012"));
    let metrics = faults.parse(
        "metrics_listen",
        raw.metrics_listen.as_deref().unwrap_or("0.0.0.0:15014"),
    );
    let own = [
        "signet-ca.signet-system.svc",
        "signet-ca.signet-system.svc.cluster.local",
    ];
    let mut names = raw
        .serving_names
        .clone()
        .unwrap_or_else(|| own.iter().map(|n| (*n).to_owned()).collect());
    if istio {
        for name in ISTIO_NAMES
            .iter()
            .filter(|name| !names.iter().any(|n| n == *name))
            .collect::<Vec<_>>()
        {
            names.push((*name).to_owned());
        }
    }
    if names.is_empty() {
        faults.add("serving_names", "name at least one; agents check the CA by it");
    }
    for name in &names {
        check_dns("serving_names", name, faults);
    }
    let admin = raw
        .admin_socket
        .clone()
        .unwrap_or_else(|| PathBuf::from("/run/signet/admin/admin.sock"));
    Some(Endpoints {
        grpc: grpc?,
        metrics: metrics?,
        admin,
        names,
    })
}

fn check_dns(key: &str, name: &str, faults: &mut Faults) {
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        faults.add(key, format!("{name:?} is not an exact, lower-case DNS name"));
    }
}

fn extra_dns(
    raw: BTreeMap<String, Vec<String>>,
    serving: &[String],
    faults: &mut Faults,
) -> BTreeMap<ServiceAccountId, Vec<String>> {
    let mut checked = BTreeMap::new();
    for (account, names) in raw {
        for name in &names {
            check_dns("extra_dns_names", name, faults);
            if serving.contains(name) {
                faults.add(
                    "extra_dns_names",
                    format!(
                        "{name:?} for {account} is a serving name of the CA itself; nobody else may have it"
                    ),
                );
            }
        }
        if let Some(account) = faults.parse("extra_dns_names", &account) {
            checked.insert(account, names);
        }
    }
    checked
}
