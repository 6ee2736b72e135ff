//! `probes` of the configuration, as written and as checked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderValue;
use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};
use signet_runtime::config::{Faults, HumanDuration};

/// Istio's port for the health of a sidecar, which network policies may know.
const LISTEN: &str = "0.0.0.0:15021";
/// Most checks: three kinds of probe for each of a few containers.
const MAX_CHECKS: usize = 32;
/// Longest path or name.
const MAX_NAME: usize = 256;
/// Kubelet's own default.
const TIMEOUT: Duration = Duration::from_secs(1);
const LEAST_TIMEOUT: Duration = Duration::from_millis(10);
const MOST_TIMEOUT: Duration = Duration::from_secs(60);

/// `probes` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawProbes {
    listen: Option<String>,
    #[serde(default)]
    checks: Vec<RawCheck>,
}

/// An element of `probes.checks` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<RawHttp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<RawTcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<RawGrpc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<HumanDuration>,
}

/// `http` of a check as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
}

/// `tcp` of a check as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawTcp {
    port: u16,
}

/// `grpc` of a check as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawGrpc {
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
}

/// Where probes are answered, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// The port.
    pub listen: SocketAddr,
    /// The checks.
    pub checks: Vec<ProbeCheck>,
}

/// A path, and what is asked in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeCheck {
    /// What kubelet asks for.
    pub path: String,
    /// What the application is asked.
    pub asked: Asked,
    /// The application's port.
    pub port: u16,
    /// How long it may take, the dial included.
    pub timeout: Duration,
}

/// How the application is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Whether it answers a GET with 200 to 399.
    Http(HttpProbe),
    /// Whether it takes a connection.
    Tcp,
    /// Whether it says that this service is serving (`grpc.health.v1.Health/Check`).
    Grpc(String),
}

/// A GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Path and query.
    pub path: PathAndQuery,
    /// `Host`; nothing for the address and port that are dialled.
    pub host: Option<HeaderValue>,
}

impl RawProbes {
    /// With the defaults written out.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        Self {
            listen: Some(self.listen.unwrap_or_else(|| LISTEN.to_owned())),
            ..self
        }
    }

    /// Checks it. `taken` are the ports on which the proxy listens already.
    pub fn check(&self, taken: &[u16], faults: &mut Faults) -> Option<Probes> {
        let listen: SocketAddr = faults.parse("probes.listen", self.listen.as_deref().unwrap_or(LISTEN))?;
        if self.checks.is_empty() || self.checks.len() > MAX_CHECKS {
            faults.add("probes.checks", format!("must have 1 to {MAX_CHECKS} elements"));
        }
        let mut paths = BTreeSet::new();
        let mut checks = Vec::with_capacity(self.checks.len());
        for (at, raw) in self.checks.iter().enumerate() {
            let key = |name: &str| format!("probes.checks[{at}].{name}");
            if !paths.insert(raw.path.as_str()) {
                faults.add(&key("path"), format!("{:?} is there twice", raw.path));
            }
            let Some(check) = raw.check(&key, faults) else {
                continue;
            };
            // One that asks a port of ours would ask itself, or pass for the application.
            if check.port == listen.port() || taken.contains(&check.port) {
                let fault = format!("{} is the proxy's own port, not the application's", check.port);
                faults.add(&key("port"), fault);
            }
            checks.push(check);
        }
        Some(Probes { listen, checks })
    }
}

impl RawCheck {
    fn check(&self, key: &dyn Fn(&str) -> String, faults: &mut Faults) -> Option<ProbeCheck> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        if !self.path.starts_with('/') || self.path.len() > MAX_NAME || !self.path.chars().all(plain) {
            let fault = format!("{:?} is no path of letters, digits, - . _ ~ and /", self.path);
            faults.add(&key("path"), fault);
        }
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        if !(LEAST_TIMEOUT..=MOST_TIMEOUT).contains(&timeout) {
            faults.add(&key("timeout"), "must be between 10ms and 1m");
        }
        let (asked, port) = match (&self.http, &self.tcp, &self.grpc) {
            (Some(http), None, None) => (Asked::Http(http.check(key, faults)?), http.port),
            (None, Some(tcp), None) => (Asked::Tcp, tcp.port),
            (None, None, Some(grpc)) => (Asked::Grpc(grpc.check(key, faults)), grpc.port),
            _ => {
                faults.add(&key("http"), "write one of http, tcp and grpc");
                return None;
            }
        };
        if port == 0 {
            faults.add(&key("port"), "must be other than 0");
        }
        Some(ProbeCheck {
            path: self.path.clone(),
            asked,
            port,
            timeout,
        })
    }
}

