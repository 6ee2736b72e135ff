//! What has to be known of the CA's state to move it safely: that it is one, whose, and its sequence.
//! Private keys are passed through as bytes and never looked at.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;
use signet_certs::TrustDomain;
use signet_certs::bundle::authority_id;
use signet_certs::certificate::Certificate;
use zeroize::Zeroizing;

use super::{MovedKey, MovedRoot};

/// The newest schema known here; the first had no JWT keys.
const SCHEMA: u32 = 2;

/// Why bytes are not the state of a CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Not the JSON agreed.
    #[error("is no state of a CA")]
    Foreign,
    /// Written by a newer CA.
    #[error("is state of schema {found}, this signet knows schema {SCHEMA}; use the signet of that CA")]
    Newer {
        /// The schema found.
        found: u32,
    },
    /// One of its roots is no certificate.
    #[error("holds a root that cannot be read: {0}")]
    Root(String),
    /// The signing root is not among its roots, or has no key.
    #[error("names root {0} as the one that signs, which is missing or has no key")]
    Active(usize),
}

/// The state of a CA, without its keys.
#[derive(Clone, Debug)]
pub struct State {
    trust_domain: TrustDomain,
    sequence: u64,
    roots: Vec<MovedRoot>,
    jwt_keys: Vec<MovedKey>,
}

#[derive(Deserialize)]
struct Document {
    trust_domain: String,
    sequence: u64,
    roots: Vec<DocumentRoot>,
    active: Option<usize>,
    #[serde(default)]
    jwt_keys: Vec<DocumentKey>,
}

#[derive(Deserialize)]
struct DocumentKey {
    kid: String,
    private_key: Option<IgnoredAny>,
    phase: String,
}

#[derive(Deserialize)]
struct DocumentRoot {
    certificate: String,
    key: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

impl State {
    /// Reads `state.json`.
    ///
    /// # Errors
    /// A [`StateError`]; its text holds nothing of the state but names.
    pub fn read(json: &[u8]) -> Result<Self, StateError> {
        let SchemaOnly { schema } = serde_json::from_slice(json).map_err(|_| StateError::Foreign)?;
        match schema {
            1..=SCHEMA => {}
            found if found > SCHEMA => return Err(StateError::Newer { found }),
            _ => return Err(StateError::Foreign),
        }
        let document: Document = serde_json::from_slice(json).map_err(|_| StateError::Foreign)?;
        let trust_domain = document.trust_domain.parse().map_err(|_| StateError::Foreign)?;
        let mut roots = Vec::with_capacity(document.roots.len());
        for (index, root) in document.roots.iter().enumerate() {
            let all = Certificate::all_from_pem(root.certificate.as_bytes())
                .map_err(|e| StateError::Root(e.to_string()))?;
            let [certificate] = all.as_slice() else {
                return Err(StateError::Root(format!("it holds {} certificates", all.len())));
            };
            let (has_key, active) = (root.key.is_some(), document.active == Some(index));
            roots.push(MovedRoot {
                authority_id: authority_id(certificate),
                has_key,
                active,
            });
        }
        match document.active {
            Some(index) if !roots.get(index).is_some_and(|root| root.has_key) => {
                Err(StateError::Active(index))
            }
            _ => Ok(Self {
                trust_domain,
                sequence: document.sequence,
                roots,
                jwt_keys: document.jwt_keys.into_iter().map(Into::into).collect(),
            }),
        }
    }

    /// Its trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The sequence of its bundle.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Its roots.
    #[must_use]
    pub fn roots(&self) -> &[MovedRoot] {
        &self.roots
    }

    /// Its keys for JWT-SVIDs.
    #[must_use]
    pub fn jwt_keys(&self) -> &[MovedKey] {
        &self.jwt_keys
    }

    /// Whether both publish the same roots and JWT keys, so that one number may stand for both.
    fn same_bundle(&self, other: &Self) -> bool {
        let kids = |state: &Self| {
            state
                .jwt_keys
                .iter()
                .map(|key| key.kid.clone())
                .collect::<BTreeSet<_>>()
        };
        self.roots == other.roots && kids(self) == kids(other)
    }

