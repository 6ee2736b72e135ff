//! A snapshot's SDS resources: five names at most, each encoded once and shared by every stream.

use std::sync::{Arc, OnceLock};

use prost_types::Any;
use signet_certs::key::{KeyError, hex};
use signet_certs::{BundleSet, SpiffeId, TrustBundle, X509Svid};
use zeroize::Zeroize;

/// Name of our own key and chain, as Istio's clients ask.
pub const DEFAULT: &str = "default";
/// Name of our own trust domain's roots, as Istio's clients ask.
pub const ROOTCA: &str = "ROOTCA";
/// Name of every trust domain's roots, for Envoy's SPIFFE validator.
pub const ALL: &str = "ALL";

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretName {
    /// The roots under [`ROOTCA`].
    RootCa,
    /// The roots under the trust domain's own ID.
    Domain,
    /// The roots of all trust domains.
    All,
    /// Key and chain under [`DEFAULT`].
    Default,
    /// Key and chain under the SPIFFE ID.
    Id,
}

/// One resource as it goes over the wire. The bytes of a key are wiped when the snapshot goes.
pub struct Encoded {
    any: Any,
    version: Arc<str>,
}

impl Encoded {
    /// The resource, for a socket whose peer was checked (I3).
    #[must_use]
    pub fn expose_resource(&self) -> Any {
        self.any.clone()
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

/// The resources of one snapshot, each made when it is first asked for.
#[derive(Debug, Default)]
pub struct Secrets {
    svid: Option<(X509Svid, Arc<str>)>,
    roots: Option<(Arc<TrustBundle>, Arc<str>)>,
    made: [OnceLock<Option<Encoded>>; 5],
}

impl Secrets {
    /// Of an SVID, if there is one, and a bundle.
    #[must_use]
    pub fn new(svid: Option<&X509Svid>, bundle: &Arc<TrustBundle>) -> Self {
        let svid = svid.map(|svid| {
            (
                svid.clone(),
                version(svid.chain().certificates().map(|c| c.der().as_ref())),
            )
        });
        let roots = version(bundle.roots().iter().map(|r| r.certificate().der().as_ref()));
        Self {
            svid,
            roots: Some((Arc::clone(bundle), roots)),
            made: Default::default(),
        }
    }

    /// The resource that `name` stands for, or nothing while there is none.
    #[must_use]
    pub fn get(&self, name: SecretName) -> Option<&Encoded> {
        let [root_ca, domain, all, default, id] = &self.made;
        let slot = match name {
            SecretName::RootCa => root_ca,
            SecretName::Domain => domain,
            SecretName::All => all,
            SecretName::Default => default,
            SecretName::Id => id,
        };
        slot.get_or_init(|| self.encode(name)).as_ref()
    }

    fn encode(&self, name: SecretName) -> Option<Encoded> {
        use signet_proto::sds;
        let (any, version) = match name {
            SecretName::RootCa | SecretName::Domain | SecretName::All => {
                let (bundle, version) = self.roots.as_ref()?;
                let any = match name {
                    SecretName::RootCa => sds::roots(ROOTCA, bundle),
                    SecretName::Domain => sds::roots(bundle.trust_domain().id().as_str(), bundle),
                    _ => sds::roots_by_domain(ALL, &BundleSet::of(Arc::clone(bundle))),
                };
                (any, version)
            }
            SecretName::Default | SecretName::Id => {
                let (svid, version) = self.svid.as_ref()?;
                let name = if name == SecretName::Default {
                    DEFAULT
                } else {
                    svid.id().as_str()
                };
                (key_pair(name, svid).ok()?, version)
            }
        };
        Some(Encoded {
            any,
            version: Arc::clone(version),
        })
    }
}

/// Keys made by this agent are PKCS#8, so this does not fail for them.
fn key_pair(name: &str, svid: &X509Svid) -> Result<Any, KeyError> {
    signet_proto::sds::key_pair(name, svid)
        .inspect_err(|error| tracing::error!(%error, "key cannot be encoded for SDS"))
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

/// What a client asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// One of ours.
    Ours(SecretName),
    /// A SPIFFE ID of our trust domain while our own is not known.
    Undecided,
    /// A name that cannot exist here.
    Impossible,
    /// An identity of our trust domain that is not the caller's.
    NotYours,
}

/// What `name` stands for, for a workload that may be `identity` in the trust domain `domain`.
#[must_use]
pub fn resolve(name: &str, domain: &signet_certs::TrustDomain, identity: Option<&SpiffeId>) -> Resolved {
    match name {
        DEFAULT => return Resolved::Ours(SecretName::Default),
        ROOTCA => return Resolved::Ours(SecretName::RootCa),
        ALL => return Resolved::Ours(SecretName::All),
        _ => {}
    }
    let Ok(id) = name.parse::<SpiffeId>() else {
        return Resolved::Impossible;
    };
    match identity {
        _ if !id.is_in(domain) => Resolved::Impossible,
        _ if id.is_trust_domain() => Resolved::Ours(SecretName::Domain),
        Some(own) if *own == id => Resolved::Ours(SecretName::Id),
        Some(_) => Resolved::NotYours,
        None => Resolved::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_ours_or_say_why_not() {
        let domain = "cluster.local".parse().unwrap();
        let own: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        for (name, known, unknown) in [
            (
                "default",
                Resolved::Ours(SecretName::Default),
                Resolved::Ours(SecretName::Default),
            ),
            (
                "ROOTCA",
                Resolved::Ours(SecretName::RootCa),
                Resolved::Ours(SecretName::RootCa),
            ),
            (
                "ALL",
                Resolved::Ours(SecretName::All),
                Resolved::Ours(SecretName::All),
            ),
            (own.as_str(), Resolved::Ours(SecretName::Id), Resolved::Undecided),
            (
                "spiffe://cluster.local",
                Resolved::Ours(SecretName::Domain),
                Resolved::Ours(SecretName::Domain),
            ),
            (
                "spiffe://cluster.local/ns/shop/sa/other",
                Resolved::NotYours,
                Resolved::Undecided,
            ),
            ("spiffe://elsewhere", Resolved::Impossible, Resolved::Impossible),
            (
                "spiffe://elsewhere/ns/shop/sa/cart",
                Resolved::Impossible,
                Resolved::Impossible,
            ),
            ("rootca", Resolved::Impossible, Resolved::Impossible),
            ("", Resolved::Impossible, Resolved::Impossible),
        ] {
            assert_eq!(resolve(name, &domain, Some(&own)), known, "{name}");
            assert_eq!(resolve(name, &domain, None), unknown, "{name}");
        }
    }
}
