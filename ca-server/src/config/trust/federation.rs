//! The key `federation`: whom our workloads accept beside ourselves, and where their bundles come from.
//! Every parameter is explicit; none is inferred from another (SPIFFE Federation §5.1).

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use signet_certs::{SpiffeId, TrustDomain};
use signet_runtime::config::Faults;

use super::unknown_profile;
use crate::federation::url::EndpointUrl;

/// Trust domains to federate with. Each is a task and a place in every message to agents.
const MOST_FEDERATED: usize = 32;

/// An element of `federation` as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawFederated {
    trust_domain: Option<String>,
    url: Option<String>,
    profile: Option<String>,
    endpoint_spiffe_id: Option<String>,
    bundle_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

/// Where a foreign bundle comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignSource {
    /// A file that the operator keeps current.
    File(PathBuf),
    /// An endpoint with a certificate of the web's CAs, or of those in `ca_file`.
    Web {
        /// Its URL.
        url: EndpointUrl,
        /// CAs in PEM; nothing means the machine's own.
        ca_file: Option<PathBuf>,
        /// The bundle in force until the first fetch.
        bundle_file: Option<PathBuf>,
    },
    /// An endpoint that proves to be exactly this SPIFFE ID.
    Spiffe {
        /// Its URL.
        url: EndpointUrl,
        /// Who serves it.
        id: SpiffeId,
        /// The bundle in force until the first fetch; it proves a self-serving endpoint.
        bundle_file: Option<PathBuf>,
    },
}

/// A trust domain whose SVIDs our workloads accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federated {
    /// Its name.
    pub domain: TrustDomain,
    /// Where its bundle comes from.
    pub source: ForeignSource,
}

pub(super) fn federation(
    raw: Vec<RawFederated>,
    own: Option<&TrustDomain>,
    faults: &mut Faults,
) -> Option<Vec<Federated>> {
    if raw.len() > MOST_FEDERATED {
        faults.add(
            "federation",
            format!("{} trust domains, at most {MOST_FEDERATED} are served", raw.len()),
        );
        return None;
    }
    let wanted = raw.len();
    let mut known: BTreeSet<TrustDomain> = own.into_iter().cloned().collect();
    let mut checked = Vec::with_capacity(wanted);
    for (position, entry) in raw.into_iter().enumerate() {
        let key = format!("federation[{position}]");
        let Some(name) = &entry.trust_domain else {
            faults.add(
                &key,
                "name the trust_domain; it is never taken from the URL or the bundle",
            );
            continue;
        };
        let Some(domain) = faults.parse::<TrustDomain>(&format!("{key}.trust_domain"), name) else {
            continue;
        };
        if own == Some(&domain) {
            faults.add(&key, format!("{domain} is our own trust domain"));
        } else if !known.insert(domain.clone()) {
            faults.add(&key, format!("{domain} is named twice"));
        }
        if let Some(source) = source(entry, &domain, &key, faults) {
            checked.push(Federated { domain, source });
        }
    }
    provable(&checked, &known, faults);
    (checked.len() == wanted).then_some(checked)
}

fn source(raw: RawFederated, domain: &TrustDomain, key: &str, faults: &mut Faults) -> Option<ForeignSource> {
    let RawFederated {
        url,
        profile,
        endpoint_spiffe_id,
        bundle_file,
        ca_file,
        ..
    } = raw;
    let Some(url) = url else {
        if profile.is_some() || endpoint_spiffe_id.is_some() || ca_file.is_some() {
            faults.add(
                key,
                "profile, endpoint_spiffe_id and ca_file belong to a url, which is missing",
            );
            return None;
        }
        let Some(file) = bundle_file else {
            faults.add(
                key,
                "name a url with its profile, or a bundle_file that you keep current",
            );
            return None;
        };
        return Some(ForeignSource::File(file));
    };
    let url = faults.parse::<EndpointUrl>(&format!("{key}.url"), &url);
    match (profile.as_deref(), endpoint_spiffe_id, ca_file) {
        (Some("https_web"), None, ca_file) => Some(ForeignSource::Web {
            url: url?,
            ca_file,
            bundle_file,
        }),
        (Some("https_web"), Some(_), _) => {
            faults.add(
                key,
                "https_web checks the host name; endpoint_spiffe_id belongs to https_spiffe",
            );
            None
        }
        (Some("https_spiffe"), Some(id), None) => {
            let name = format!("{key}.endpoint_spiffe_id");
            let id = faults.parse::<SpiffeId>(&name, &id)?;
            if id.trust_domain() == *domain && bundle_file.is_none() {
                faults.add(
                    key,
                    format!("{id} proves itself by the bundle it serves; give a first one as bundle_file"),
                );
                return None;
            }
            Some(ForeignSource::Spiffe {
                url: url?,
                id,
                bundle_file,
            })
        }
        (Some("https_spiffe"), None, _) => {
            faults.add(
                key,
                "https_spiffe needs endpoint_spiffe_id, the ID of who serves it",
            );
            None
        }
        (Some("https_spiffe"), _, Some(_)) => {
            faults.add(
                key,
                "https_spiffe trusts bundles only; ca_file belongs to https_web",
            );
            None
        }
        (other, _, _) => {
            faults.add(&format!("{key}.profile"), unknown_profile(other));
            None
        }
    }
}

/// An endpoint of a third trust domain is proven by that domain's bundle, so we must have one.
fn provable(federation: &[Federated], known: &BTreeSet<TrustDomain>, faults: &mut Faults) {
    for entry in federation {
        if let ForeignSource::Spiffe { id, .. } = &entry.source
            && !known.contains(&id.trust_domain())
        {
            faults.add(
                "federation",
                format!(
                    "the endpoint of {} is {id}, and {} is neither ours nor federated, so nothing proves it",
                    entry.domain,
                    id.trust_domain()
                ),
            );
        }
    }
}

impl Federated {
    /// As it would be written.
    pub(super) fn raw(&self) -> RawFederated {
        let mut raw = RawFederated {
            trust_domain: Some(self.domain.to_string()),
            ..RawFederated::default()
        };
        match &self.source {
            ForeignSource::File(path) => raw.bundle_file = Some(path.clone()),
            ForeignSource::Web {
                url,
                ca_file,
                bundle_file,
            } => {
                raw.profile = Some("https_web".into());
                raw.url = Some(url.to_string());
                raw.ca_file.clone_from(ca_file);
                raw.bundle_file.clone_from(bundle_file);
            }
            ForeignSource::Spiffe { url, id, bundle_file } => {
                raw.profile = Some("https_spiffe".into());
                raw.url = Some(url.to_string());
                raw.endpoint_spiffe_id = Some(id.to_string());
                raw.bundle_file.clone_from(bundle_file);
            }
        }
        raw
    }
}
