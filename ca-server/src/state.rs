//! The persisted form: roots and JWT authorities, their keys where we have them, and the bundle's
//! sequence. One JSON document with a schema number, the same in a directory and in a Secret. Schema 1
//! had no JWT authorities.

mod jwt;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use signet_certs::certificate::Certificate;
use signet_certs::{Authority, SigningKey, TrustBundle, TrustDomain};
use zeroize::Zeroizing;

use crate::jwt_keys::JwtKeys;

/// The schema written. A document with a higher number was written by a newer signet.
pub const SCHEMA: u32 = 2;
/// Largest document read, in bytes.
pub const MAX_STATE_BYTES: usize = 512 * 1024;

/// Why a document is not used. What it stands for stays untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Not the JSON expected.
    #[error("state is damaged: {0}; restore it with `signet authority restore`")]
    Damaged(String),
    /// Written by a newer signet.
    #[error("state has schema {found}, this signet knows {SCHEMA}; run the newer signet that wrote it")]
    Newer {
        /// The schema found.
        found: u32,
    },
    /// Made for another trust domain.
    #[error("state belongs to trust domain {found}, the configuration says {configured}")]
    OtherTrustDomain {
        /// What the document says.
        found: String,
        /// What the configuration says.
        configured: TrustDomain,
    },
}

#[derive(Serialize, Deserialize)]
struct Document {
    schema: u32,
    trust_domain: String,
    sequence: u64,
    roots: Vec<DocumentRoot>,
    active: Option<usize>,
    #[serde(default)]
    jwt_keys: Vec<jwt::DocumentKey>,
}

#[derive(Serialize, Deserialize)]
struct DocumentRoot {
    certificate: String,
    key: Option<String>,
}

impl Drop for DocumentRoot {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

/// Only enough to tell a newer document from a damaged one.
#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

/// The roots and JWT authorities of our trust domain, the bundle they make, and the root that signs.
#[derive(Clone)]
pub struct CaState {
    bundle: Arc<TrustBundle>,
    active: Option<Arc<Authority>>,
    jwt: JwtKeys,
}

impl CaState {
    /// One root of ours, at sequence 1 or as given.
    ///
    /// # Errors
    /// When the root's certificate is no root, which for one made here cannot be.
    pub fn with_root(domain: &TrustDomain, root: Authority, sequence: u64) -> Result<Self, StateError> {
        let bundle = TrustBundle::new(domain.clone(), vec![root.certificate().clone()], sequence)
            .map_err(|e| StateError::Damaged(e.to_string()))?;
        Ok(Self {
            bundle: Arc::new(bundle),
            active: Some(Arc::new(root)),
            jwt: JwtKeys::default(),
        })
    }

    /// Roots that others keep the keys of, and no JWT authorities.
    #[must_use]
    pub fn with_bundle(bundle: Arc<TrustBundle>) -> Self {
        Self {
            bundle,
            active: None,
            jwt: JwtKeys::default(),
        }
    }

    /// With the roots of `roots` in place of its own, whose keys others keep; the sequence rises.
    ///
    /// # Errors
    /// When the JWT authorities make no bundle with them, which those in force cannot.
    pub fn with_roots(&self, roots: &TrustBundle) -> Result<Self, StateError> {
        let bundle = roots
            .clone()
            .with_sequence(self.bundle.sequence().saturating_add(1));
        Ok(Self {
            bundle: Arc::new(joined(bundle, &self.jwt)?),
            active: None,
            jwt: self.jwt.clone(),
        })
    }

    /// With its first JWT authorities, before anyone has seen it: the sequence stays.
    ///
    /// # Errors
    /// As [`CaState::with_jwt`].
    pub fn born_with_jwt(&self, jwt: JwtKeys) -> Result<Self, StateError> {
        let mut born = self.with_jwt(jwt)?;
        born.bundle = Arc::new(TrustBundle::clone(&born.bundle).with_sequence(self.bundle.sequence()));
        Ok(born)
    }

    /// With these JWT authorities; the sequence rises if others are published than before.
    ///
    /// # Errors
    /// When they make no bundle: two of one name, or too many.
    pub fn with_jwt(&self, jwt: JwtKeys) -> Result<Self, StateError> {
        let mut bundle = joined(TrustBundle::clone(&self.bundle), &jwt)?;
        if !bundle.same_content(&self.bundle) {
            bundle = bundle.with_sequence(self.bundle.sequence().saturating_add(1));
        }
        Ok(Self {
            bundle: Arc::new(bundle),
            active: self.active.clone(),
            jwt,
        })
    }

    /// The JWT authorities.
    #[must_use]
    pub fn jwt(&self) -> &JwtKeys {
        &self.jwt
    }

    /// The bundle: roots, and the public halves of all JWT authorities.
    #[must_use]
    pub fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    /// The root that signs, if its key is here.
    #[must_use]
    pub fn active(&self) -> Option<&Arc<Authority>> {
        self.active.as_ref()
    }

