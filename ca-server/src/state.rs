//! The persisted form: roots, their keys where we have them, and the bundle's sequence. One JSON
//! document with a schema number, the same in a directory and in a Secret.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use signet_certs::certificate::Certificate;
use signet_certs::{Authority, SigningKey, TrustBundle, TrustDomain};
use zeroize::Zeroizing;

/// The schema written. A document with a higher number was written by a newer signet.
pub const SCHEMA: u32 = 1;
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

/// The roots of our trust domain, the sequence of the bundle they make, and the root that signs.
#[derive(Clone)]
pub struct CaState {
    bundle: Arc<TrustBundle>,
    active: Option<Arc<Authority>>,
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
        })
    }

    /// Roots that others keep the keys of.
    #[must_use]
    pub fn with_bundle(bundle: Arc<TrustBundle>) -> Self {
        Self { bundle, active: None }
    }

    /// The bundle.
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
        let id = |s: &Self| s.active.as_ref().map(|a| a.certificate().der().clone());
        self.bundle.sequence() == other.bundle.sequence()
            && self.bundle.same_roots(&other.bundle)
            && id(self) == id(other)
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
        let mut certificates = Vec::new();
        for root in &document.roots {
            let mut all = Certificate::all_from_pem(root.certificate.as_bytes())
                .map_err(|e| StateError::Damaged(e.to_string()))?;
            match (all.pop(), all.is_empty()) {
                (Some(certificate), true) => certificates.push(certificate),
                _ => return Err(damaged("a root has more than one certificate")),
            }
        }
        let active = match document.active {
            None => None,
            Some(index) => {
                let root = document
                    .roots
                    .get(index)
                    .ok_or_else(|| damaged("the active root is missing"))?;
                let certificate = certificates
                    .get(index)
                    .cloned()
                    .ok_or_else(|| damaged("the active root is missing"))?;
                let key = root
                    .key
                    .as_ref()
                    .ok_or_else(|| damaged("the active root has no key"))?;
                let key =
                    SigningKey::from_pem(key.as_bytes()).map_err(|e| StateError::Damaged(e.to_string()))?;
                let authority = Authority::new(Arc::new(key), certificate, Vec::new())
                    .map_err(|e| StateError::Damaged(e.to_string()))?;
                Some(Arc::new(authority))
            }
        };
        let bundle = TrustBundle::new(domain.clone(), certificates, document.sequence)
            .map_err(|e| StateError::Damaged(e.to_string()))?;
        Ok(Self {
            bundle: Arc::new(bundle),
            active,
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
        };
        Zeroizing::new(serde_json::to_vec_pretty(&document).unwrap_or_default())
    }
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
mod tests {
    use super::*;
    use signet_certs::UnixTime;
    use std::time::Duration;

    fn domain() -> TrustDomain {
        "cluster.local".parse().unwrap()
    }

    pub(crate) fn fresh(sequence: u64) -> CaState {
        let key = Arc::new(SigningKey::generate().unwrap());
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let root = Authority::self_signed_root(&domain(), key, Duration::from_secs(86_400), now).unwrap();
        CaState::with_root(&domain(), root, sequence).unwrap()
    }

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        let state = fresh(7);
        let read = CaState::parse(&state.expose_json(), &domain()).unwrap();
        assert!(read.same(&state));
        assert_eq!(
            read.active().unwrap().public_key(),
            state.active().unwrap().public_key()
        );
        let keyless = CaState::with_bundle(Arc::clone(state.bundle()));
        assert!(
            CaState::parse(&keyless.expose_json(), &domain())
                .unwrap()
                .active()
                .is_none()
        );
    }

    #[test]
    fn a_newer_schema_is_refused_by_number_even_when_its_body_is_unknown() {
        let refused = CaState::parse(br#"{"schema":9,"future":true}"#, &domain()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "state has schema 9, this signet knows 1; run the newer signet that wrote it"
        );
    }

    #[test]
    fn damage_and_foreign_states_are_told_apart_and_quote_no_key() {
        let json = fresh(1).expose_json();
        let half = json.get(..json.len() / 2).unwrap();
        let damaged = CaState::parse(half, &domain()).unwrap_err().to_string();
        assert!(
            damaged.ends_with("restore it with `signet authority restore`"),
            "{damaged}"
        );
        let other = "other.test".parse().unwrap();
        let foreign = CaState::parse(&json, &other).unwrap_err().to_string();
        assert_eq!(
            foreign,
            "state belongs to trust domain cluster.local, the configuration says other.test"
        );
        assert!(!format!("{:?}", fresh(1)).contains("PRIVATE"));
    }
}
