//! SDS resources, each encoded once: a key pair's shared by all streams of its identity, the bundles'
//! by all streams there are.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use prost_types::Any;
use signet_certs::key::{KeyError, hex};
use signet_certs::{BundleSet, SpiffeId, TrustBundle, TrustDomain, X509Svid};
use signet_proto::sds::sequences_message;
use signet_proto::wire::envoy::config::core::v3::Metadata;
use zeroize::Zeroize;

use crate::svids::Seen;

/// Name of our own key and chain, as Istio's clients ask.
pub const DEFAULT: &str = "default";
/// Name of our own trust domain's roots, as Istio's clients ask.
pub const ROOTCA: &str = "ROOTCA";
/// Name of every trust domain's roots, for Envoy's SPIFFE validator.
pub const ALL: &str = "ALL";

/// One resource as it goes over the wire. The bytes of a key are wiped when the last user goes.
pub struct Encoded {
    any: Any,
    version: Arc<str>,
    metadata: Option<Metadata>,
}

impl Encoded {
    /// The resource, for a socket whose peer was checked (I3).
    #[must_use]
    pub fn expose_resource(&self) -> Any {
        self.any.clone()
    }

    /// The sequence numbers of the bundles in it; nothing for a key pair.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Stands for its contents: the same after a restart, another after every change. Made of public
    /// parts only.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        self.any.value.zeroize();
    }
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoded(version {})", self.version)
    }
}

/// The resources of one SVID, each made when it is first asked for.
#[derive(Debug)]
pub struct PairSecrets {
    svid: Arc<X509Svid>,
    version: Arc<str>,
    default: OnceLock<Option<Encoded>>,
    id: OnceLock<Option<Encoded>>,
}

impl PairSecrets {
    /// Of this SVID.
    #[must_use]
    pub fn new(svid: Arc<X509Svid>) -> Self {
        Self {
            version: version(svid.chain().certificates().map(|c| c.der().as_ref())),
            svid,
            default: OnceLock::new(),
            id: OnceLock::new(),
        }
    }

    /// Key and chain under [`DEFAULT`].
    fn under_default(&self) -> Option<&Encoded> {
        self.default.get_or_init(|| self.encode(DEFAULT)).as_ref()
    }

    /// Key and chain under the SPIFFE ID.
    fn under_id(&self) -> Option<&Encoded> {
        self.id
            .get_or_init(|| self.encode(self.svid.id().as_str()))
            .as_ref()
    }

    /// Keys made by this agent are PKCS#8, so this does not fail for them.
    fn encode(&self, name: &str) -> Option<Encoded> {
        let any: Result<Any, KeyError> = signet_proto::sds::key_pair(name, &self.svid);
        let any = any
            .inspect_err(|error| tracing::error!(%error, "key cannot be encoded for SDS"))
            .ok()?;
        let version = Arc::clone(&self.version);
        let metadata = None;
        Some(Encoded {
            any,
            version,
            metadata,
        })
    }
}

/// The resources of the bundles in force, each made when it is first asked for.
#[derive(Debug, Default)]
pub struct RootSecrets {
    own: Option<Roots>,
    foreign: BTreeMap<TrustDomain, Roots>,
    root_ca: OnceLock<Encoded>,
    all: OnceLock<Encoded>,
}

#[derive(Debug)]
struct Roots {
    bundle: Arc<TrustBundle>,
    version: Arc<str>,
    under_id: OnceLock<Encoded>,
}

impl Roots {
    fn new(bundle: &Arc<TrustBundle>) -> Self {
        // The sequence is part of it: a client that refused an older bundle takes the same roots under a newer one.
        let sequence = bundle.sequence().to_be_bytes();
        let roots = bundle
            .roots()
            .iter()
            .map(|root| root.certificate().der().as_ref());
        Self {
            version: version(std::iter::once(sequence.as_slice()).chain(roots)),
            bundle: Arc::clone(bundle),
            under_id: OnceLock::new(),
        }
    }

    fn encode(&self, name: &str) -> Encoded {
        Encoded {
            any: signet_proto::sds::roots(name, &self.bundle),
            version: Arc::clone(&self.version),
            metadata: Some(sequences_message(&BundleSet::of(Arc::clone(&self.bundle)))),
        }
    }

    /// The roots under the trust domain's own ID.
    fn under_id(&self) -> &Encoded {
        self.under_id
            .get_or_init(|| self.encode(self.bundle.trust_domain().id().as_str()))
    }
}