    /// Whether both say the same.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.bundle.sequence() == other.bundle.sequence()
            && self.same_roots(other)
            && self.jwt.same(&other.jwt)
    }

    /// Whether both have the same roots, of which the same one signs.
    #[must_use]
    pub fn same_roots(&self, other: &Self) -> bool {
        let id = |s: &Self| s.active.as_ref().map(|a| a.certificate().der().clone());
        self.bundle.same_roots(&other.bundle) && id(self) == id(other)
    }

    /// Reads a document for `domain`.
    ///
    /// # Errors
    /// A [`StateError`]; its text holds no key.
    pub fn parse(json: &[u8], domain: &TrustDomain) -> Result<Self, StateError> {
        let damaged = |what: &str| StateError::Damaged(what.into());
        if json.len() > MAX_STATE_BYTES {
            return Err(damaged("it is too large"));
        }
        let SchemaOnly { schema } =
            serde_json::from_slice(json).map_err(|_| damaged("it is not the JSON document expected"))?;
        if schema > SCHEMA {
            return Err(StateError::Newer { found: schema });
        }
        let document: Document =
            serde_json::from_slice(json).map_err(|_| damaged("it is not the JSON document expected"))?;
        if document.trust_domain != domain.as_str() {
            return Err(StateError::OtherTrustDomain {
                found: document.trust_domain.clone(),
                configured: domain.clone(),
            });
        }
        let certificates = certificates(&document.roots)?;
        let active = active(&document, &certificates)?;
        let jwt = jwt::read(&document.jwt_keys)?;
        let bundle = TrustBundle::new(domain.clone(), certificates, document.sequence)
            .map_err(|e| StateError::Damaged(e.to_string()))?;
        Ok(Self {
            bundle: Arc::new(joined(bundle, &jwt)?),
            active,
            jwt,
        })
    }

    /// Writes the document, private keys included: only for the store, which keeps it 0600 or in a
    /// Secret.
    #[must_use]
    pub fn expose_json(&self) -> Zeroizing<Vec<u8>> {
        let mut active = None;
        let mut roots = Vec::new();
        for (index, root) in self.bundle.roots().iter().enumerate() {
            let ours = self
                .active
                .as_ref()
                .filter(|authority| authority.certificate().der() == root.certificate().der());
            if ours.is_some() {
                active = Some(index);
            }
            roots.push(DocumentRoot {
                certificate: root.certificate().to_pem(),
                key: ours.map(|authority| authority.key().expose_pem().to_string()),
            });
        }
        let document = Document {
            schema: SCHEMA,
            trust_domain: self.bundle.trust_domain().to_string(),
            sequence: self.bundle.sequence(),
            roots,
            active,
            jwt_keys: jwt::write(&self.jwt),
        };
        Zeroizing::new(serde_json::to_vec_pretty(&document).unwrap_or_default())
    }
}

/// `bundle` with the public halves of `jwt` as its JWT keys.
fn joined(bundle: TrustBundle, jwt: &JwtKeys) -> Result<TrustBundle, StateError> {
    bundle
        .with_jwt_keys(jwt.published())
        .map_err(|e| StateError::Damaged(e.to_string()))
}

fn certificates(roots: &[DocumentRoot]) -> Result<Vec<Certificate>, StateError> {
    let mut certificates = Vec::with_capacity(roots.len());
    for root in roots {
        let mut all = Certificate::all_from_pem(root.certificate.as_bytes())
            .map_err(|e| StateError::Damaged(e.to_string()))?;
        match (all.pop(), all.is_empty()) {
            (Some(certificate), true) => certificates.push(certificate),
            _ => return Err(StateError::Damaged("a root has more than one certificate".into())),
        }
    }
    Ok(certificates)
}

/// The root that signs, with its key.
fn active(document: &Document, certificates: &[Certificate]) -> Result<Option<Arc<Authority>>, StateError> {
    let Some(index) = document.active else {
        return Ok(None);
    };
    let missing = || StateError::Damaged("the active root is missing".into());
    let root = document.roots.get(index).ok_or_else(missing)?;
    let certificate = certificates.get(index).cloned().ok_or_else(missing)?;
    let key = root
        .key
        .as_ref()
        .ok_or_else(|| StateError::Damaged("the active root has no key".into()))?;
    let key = SigningKey::from_pem(key.as_bytes()).map_err(|e| StateError::Damaged(e.to_string()))?;
    let authority = Authority::new(Arc::new(key), certificate, Vec::new())
        .map_err(|e| StateError::Damaged(e.to_string()))?;
    Ok(Some(Arc::new(authority)))
}

impl fmt::Debug for CaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CaState(sequence {}, {} roots)",
            self.bundle.sequence(),
            self.bundle.roots().len()
        )
    }
}

#[cfg(test)]
mod tests;
