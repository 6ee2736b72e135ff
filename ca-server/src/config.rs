//! The configuration file: `Raw` as written, [`Config`] as checked.

mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use signet_certs::lifetime::TtlBounds;
use signet_certs::{ServiceAccountId, TrustDomain};
use signet_runtime::config::{ConfigFaults, Faults, HumanDuration, load};
use signet_runtime::logs::LogFormat;

use trust::RawTrust;
pub use trust::{
    BundleEndpoint, EndpointProfile, Federated, ForeignSource, JwtSettings, RawEndpoint, RawFederated,
    RawJwt, TrustSettings,
};

/// Shortest life that may be configured; below it renewal and clock skew leave nothing.
const SHORTEST_TTL: Duration = Duration::from_secs(10);
/// Waiting for a place and for the answer may take this each, within the deadline of a whole call.
const REVIEW_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(9);
/// The name Istio's clients dial unless told otherwise.
const ISTIO_NAMES: &[&str] = &["istiod.istio-system.svc"];

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
        let logs = match text(&raw.log_format, "json").as_str() {
            "json" => (LogFormat::Json, text(&raw.log_filter, "info")),
            "text" => (LogFormat::Text, text(&raw.log_filter, "info")),
            other => {
                faults.add(
                    "log_format",
                    format!("{other:?} is neither \"json\" nor \"text\""),
                );
                (LogFormat::Json, String::new())
            }
        };
        let mut bound = |key: &str, value: Option<usize>, default: usize| {
            let value = value.unwrap_or(default);
            if value == 0 {
                faults.add(key, "must be at least 1");
            }
            value
        };
        let review_timeout = duration(raw.review_timeout, 5);
        let limits = Limits {
            review_timeout,
            reviews: bound("reviews_in_flight", raw.reviews_in_flight, 32),
            requests: bound("requests_in_flight", raw.requests_in_flight, 512),
            connections: bound("connections", raw.connections, 10_000),
        };
        if !REVIEW_TIMEOUTS.contains(&review_timeout) {
            let (least, most) = (
                HumanDuration(*REVIEW_TIMEOUTS.start()),
                HumanDuration(*REVIEW_TIMEOUTS.end()),
            );
            faults.add("review_timeout", format!("must be between {least} and {most}"));
        }
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

    /// The configuration in force as YAML, defaults included. It holds no secrets.
    #[must_use]
    pub fn print(&self) -> String {
        let human = |d: Duration| Some(HumanDuration(d));
        let (directory, secret) = match &self.state {
            StateAt::Directory(path) => (Some(path.clone()), None),
            StateAt::Secret { namespace, name } => (None, Some(format!("{namespace}/{name}"))),
        };
        let trust = self.trust.raw();
        let raw = Raw {
            trust_domain: Some(self.trust_domain.to_string()),
            service_account: Some(self.account.to_string()),
            listen: Some(self.endpoints.grpc.to_string()),
            metrics_listen: Some(self.endpoints.metrics.to_string()),
            admin_socket: Some(self.endpoints.admin.clone()),
            serving_names: Some(self.endpoints.names.clone()),
            audiences: Some(self.audiences.clone()),
            istio_compatibility: Some(self.publishing.configmaps.len() > 1),
            trusted_node_accounts: Some(self.node_accounts.iter().map(ToString::to_string).collect()),
            kubeconfig: self.kubeconfig.clone(),
            state_directory: directory,
            state_secret: secret,
            plugged_in_ca: self.plugged_in.clone(),
            svid_ttl: human(self.lifetimes.svid.default),
            max_svid_ttl: human(self.lifetimes.svid.max),
            min_svid_ttl: human(self.lifetimes.svid.min),
            issuing_life: human(self.lifetimes.issuing),
            root_life: human(self.lifetimes.root),
            bundle_refresh_hint: human(self.lifetimes.refresh_hint),
            roots_configmap: self.publishing.configmaps.first().cloned(),
            publish_roots: Some(self.publishing.enabled),
            extra_dns_names: Some(
                self.extra_dns
                    .iter()
                    .map(|(a, n)| (a.to_string(), n.clone()))
                    .collect(),
            ),
            review_timeout: human(self.limits.review_timeout),
            reviews_in_flight: Some(self.limits.reviews),
            requests_in_flight: Some(self.limits.requests),
            connections: Some(self.limits.connections),
            log_format: Some(
                if self.logs.0 == LogFormat::Json {
                    "json"
                } else {
                    "text"
                }
                .into(),
            ),
            log_filter: Some(self.logs.1.clone()),
            drain: human(self.drain),
            jwt_svid: trust.jwt_svid,
            oidc_listen: trust.oidc_listen,
            bundle_endpoint: trust.bundle_endpoint,
            federation: trust.federation,
        };
        let mut value = serde_json::to_value(raw).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.retain(|_, v| !v.is_null());
        }
        signet_runtime::config::to_yaml(&value)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use signet_runtime::config::from_text;

    fn check(text: &str) -> Result<Config, String> {
        Config::check(from_text(text).map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    }

    #[test]
    fn the_least_configuration_says_only_where_the_root_is_kept() {
        let config = check("state_directory: /var/lib/signet\n").unwrap();
        assert_eq!(config.lifetimes.svid.default, Duration::from_secs(86_400));
        assert_eq!(config.audiences, ["signet-ca"]);
        assert_eq!(check(&config.print()).unwrap().print(), config.print());
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = check(
            "trust_domain: Cluster.Local\nlisten: nowhere\nsvid_ttl: 48h\nmax_svid_ttl: 24h\nreviews_in_flight: 0\n",
        )
        .unwrap_err();
        for part in [
            "5 faults",
            "trust_domain: \"Cluster.Local\": trust domain may hold only",
            "listen: \"nowhere\"",
            "svid_ttl: 2d is above max_svid_ttl, 1d",
            "reviews_in_flight: must be at least 1",
            "state_directory: say where the root is kept",
        ] {
            assert!(faults.contains(part), "{part} is missing in\n{faults}");
        }
    }

    #[test]
    fn an_svid_may_not_outlive_half_of_its_issuer() {
        let text = "state_directory: /x\nissuing_life: 36h\n";
        assert!(
            check(text)
                .unwrap_err()
                .contains("max_svid_ttl: 1d is above half of issuing_life, 1d12h")
        );
    }

    #[test]
    fn nobody_gets_a_serving_name_of_the_ca() {
        let text =
            "state_directory: /x\nextra_dns_names: {shop/cart: [signet-ca.signet-system.svc, cart.shop]}\n";
        let faults = check(text).unwrap_err();
        assert!(
            faults.contains("is a serving name of the CA itself; nobody else may have it"),
            "{faults}"
        );
    }

    #[test]
    fn node_accounts_are_none_unless_named_and_each_must_be_one() {
        assert!(check("state_directory: /x\n").unwrap().node_accounts.is_empty());
        let config =
            check("state_directory: /x\ntrusted_node_accounts: [signet-system/signet-agent]\n").unwrap();
        assert_eq!(config.node_accounts.len(), 1);
        assert_eq!(
            check(&config.print()).unwrap().node_accounts,
            config.node_accounts
        );
        let text = "state_directory: /x\ntrusted_node_accounts: [a/b, a/b, '*/ztunnel', ztunnel, a/b/c]\n";
        let faults = check(text).unwrap_err();
        assert!(
            faults.contains("4 faults") && faults.contains("named twice"),
            "{faults}"
        );
    }

    #[test]
    fn istio_compatibility_adds_its_audience_name_and_configmap_and_prints_stably() {
        let config = check("state_secret: a/b\nistio_compatibility: true\n").unwrap();
        assert_eq!(config.audiences, ["signet-ca", "istio-ca"]);
        assert!(
            config
                .endpoints
                .names
                .contains(&"istiod.istio-system.svc".to_owned())
        );
        assert_eq!(
            config.publishing.configmaps,
            ["signet-ca-root-cert", "istio-ca-root-cert"]
        );
        assert_eq!(check(&config.print()).unwrap().print(), config.print());
    }
}