impl RootSecrets {
    /// Of our own bundle and the foreign ones.
    #[must_use]
    pub fn new(own: &Arc<TrustBundle>, foreign: &[Arc<TrustBundle>]) -> Self {
        Self {
            own: Some(Roots::new(own)),
            foreign: foreign
                .iter()
                .map(|bundle| (bundle.trust_domain().clone(), Roots::new(bundle)))
                .collect(),
            root_ca: OnceLock::new(),
            all: OnceLock::new(),
        }
    }

    /// Our own roots under [`ROOTCA`].
    fn under_rootca(&self) -> Option<&Encoded> {
        let own = self.own.as_ref()?;
        Some(self.root_ca.get_or_init(|| own.encode(ROOTCA)))
    }

    /// The roots of all trust domains under [`ALL`], one store each.
    fn under_all(&self) -> Option<&Encoded> {
        let own = self.own.as_ref()?;
        Some(self.all.get_or_init(|| {
            let mut bundles = BundleSet::of(Arc::clone(&own.bundle));
            let mut parts = vec![
                own.bundle.trust_domain().as_str().as_bytes(),
                own.version.as_bytes(),
            ];
            for (domain, roots) in &self.foreign {
                bundles.insert(Arc::clone(&roots.bundle));
                parts.extend([domain.as_str().as_bytes(), roots.version.as_bytes()]);
            }
            Encoded {
                any: signet_proto::sds::roots_by_domain(ALL, &bundles),
                metadata: Some(sequences_message(&bundles)),
                version: version(parts.into_iter()),
            }
        }))
    }
}

/// Sixteen hex digits of a hash over length-prefixed parts.
fn version<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Arc<str> {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        hash.update(&part.len().to_be_bytes());
        hash.update(part);
    }
    hex(hash.finish().as_ref().get(..8).unwrap_or_default()).into()
}

/// What a client gets under a name.
#[derive(Clone, Copy, Debug)]
pub enum Resolved<'a> {
    /// Roots.
    Roots(&'a Encoded),
    /// A key pair.
    Pair(&'a Encoded),
    /// Nothing yet: it is on its way, or it is not known yet whether it can be had.
    Awaited,
    /// A name that cannot exist here.
    Impossible,
    /// An identity of our trust domain that is not the caller's.
    NotYours,
}

/// What `name` stands for, for one who sees `seen`.
#[must_use]
pub fn resolve<'a>(name: &str, seen: &'a Seen) -> Resolved<'a> {
    let roots = |encoded: Option<&'a Encoded>| encoded.map_or(Resolved::Awaited, Resolved::Roots);
    let trust = seen.trust.secrets();
    match name {
        DEFAULT => {
            let verified = seen.default_svid().and_then(|held| held.verified.as_ref());
            let pair = verified.and_then(|verified| verified.secrets().under_default());
            return pair.map_or(Resolved::Awaited, Resolved::Pair);
        }
        ROOTCA => return roots(trust.under_rootca()),
        ALL => return roots(trust.under_all()),
        _ => {}
    }
    let Ok(id) = name.parse::<SpiffeId>() else {
        return Resolved::Impossible;
    };
    match (id.is_trust_domain(), id.is_in(&seen.domain)) {
        (true, true) => roots(trust.own.as_ref().map(Roots::under_id)),
        (true, false) => match trust.foreign.get(&id.trust_domain()) {
            Some(foreign) => Resolved::Roots(foreign.under_id()),
            None if trust.own.is_none() => Resolved::Awaited,
            None => Resolved::Impossible,
        },
        (false, true) => resolve_id(&id, seen),
        (false, false) => Resolved::Impossible,
    }
}

fn resolve_id<'a>(id: &SpiffeId, seen: &'a Seen) -> Resolved<'a> {
    match seen.svids.iter().find(|held| held.id == *id) {
        Some(held) => {
            let pair = held.verified.as_ref().and_then(|v| v.secrets().under_id());
            pair.map_or(Resolved::Awaited, Resolved::Pair)
        }
        None if seen.svids.is_empty() => Resolved::Awaited,
        None => Resolved::NotYours,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use signet_certs::{Authority, SigningKey, UnixTime};

    use super::*;

    #[test]
    fn the_same_roots_under_a_newer_sequence_are_another_version() {
        let domain: TrustDomain = "own.test".parse().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let key = Arc::new(SigningKey::generate().unwrap());
        let root = Authority::self_signed_root(&domain, key, Duration::from_secs(1_000), now).unwrap();
        let version = |sequence| {
            let roots = vec![root.certificate().clone()];
            let bundle = TrustBundle::new(domain.clone(), roots, sequence).unwrap();
            let secrets = RootSecrets::new(&Arc::new(bundle), &[]);
            secrets.under_rootca().unwrap().version().to_string()
        };
        assert_eq!(version(1), version(1));
        assert_ne!(version(1), version(2));
    }
}
