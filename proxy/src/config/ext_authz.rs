//! Providers of CUSTOM policies, as written and as checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};
use signet_policy::program::MAX_PROVIDERS;
use signet_policy::scope::ProviderKind;
use signet_runtime::config::{Faults, HumanDuration};

use crate::outbound::Address;

/// A provider is beside us or one hop away, and a request waits for it: whoever needs longer says so.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
/// Questions at once. A slow provider holds no more requests than this.
const DEFAULT_CONCURRENT: usize = 512;
const MAX_CONCURRENT: usize = 100_000;
/// Most headers that a provider is limited to.
const MAX_HEADERS: usize = 128;

/// An entry of `ext_authz` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawProvider {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<RawProviderTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrent: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_headers: Option<Vec<String>>,
}

/// `tls` of a provider as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawProviderTls {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
}

/// A provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// The name by which policies mean it.
    pub name: String,
    /// Where it is.
    pub place: ProviderPlace,
    /// How long it may take.
    pub timeout: Duration,
    /// Most questions at once.
    pub concurrent: usize,
    /// The headers it is told of, in lower case; nothing for all of them.
    pub include_headers: Option<Vec<String>>,
}

/// Where a provider is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderPlace {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port` without TLS.
    Plaintext(String),
    /// `host:port` over TLS.
    Tls {
        /// Where.
        address: String,
        /// The name it must prove.
        server_name: String,
        /// Its CAs, in PEM; nothing for those of the machine.
        ca_file: Option<PathBuf>,
    },
}

pub(super) fn check(raw: &[RawProvider], faults: &mut Faults) -> Vec<ProviderConfig> {
    if raw.len() > MAX_PROVIDERS {
        faults.add(
            "ext_authz",
            format!("has {} providers, at most {MAX_PROVIDERS} are asked", raw.len()),
        );
    }
    let mut providers: Vec<ProviderConfig> = Vec::new();
    for one in raw.iter().take(MAX_PROVIDERS) {
        let key = format!("ext_authz {:?}", one.name);
        if one.name.is_empty() || providers.iter().any(|known| known.name == one.name) {
            faults.add(&key, "needs a name of its own");
        }
        providers.extend(provider(one, &key, faults));
    }
    providers
}

/// What policies are told of the providers.
pub(super) fn kinds(raw: &[RawProvider]) -> BTreeMap<String, ProviderKind> {
    raw.iter()
        .map(|one| (one.name.clone(), ProviderKind::Grpc))
        .collect()
}

fn provider(raw: &RawProvider, key: &str, faults: &mut Faults) -> Option<ProviderConfig> {
    match raw.protocol.as_deref() {
        None | Some("grpc") => {}
        Some("http") => {
            faults.add(
                key,
                "speaks http, and only gRPC providers are asked; serve envoy.service.auth.v3.Authorization",
            );
        }
        Some(other) => faults.add(key, format!("has protocol {other:?}; write grpc, or nothing")),
    }
    let timeout = raw.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
    if !TIMEOUTS.contains(&timeout) {
        faults.add(key, "has a timeout that is not between 1ms and 10m");
    }
    let concurrent = raw.concurrent.unwrap_or(DEFAULT_CONCURRENT);
    if !(1..=MAX_CONCURRENT).contains(&concurrent) {
        faults.add(key, format!("has concurrent outside of 1 to {MAX_CONCURRENT}"));
    }
    Some(ProviderConfig {
        name: raw.name.clone(),
        place: place(raw, key, faults)?,
        timeout,
        concurrent,
        include_headers: raw
            .include_headers
            .as_deref()
            .map(|names| headers(names, key, faults)),
    })
}

fn place(raw: &RawProvider, key: &str, faults: &mut Faults) -> Option<ProviderPlace> {
    let address = match (&raw.address, &raw.unix) {
        (Some(address), None) => address,
        (None, Some(path)) if raw.tls.is_none() => return Some(ProviderPlace::Unix(path.clone())),
        (None, Some(_)) => {
            faults.add(key, "has tls for a unix socket; remove tls");
            return None;
        }
        (Some(_), Some(_)) | (None, None) => {
            faults.add(key, "needs either address (host:port) or unix (a path)");
            return None;
        }
    };
    faults.parse::<Address>(key, address)?;
    let Some(tls) = &raw.tls else {
        return Some(ProviderPlace::Plaintext(address.clone()));
    };
    let host = address
        .rsplit_once(':')
        .map_or(address.as_str(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(ProviderPlace::Tls {
        address: address.clone(),
        server_name: tls.server_name.clone().unwrap_or_else(|| host.to_owned()),
        ca_file: tls.ca_file.clone(),
    })
}

fn headers(names: &[String], key: &str, faults: &mut Faults) -> Vec<String> {
    if names.len() > MAX_HEADERS {
        faults.add(key, format!("includes more than {MAX_HEADERS} headers"));
    }
    let mut read = Vec::new();
    for name in names.iter().take(MAX_HEADERS) {
        let lower = name.to_ascii_lowercase();
        match HeaderName::from_bytes(lower.trim_start_matches(':').as_bytes()) {
            Ok(_) => read.push(lower),
            Err(_) => faults.add(key, format!("includes {name:?}, which is no header's name")),
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Vec<ProviderConfig>, String> {
        let raw: Vec<RawProvider> = signet_runtime::config::from_text(yaml).map_err(|e| e.to_string())?;
        let mut faults = Faults::default();
        let providers = check(&raw, &mut faults);
        faults.finish(Some(providers)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_provider_is_named_and_has_one_place() {
        let read = read(
            "- {name: a, address: 'authz.test:9000', tls: {}}\n- {name: b, unix: /run/b.sock, timeout: 250ms, \
             concurrent: 8, include_headers: [Authorization, ':path']}\n- {name: c, address: '[::1]:9', protocol: grpc}",
        );
        let providers = read.unwrap();
        assert_eq!(
            providers[0].place,
            ProviderPlace::Tls {
                address: "authz.test:9000".into(),
                server_name: "authz.test".into(),
                ca_file: None
            }
        );
        assert_eq!(
            (providers[0].timeout, providers[0].concurrent),
            (DEFAULT_TIMEOUT, DEFAULT_CONCURRENT)
        );
        assert_eq!(
            providers[1].include_headers.as_deref().unwrap(),
            ["authorization", ":path"]
        );
        assert_eq!(providers[2].place, ProviderPlace::Plaintext("[::1]:9".into()));
    }

    #[test]
    fn a_provider_that_cannot_be_asked_is_refused_with_the_reason() {
        for (yaml, word) in [
            (
                "[{name: a, address: 'x:1', protocol: http}]",
                "only gRPC providers",
            ),
            ("[{name: a}]", "either address"),
            ("[{name: a, address: 'x:1', unix: /y}]", "either address"),
            ("[{name: a, unix: /y, tls: {}}]", "remove tls"),
            ("[{name: a, address: x}]", "ext_authz"),
            (
                "[{name: a, address: 'x:1'}, {name: a, address: 'y:1'}]",
                "name of its own",
            ),
            ("[{name: '', address: 'x:1'}]", "name of its own"),
            ("[{name: a, address: 'x:1', timeout: 0s}]", "timeout"),
            ("[{name: a, address: 'x:1', concurrent: 0}]", "concurrent"),
            (
                "[{name: a, address: 'x:1', include_headers: ['a b']}]",
                "no header's name",
            ),
            ("[{name: a, address: 'x:1', fail_open: true}]", "fail_open"),
        ] {
            let refused = read(yaml).unwrap_err();
            assert!(refused.contains(word), "{yaml}: {refused}");
        }
    }
}
