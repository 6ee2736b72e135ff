//! The persisted form of a foreign bundle: what was newest when it was last fetched, so that a restart
//! neither waits for the endpoint nor goes back.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use signet_certs::bundle::BundleError;
use signet_certs::{TrustBundle, TrustDomain, UnixTime};

/// Largest document read, in bytes; a bundle is fetched with less.
pub const MAX_STORED_BYTES: usize = 256 * 1024;
/// The longest name of a trust domain that is used as it is in the name of a file or key.
const MAX_PLAIN_NAME: usize = 200;

/// Why a stored bundle is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// Not the JSON expected.
    #[error("the stored bundle is damaged")]
    Damaged,
    /// Of another trust domain.
    #[error("the stored bundle is of {0:?}")]
    OtherTrustDomain(String),
    /// It is no bundle.
    #[error("the stored bundle cannot be used: {0}")]
    Bundle(#[from] BundleError),
}

#[derive(Serialize, Deserialize)]
struct Document {
    trust_domain: String,
    /// Seconds since the epoch.
    fetched_at: u64,
    bundle: Value,
}

/// The document of `bundle`.
#[must_use]
pub fn write(bundle: &TrustBundle, fetched_at: UnixTime) -> Vec<u8> {
    let document = Document {
        trust_domain: bundle.trust_domain().to_string(),
        fetched_at: fetched_at.as_secs(),
        bundle: serde_json::from_str(&bundle.to_jwks()).unwrap_or_default(),
    };
    serde_json::to_vec_pretty(&document).unwrap_or_default()
}

/// The bundle of a document, which must be of `domain`.
///
/// # Errors
/// A [`StoredError`].
pub fn read(json: &[u8], domain: &TrustDomain) -> Result<TrustBundle, StoredError> {
    if json.len() > MAX_STORED_BYTES {
        return Err(StoredError::Damaged);
    }
    let document: Document = serde_json::from_slice(json).map_err(|_| StoredError::Damaged)?;
    if document.trust_domain != domain.as_str() {
        return Err(StoredError::OtherTrustDomain(document.trust_domain));
    }
    let bundle = document.bundle.to_string();
    Ok(TrustBundle::from_jwks(domain.clone(), bundle.as_bytes())?)
}

/// Whether a stored document holds a newer bundle of `domain` than one with this sequence.
#[must_use]
pub fn is_newer(json: &[u8], domain: &TrustDomain, sequence: u64) -> bool {
    read(json, domain).is_ok_and(|stored| stored.sequence() > sequence)
}

/// The name under which the bundle of `domain` lies in a directory or Secret.
#[must_use]
pub fn place_of(domain: &TrustDomain) -> String {
    let name = domain.as_str();
    if name.len() <= MAX_PLAIN_NAME {
        return format!("federation.{name}.json");
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    format!("federation.{}.json", signet_certs::key::hex(digest.as_ref()))
}

/// Whether something in a directory or Secret is a foreign bundle.
#[must_use]
pub fn is_place(name: &str) -> bool {
    name.starts_with("federation.") && name.ends_with(".json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bundle_reads_back_and_only_for_its_own_domain() {
        let domain: TrustDomain = "a.test".parse().unwrap();
        let bundle = TrustBundle::new(domain.clone(), Vec::new(), (1 << 53) + 1).unwrap();
        let bundle = bundle.with_refresh_hint(Duration::from_secs(60));
        let json = write(&bundle, UnixTime::since_unix_epoch(Duration::from_secs(9)));
        let again = read(&json, &domain).unwrap();
        assert!(again.same_content(&bundle));
        assert_eq!(
            (again.sequence(), again.refresh_hint()),
            ((1 << 53) + 1, Some(Duration::from_secs(60)))
        );
        let other = read(&json, &"b.test".parse().unwrap());
        assert!(matches!(other, Err(StoredError::OtherTrustDomain(_))));
        assert!(matches!(read(&json[1..], &domain), Err(StoredError::Damaged)));
    }

    #[test]
    fn places_are_short_distinct_and_never_a_path() {
        let dots: TrustDomain = "..".parse().unwrap();
        assert_eq!(place_of(&dots), "federation....json");
        let long: TrustDomain = "a".repeat(255).parse().unwrap();
        assert!(place_of(&long).len() < 253 && is_place(&place_of(&long)));
        assert!(!is_place("state.json") && !is_place("state.lock"));
    }
}
