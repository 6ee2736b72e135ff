//! The persisted form of the JWT authorities, part of the document since schema 2.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use signet_certs::{JwtAuthority, JwtKey, PublicKey, SigningKey, UnixTime};

use super::StateError;
use crate::jwt_keys::{Entry, JwtKeys, MAX_KEYS, Phase};

/// One authority. The private key is there only for one of ours that signs or will.
#[derive(Serialize, Deserialize)]
pub(super) struct DocumentKey {
    kid: String,
    /// DER `SubjectPublicKeyInfo`, base64.
    public_key: String,
    private_key: Option<String>,
    /// Seconds since the epoch, here and below.
    published_at: u64,
    phase: DocumentPhase,
    /// Since when it signs, or until when it is published; of no meaning for a prepared one.
    #[serde(default)]
    at: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DocumentPhase {
    Prepared,
    Active,
    Old,
}

impl Drop for DocumentKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.private_key);
    }
}

pub(super) fn write(keys: &JwtKeys) -> Vec<DocumentKey> {
    let document = |entry: &Entry| {
        let (phase, at) = match entry.phase {
            Phase::Prepared => (DocumentPhase::Prepared, 0),
            Phase::Active { since } => (DocumentPhase::Active, since.as_secs()),
            Phase::Old { until } => (DocumentPhase::Old, until.as_secs()),
        };
        DocumentKey {
            kid: entry.key.kid().into(),
            public_key: STANDARD.encode(entry.key.public_key().spki_der()),
            private_key: entry.own.as_ref().map(|own| own.key().expose_pem().to_string()),
            published_at: entry.published_at.as_secs(),
            phase,
            at,
        }
    };
    keys.0.iter().map(document).collect()
}

pub(super) fn read(documents: &[DocumentKey]) -> Result<JwtKeys, StateError> {
    if documents.len() > MAX_KEYS {
        return Err(StateError::Damaged(format!(
            "it has {} JWT keys",
            documents.len()
        )));
    }
    let mut keys = JwtKeys::default();
    for (position, document) in documents.iter().enumerate() {
        let entry =
            entry(document).map_err(|fault| StateError::Damaged(format!("JWT key {position} {fault}")))?;
        let signs = |e: &Entry| matches!(e.phase, Phase::Active { .. });
        if signs(&entry) && keys.0.iter().any(signs) {
            return Err(StateError::Damaged("two JWT keys are active".into()));
        }
        keys.0.push(entry);
    }
    Ok(keys)
}

fn entry(document: &DocumentKey) -> Result<Entry, String> {
    let public = STANDARD
        .decode(&document.public_key)
        .map_err(|_| "is not base64".to_owned())?;
    let public = PublicKey::from_spki_der(&public).map_err(|e| e.to_string())?;
    let key = JwtKey::new(document.kid.clone(), public).map_err(|e| e.to_string())?;
    let own = document.private_key.as_deref().map(private).transpose()?;
    if own.as_ref().is_some_and(|own| *own.public() != key) {
        return Err("does not belong to its private key".into());
    }
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    Ok(Entry {
        key,
        own: own.map(Arc::new),
        published_at: at(document.published_at),
        phase: match document.phase {
            DocumentPhase::Prepared => Phase::Prepared,
            DocumentPhase::Active => Phase::Active {
                since: at(document.at),
            },
            DocumentPhase::Old => Phase::Old {
                until: at(document.at),
            },
        },
    })
}

fn private(pem: &str) -> Result<JwtAuthority, String> {
    let key = SigningKey::from_pem(pem.as_bytes()).map_err(|e| e.to_string())?;
    JwtAuthority::new(Arc::new(key)).map_err(|e| e.to_string())
}
