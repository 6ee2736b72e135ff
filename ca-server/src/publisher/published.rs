//! What is published already: then there has been a root before.
//!
//! Whoever may write ConfigMaps in a namespace can write one that looks like ours, so only those count that
//! have a name configured here and say our trust domain, and no sequence is believed from which there is no
//! way on.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams};
use signet_certs::TrustDomain;

use super::{CALL_DEADLINE, DATA_KEY, sequence, trust_domain};

/// Highest sequence believed: numbers up to it are exact wherever JSON is read, and no CA counts so far.
pub(super) const HIGHEST_SEQUENCE: u64 = 1 << 53;
/// Highest sequence believed at a first start: a new root goes on from there, and needs as many above it.
pub(super) const HIGHEST_AT_START: u64 = HIGHEST_SEQUENCE / 2;
/// ConfigMaps asked for at once.
const PAGE: u32 = 500;

/// The newest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The ConfigMap that names the newest bundle, as `namespace/name`.
    pub place: String,
    /// The sequence of that bundle.
    pub sequence: u64,
}

/// Why it is not known what is published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishedError {
    /// The API server refused, or is away.
    #[error("configmaps {name}: {fault}")]
    Kube {
        /// Their name.
        name: String,
        /// What it said.
        fault: Box<kube::Error>,
    },
    /// It did not answer.
    #[error("configmaps {name}: the API server did not answer in {} s", CALL_DEADLINE.as_secs())]
    Late {
        /// Their name.
        name: String,
    },
    /// A sequence that no CA writes.
    #[error(
        "configmap {place} says bundle sequence {sequence}, which no CA reaches (at most {HIGHEST_AT_START} is \
         believed): somebody else wrote it. Look at who may write there, delete it, and start again"
    )]
    Unbelievable {
        /// The ConfigMap, as `namespace/name`.
        place: String,
        /// What it says.
        sequence: u64,
    },
}

impl PublishedError {
    /// Whether it may pass by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Kube { fault, .. } => match fault.as_ref() {
                kube::Error::Api(status) => status.code == 429 || status.code >= 500,
                _ => true,
            },
            Self::Late { .. } => true,
            Self::Unbelievable { .. } => false,
        }
    }
}

/// The newest bundle that ConfigMaps of ours name.
///
/// # Errors
/// A [`PublishedError`].
pub async fn already_published(
    client: &kube::Client,
    names: &[String],
    domain: &TrustDomain,
) -> Result<Option<Published>, PublishedError> {
    let api: Api<ConfigMap> = Api::all(client.clone());
    let mut found = None;
    for name in names {
        let mut params = ListParams::default()
            .fields(&format!("metadata.name={name}"))
            .limit(PAGE);
        loop {
            let page = listed(&api, name, &params, CALL_DEADLINE).await?;
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            found = newest(found, page.items, domain)?;
            match next {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(found)
}

async fn listed(
    api: &Api<ConfigMap>,
    name: &str,
    params: &ListParams,
    deadline: Duration,
) -> Result<kube::api::ObjectList<ConfigMap>, PublishedError> {
    let name = || name.to_owned();
    match tokio::time::timeout(deadline, api.list(params)).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(fault)) => Err(PublishedError::Kube {
            name: name(),
            fault: Box::new(fault),
        }),
        Err(_) => Err(PublishedError::Late { name: name() }),
    }
}

/// The newest of `maps` and what was `found` before.
pub(super) fn newest(
    found: Option<Published>,
    maps: Vec<ConfigMap>,
    domain: &TrustDomain,
) -> Result<Option<Published>, PublishedError> {
    let mut newest = found;
    for map in maps {
        let holds = map.data.as_ref().is_some_and(|data| data.contains_key(DATA_KEY));
        if !holds || trust_domain(&map) != Some(domain.as_str()) {
            continue;
        }
        let sequence = sequence(&map).unwrap_or(0);
        let part = |part: Option<String>| part.unwrap_or_default();
        let place = format!("{}/{}", part(map.metadata.namespace), part(map.metadata.name));
        if sequence > HIGHEST_AT_START {
            return Err(PublishedError::Unbelievable { place, sequence });
        }
        if newest.as_ref().is_none_or(|newest| newest.sequence < sequence) {
            newest = Some(Published { place, sequence });
        }
    }
    Ok(newest)
}