    /// The sequence this state must have when it takes the place of `there` (I5): its own if that is
    /// higher, or the state is the same; otherwise one more. State that cannot be read has no say.
    #[must_use]
    pub fn sequence_after(&self, there: &[u8]) -> u64 {
        match Self::read(there) {
            Ok(other) if other.sequence >= self.sequence && !self.same_bundle(&other) => {
                other.sequence.saturating_add(1)
            }
            Ok(other) => self.sequence.max(other.sequence),
            Err(_) => self.sequence,
        }
    }
}

impl From<DocumentKey> for MovedKey {
    fn from(key: DocumentKey) -> Self {
        Self {
            kid: key.kid,
            has_key: key.private_key.is_some(),
            state: key.phase,
        }
    }
}

/// The same document under another sequence; members unknown here stay as they are.
///
/// # Errors
/// [`StateError::Foreign`].
pub fn with_sequence(json: &[u8], sequence: u64) -> Result<Zeroizing<Vec<u8>>, StateError> {
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(json).map_err(|_| StateError::Foreign)?;
    document.insert("sequence".into(), sequence.into());
    serde_json::to_vec_pretty(&document)
        .map(Zeroizing::new)
        .map_err(|_| StateError::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    use signet_certs::{Authority, SigningKey, UnixTime};

    fn document(sequence: u64) -> Vec<u8> {
        let domain = "cluster.local".parse().unwrap();
        let key = Arc::new(SigningKey::generate().unwrap());
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let root = Authority::self_signed_root(&domain, key, Duration::from_secs(86_400), now).unwrap();
        serde_json::to_vec(&serde_json::json!({
            "schema": 1, "trust_domain": "cluster.local", "sequence": sequence, "active": 0, "later": [1, 2],
            "roots": [{"certificate": root.certificate().to_pem(), "key": root.key().expose_pem().as_str()}],
        }))
        .unwrap()
    }

    #[test]
    fn a_restored_bundle_never_goes_backwards() {
        let (backup, there) = (document(5), document(9));
        let state = State::read(&backup).unwrap();
        assert_eq!(state.sequence_after(&there), 10, "other roots, so a later number");
        assert_eq!(
            state.sequence_after(&backup),
            5,
            "the same state keeps its number"
        );
        assert_eq!(
            state.sequence_after(&document(3)),
            5,
            "a lower number does not matter"
        );
        assert_eq!(
            state.sequence_after(&document(5)),
            6,
            "other roots under the same number"
        );
        let newer_of_same = with_sequence(&backup, 8).unwrap();
        assert_eq!(state.sequence_after(&newer_of_same), 8);
        assert_eq!(state.sequence_after(b"damaged"), 5);
    }

    #[test]
    fn other_jwt_keys_are_another_bundle() {
        let plain = document(5);
        let with_keys = |kids: &[&str]| {
            let mut state: serde_json::Value = serde_json::from_slice(&plain).unwrap();
            state["schema"] = 2.into();
            let key =
                |kid: &&str| serde_json::json!({"kid": kid, "private_key": null, "phase": "old", "at": 1});
            state["jwt_keys"] = kids.iter().map(key).collect();
            serde_json::to_vec(&state).unwrap()
        };
        let state = State::read(&with_keys(&["a", "b"])).unwrap();
        assert_eq!(
            (state.jwt_keys()[0].has_key, &*state.jwt_keys()[0].state),
            (false, "old")
        );
        assert_eq!(state.sequence_after(&plain), 6);
        assert_eq!(state.sequence_after(&with_keys(&["a", "c"])), 6);
        assert_eq!(state.sequence_after(&with_keys(&["b", "a"])), 5);
    }

    #[test]
    fn raising_the_sequence_changes_nothing_else() {
        let before: serde_json::Value = serde_json::from_slice(&document(5)).unwrap();
        let raised = with_sequence(&serde_json::to_vec(&before).unwrap(), 10).unwrap();
        let mut after: serde_json::Value = serde_json::from_slice(&raised).unwrap();
        assert_eq!(after["sequence"], 10);
        after["sequence"] = 5.into();
        assert_eq!(before, after);
    }

    #[test]
    fn what_is_no_state_is_told_by_its_reason() {
        let read = |text: &str| State::read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(read("{}"), "is no state of a CA");
        assert_eq!(read("{\"schema\":1}"), "is no state of a CA");
        assert_eq!(
            read("{\"schema\":3,\"shape\":\"new\"}"),
            "is state of schema 3, this signet knows schema 2; use the signet of that CA"
        );
        let empty = r#"{"schema":1,"trust_domain":"a","sequence":1,"roots":[],"active":0}"#;
        assert_eq!(
            read(empty),
            "names root 0 as the one that signs, which is missing or has no key"
        );
    }
}