impl RawHttp {
    fn check(&self, key: &dyn Fn(&str) -> String, faults: &mut Faults) -> Option<HttpProbe> {
        let text = self.path.as_deref().unwrap_or("/");
        let path = PathAndQuery::try_from(text).ok();
        let path = path.filter(|path| text.starts_with('/') && path.as_str().len() <= MAX_NAME);
        if path.is_none() {
            faults.add(
                &key("http.path"),
                format!("{text:?} is no path that begins with /"),
            );
        }
        let host = self.host.as_deref().map(HeaderValue::from_str);
        if host.as_ref().is_some_and(|host| host.is_err()) {
            faults.add(&key("http.host"), "cannot stand in a header");
        }
        Some(HttpProbe {
            path: path?,
            host: host.and_then(Result::ok),
        })
    }
}

impl RawGrpc {
    fn check(&self, key: &dyn Fn(&str) -> String, faults: &mut Faults) -> String {
        let service = self.service.clone().unwrap_or_default();
        if service.len() > MAX_NAME {
            faults.add(&key("grpc.service"), format!("has more than {MAX_NAME} bytes"));
        }
        service
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<Probes, String> {
        let raw: RawProbes = serde_saphyr::from_str(yaml).map_err(|e| e.to_string())?;
        let mut faults = Faults::default();
        let probes = raw.with_defaults().check(&[15090], &mut faults);
        faults.finish(probes).map_err(|faults| faults.to_string())
    }

    #[test]
    fn each_way_of_asking_is_read_with_kubelets_own_defaults() {
        let probes = check(
            "checks: [{path: /live, http: {port: 8080, path: '/healthz?x=1', host: a.test}}, \
             {path: /ready, grpc: {port: 9, service: a.B}, timeout: 3s}, {path: /started, tcp: {port: 7}}]",
        )
        .unwrap();
        assert_eq!(probes.listen.to_string(), LISTEN);
        let [live, ready, started] = &probes.checks[..] else {
            panic!("{probes:?}")
        };
        let Asked::Http(asked) = &live.asked else {
            panic!("{live:?}")
        };
        assert_eq!((asked.path.as_str(), live.timeout), ("/healthz?x=1", TIMEOUT));
        assert_eq!(asked.host.as_ref().unwrap(), "a.test");
        assert_eq!(
            (&ready.asked, ready.timeout),
            (&Asked::Grpc("a.B".into()), Duration::from_secs(3))
        );
        assert_eq!((&started.asked, started.port), (&Asked::Tcp, 7));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_its_place() {
        for (yaml, expected) in [
            ("checks: []", "probes.checks: must have 1"),
            (
                "checks: [{path: /a, tcp: {port: 0}}]",
                "probes.checks[0].port: must be other than 0",
            ),
            ("checks: [{path: a, tcp: {port: 1}}]", "probes.checks[0].path"),
            (
                "checks: [{path: '/a?b', tcp: {port: 1}}]",
                "probes.checks[0].path",
            ),
            (
                "checks: [{path: /a, tcp: {port: 1}}, {path: /a, tcp: {port: 2}}]",
                "probes.checks[1].path: \"/a\" is there twice",
            ),
            ("checks: [{path: /a}]", "write one of http, tcp and grpc"),
            (
                "checks: [{path: /a, tcp: {port: 1}, grpc: {port: 1}}]",
                "write one of http, tcp and grpc",
            ),
            (
                "checks: [{path: /a, http: {port: 1, path: x}}]",
                "probes.checks[0].http.path",
            ),
            (
                "checks: [{path: /a, http: {port: 1, host: \"a\\nb\"}}]",
                "probes.checks[0].http.host",
            ),
            (
                "checks: [{path: /a, tcp: {port: 1}, timeout: 2m}]",
                "probes.checks[0].timeout",
            ),
            (
                "checks: [{path: /a, tcp: {port: 15021}}]",
                "15021 is the proxy's own port",
            ),
            (
                "checks: [{path: /a, tcp: {port: 15090}}]",
                "15090 is the proxy's own port",
            ),
            (
                "checks: [{path: /a, http: {port: 1, address: 10.0.0.1}}]",
                "address",
            ),
        ] {
            let fault = check(yaml).unwrap_err();
            assert!(fault.contains(expected), "{yaml}: {fault}");
        }
    }
}
