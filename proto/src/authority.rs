//! `WatchBundle`: what is trusted, over the wire and back.

use std::time::Duration;

use bytes::Bytes;
use signet_certs::bundle::BundleError;
use signet_certs::certificate::{Certificate, CertificateError};
use signet_certs::id::IdError;
use signet_certs::jwt::JwtKeyError;
use signet_certs::{CertificateDer, JwtKey, PublicKey, TrustBundle, TrustDomain};

use crate::wire::signet::ca::v1 as wire;

/// Most foreign bundles in one message.
pub const MAX_FOREIGN: usize = 64;

/// What a CA says is trusted.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The bundle of the CA's own trust domain.
    pub own: TrustBundle,
    /// The bundles of federated trust domains, in the order sent. A domain that is neither here nor in
    /// `refused` is withdrawn.
    pub foreign: Vec<TrustBundle>,
    /// Foreign bundles that cannot be used. The last good ones of these domains stay in force (I4).
    pub refused: Vec<RefusedBundle>,
}

/// A foreign bundle that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedBundle {
    /// Its trust domain, where that much can be read.
    pub trust_domain: Option<TrustDomain>,
    /// What is wrong with it.
    pub fault: WireBundleError,
}

/// Why a bundle from the wire is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireBundleError {
    /// The trust domain is no trust domain.
    #[error("trust domain {name:?}: {fault}")]
    TrustDomain {
        /// What was sent.
        name: String,
        /// What is wrong with it.
        fault: IdError,
    },
    /// A root that cannot be read.
    #[error("root {position}: {fault}")]
    Root {
        /// Its place.
        position: usize,
        /// What is wrong with it.
        fault: CertificateError,
    },
    /// A JWT key that cannot be read.
    #[error("jwt key {position} {fault}")]
    JwtKey {
        /// Its place.
        position: usize,
        /// What is wrong with it.
        fault: JwtKeyError,
    },
    /// The roots and keys make no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A foreign bundle under the name of the CA's own trust domain, which would pass for its bundle.
    #[error("foreign bundle of {0}, which is the CA's own trust domain")]
    Own(TrustDomain),
    /// Two foreign bundles of one trust domain.
    #[error("trust domain {0} has two foreign bundles")]
    Twice(TrustDomain),
    /// More than [`MAX_FOREIGN`] foreign bundles.
    #[error("{0} foreign bundles, at most {MAX_FOREIGN} are read")]
    TooMany(usize),
}

/// What is trusted, as the CA sends it.
pub fn to_wire<'a>(
    own: &TrustBundle,
    foreign: impl IntoIterator<Item = &'a TrustBundle>,
) -> wire::WatchBundleResponse {
    wire::WatchBundleResponse {
        trust_domain: own.trust_domain().to_string(),
        sequence: own.sequence(),
        roots: roots(own),
        refresh_hint_seconds: hint(own),
        jwt_keys: jwt_keys(own),
        foreign: foreign
            .into_iter()
            .map(|bundle| wire::ForeignBundle {
                trust_domain: bundle.trust_domain().to_string(),
                sequence: bundle.sequence(),
                roots: roots(bundle),
                jwt_keys: jwt_keys(bundle),
                refresh_hint_seconds: hint(bundle),
            })
            .collect(),
    }
}

/// What is trusted, as an agent receives it.
///
/// # Errors
/// A [`WireBundleError`] of the CA's own bundle, which fails the whole message: one bad root or key fails
/// its bundle (I4). A bad foreign bundle fails only itself.
pub fn from_wire(message: &wire::WatchBundleResponse) -> Result<Trust, WireBundleError> {
    if message.foreign.len() > MAX_FOREIGN {
        return Err(WireBundleError::TooMany(message.foreign.len()));
    }
    let own = bundle(&Parts {
        domain: domain(&message.trust_domain)?,
        sequence: message.sequence,
        roots: &message.roots,
        jwt_keys: &message.jwt_keys,
        hint: message.refresh_hint_seconds,
    })?;
    let mut trust = Trust {
        own,
        foreign: Vec::with_capacity(message.foreign.len()),
        refused: Vec::new(),
    };
    for sent in &message.foreign {
        match foreign(sent, message, trust.own.trust_domain()) {
            Ok(bundle) => trust.foreign.push(bundle),
            Err(fault) => trust.refused.push(RefusedBundle {
                trust_domain: sent.trust_domain.parse().ok(),
                fault,
            }),
        }
    }
    Ok(trust)
}

fn foreign(
    sent: &wire::ForeignBundle,
    message: &wire::WatchBundleResponse,
    own: &TrustDomain,
) -> Result<TrustBundle, WireBundleError> {
    let domain = domain(&sent.trust_domain)?;
    if domain == *own {
        return Err(WireBundleError::Own(domain));
    }
    let of_it = |other: &&wire::ForeignBundle| other.trust_domain == sent.trust_domain;
    if message.foreign.iter().filter(of_it).count() > 1 {
        return Err(WireBundleError::Twice(domain));
    }
    bundle(&Parts {
        domain,
        sequence: sent.sequence,
        roots: &sent.roots,
        jwt_keys: &sent.jwt_keys,
        hint: sent.refresh_hint_seconds,
    })
}

