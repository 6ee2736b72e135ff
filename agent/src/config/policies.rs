//! Where policies for local proxies come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use signet_certs::TrustDomain;
use signet_policy::DialRules;
use signet_policy::address::Block;
use signet_runtime::config::Faults;

use super::{Raw, attestor};
use crate::policy::issuers::KeyFetching;
use crate::policy::{Settings, Source};

/// Most aliases of the trust domain.
const MAX_ALIASES: usize = 64;
/// Longest name of a namespace.
const MAX_NAMESPACE_BYTES: usize = 63;
/// Where Istio keeps what is for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";

/// `policies` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawPolicies {
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<PathBuf>,
    root_namespace: Option<String>,
    trust_domain_aliases: Option<Vec<String>>,
    jwt: Option<RawTokens>,
}

/// `policies.jwt` as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawTokens {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    blocked_cidrs: Vec<String>,
    #[serde(default)]
    allowed_cidrs: Vec<String>,
}

impl RawPolicies {
    /// Whether the API server is the source.
    pub(super) fn is_kubernetes(&self) -> bool {
        self.source == "kubernetes"
    }

    /// With its defaults.
    pub(super) fn with_defaults(self) -> Self {
        Self {
            root_namespace: Some(self.root_namespace.unwrap_or_else(|| ROOT_NAMESPACE.to_owned())),
            trust_domain_aliases: Some(self.trust_domain_aliases.unwrap_or_default()),
            jwt: Some(self.jwt.unwrap_or_default()),
            ..self
        }
    }
}

/// The settings, if policies are followed at all.
pub(super) fn settings(raw: &Raw, faults: &mut Faults) -> Option<Settings> {
    let written = raw.policies.as_ref()?;
    let attestor = raw.attestor.as_deref().unwrap_or_default();
    if attestor == attestor::OWN {
        faults.add(
            "policies",
            "need to know which workload a proxy is of; set attestor: kubernetes or unix, or give the proxy a directory",
        );
    }
    let source = source(written, attestor, raw.kubeconfig.clone(), faults);
    let root_namespace = written.root_namespace.clone().unwrap_or_default();
    if root_namespace.is_empty() || root_namespace.len() > MAX_NAMESPACE_BYTES {
        faults.add(
            "policies.root_namespace",
            format!("must have 1 to {MAX_NAMESPACE_BYTES} bytes"),
        );
    }
    let aliases = aliases(
        written.trust_domain_aliases.as_deref().unwrap_or_default(),
        faults,
    );
    let keys = keys(&written.jwt.clone().unwrap_or_default(), faults);
    Some(Settings {
        source: source?,
        root_namespace,
        aliases,
        keys,
    })
}

fn keys(written: &RawTokens, faults: &mut Faults) -> KeyFetching {
    if written.ca_file.as_ref().is_some_and(|path| !path.is_absolute()) {
        faults.add("policies.jwt.ca_file", "must be an absolute path");
    }
    let mut blocks = |key: &str, texts: &[String]| {
        let blocks = texts.iter().filter_map(|text| faults.parse::<Block>(key, text));
        blocks.collect()
    };
    KeyFetching {
        dial: DialRules {
            blocked: blocks("policies.jwt.blocked_cidrs", &written.blocked_cidrs),
            allowed: blocks("policies.jwt.allowed_cidrs", &written.allowed_cidrs),
        },
        ca_file: written.ca_file.clone(),
    }
}

fn source(
    written: &RawPolicies,
    attestor: &str,
    kubeconfig: Option<PathBuf>,
    faults: &mut Faults,
) -> Option<Source> {
    match (written.source.as_str(), &written.directory) {
        ("kubernetes", None) => {
            if attestor == attestor::UNIX && kubeconfig.is_none() {
                faults.add(
                    "policies.source",
                    "kubernetes with attestor: unix needs kubeconfig; set it, or source: directory",
                );
            }
            Some(Source::Kubernetes { kubeconfig })
        }
        ("kubernetes", Some(_)) => {
            faults.add("policies.directory", "has no effect with source: kubernetes");
            None
        }
        ("directory", Some(directory)) => {
            if !directory.is_absolute() {
                let text = format!("{} must be an absolute path", directory.display());
                faults.add("policies.directory", text);
            }
            Some(Source::Directory(directory.clone()))
        }
        ("directory", None) => {
            faults.add(
                "policies.directory",
                "is missing; name the directory of the policies",
            );
            None
        }
        (found, _) => {
            faults.add(
                "policies.source",
                format!("{found:?} is neither \"kubernetes\" nor \"directory\"; leave policies out for none"),
            );
            None
        }
    }
}

fn aliases(written: &[String], faults: &mut Faults) -> Vec<TrustDomain> {
    let key = "policies.trust_domain_aliases";
    if written.len() > MAX_ALIASES {
        faults.add(
            key,
            format!("has {} entries, at most {MAX_ALIASES} are read", written.len()),
        );
        return Vec::new();
    }
    written
        .iter()
        .filter_map(|alias| faults.parse(key, alias))
        .collect()
}