/// What both kinds of bundle have in common on the wire.
struct Parts<'a> {
    domain: TrustDomain,
    sequence: u64,
    roots: &'a [Bytes],
    jwt_keys: &'a [wire::JwtKey],
    hint: u64,
}

fn bundle(parts: &Parts<'_>) -> Result<TrustBundle, WireBundleError> {
    let mut roots = Vec::with_capacity(parts.roots.len());
    for (position, der) in parts.roots.iter().enumerate() {
        let root = Certificate::from_der(CertificateDer::from(der.to_vec()))
            .map_err(|fault| WireBundleError::Root { position, fault })?;
        roots.push(root);
    }
    let mut keys = Vec::with_capacity(parts.jwt_keys.len());
    for (position, sent) in parts.jwt_keys.iter().enumerate() {
        let key = PublicKey::from_spki_der(&sent.public_key)
            .map_err(JwtKeyError::Key)
            .and_then(|key| JwtKey::new(sent.kid.clone(), key))
            .map_err(|fault| WireBundleError::JwtKey { position, fault })?;
        keys.push(key);
    }
    let bundle = TrustBundle::new(parts.domain.clone(), roots, parts.sequence)?.with_jwt_keys(keys)?;
    Ok(match parts.hint {
        0 => bundle,
        seconds => bundle.with_refresh_hint(Duration::from_secs(seconds)),
    })
}

fn domain(name: &str) -> Result<TrustDomain, WireBundleError> {
    name.parse().map_err(|fault| WireBundleError::TrustDomain {
        name: name.to_owned(),
        fault,
    })
}

fn roots(bundle: &TrustBundle) -> Vec<Bytes> {
    let der = |root: &signet_certs::bundle::Root| Bytes::copy_from_slice(root.certificate().der());
    bundle.roots().iter().map(der).collect()
}

fn jwt_keys(bundle: &TrustBundle) -> Vec<wire::JwtKey> {
    let key = |key: &JwtKey| wire::JwtKey {
        kid: key.kid().to_owned(),
        public_key: Bytes::copy_from_slice(key.public_key().spki_der()),
    };
    bundle.jwt_keys().iter().map(key).collect()
}

fn hint(bundle: &TrustBundle) -> u64 {
    bundle.refresh_hint().map_or(0, |hint| hint.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_certs::{Authority, SigningKey, UnixTime};
    use std::sync::Arc;

    fn made(name: &str, sequence: u64) -> TrustBundle {
        let domain: TrustDomain = name.parse().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let key = Arc::new(SigningKey::generate().unwrap());
        let root = Authority::self_signed_root(&domain, key, Duration::from_secs(1_000), now).unwrap();
        let jwt = SigningKey::generate().unwrap().public_key().clone();
        TrustBundle::new(domain, vec![root.certificate().clone()], sequence)
            .unwrap()
            .with_jwt_keys(vec![JwtKey::by_thumbprint(jwt).unwrap()])
            .unwrap()
            .with_refresh_hint(Duration::from_secs(60))
    }

    #[test]
    fn own_and_foreign_bundles_read_back_as_they_were_sent() {
        let (own, foreign) = (made("own.test", 7), made("foreign.test", 0));
        let trust = from_wire(&to_wire(&own, [&foreign])).unwrap();
        assert!(trust.own.same_content(&own) && trust.own.sequence() == 7);
        assert_eq!(trust.own.refresh_hint(), Some(Duration::from_secs(60)));
        assert!(trust.foreign[0].same_content(&foreign) && trust.refused.is_empty());
    }

    #[test]
    fn a_bad_foreign_bundle_fails_only_itself_and_a_bad_own_one_the_message() {
        let (own, good, bad) = (made("own.test", 7), made("good.test", 1), made("bad.test", 1));
        let mut message = to_wire(&own, [&bad, &good]);
        message.foreign[0].jwt_keys[0].public_key = Bytes::from_static(b"no key");
        let trust = from_wire(&message).unwrap();
        assert_eq!(trust.foreign.len(), 1);
        assert_eq!(trust.refused[0].trust_domain, Some("bad.test".parse().unwrap()));
        message.roots[0] = Bytes::from_static(b"no root");
        assert!(matches!(
            from_wire(&message),
            Err(WireBundleError::Root { position: 0, .. })
        ));
    }

    #[test]
    fn a_foreign_bundle_never_passes_for_our_own_and_none_comes_twice() {
        let (own, foreign) = (made("own.test", 7), made("foreign.test", 1));
        let trust = from_wire(&to_wire(&own, [&made("own.test", 9)])).unwrap();
        assert!(trust.foreign.is_empty());
        assert!(matches!(trust.refused[0].fault, WireBundleError::Own(_)));
        let trust = from_wire(&to_wire(&own, [&foreign, &made("foreign.test", 2)])).unwrap();
        assert!(trust.foreign.is_empty() && trust.refused.len() == 2);
    }
}
