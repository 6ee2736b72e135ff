//! What issuing costs beside the two P-256 operations, in memory: reading a CSR, and making a leaf,
//! reading it again and checking it.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::{Authority, Csr, LeafProfile, SigningKey, TrustDomain, UnixTime, csr, issue};

use crate::crypto::{Limit, per_round};

/// CPU time of each part beyond the limit's.
pub(crate) struct Parts {
    /// PEM text to a checked request, without the verification.
    pub(crate) csr: Duration,
    /// Permit to chain, without the signature.
    pub(crate) leaf: Duration,
}

/// Medians of nine rounds, as the limit's.
pub(crate) fn measure(limit: Limit) -> Parts {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let new_key = || Arc::new(SigningKey::generate().expect("a key"));
    let life = Duration::from_secs(30 * 24 * 3600);
    let root = Authority::self_signed_root(&domain, new_key(), life, now).expect("a root");
    let issuing = root
        .issue_intermediate(&domain, new_key(), life, now)
        .expect("an authority");
    let profile = LeafProfile {
        id: "spiffe://cluster.local/ns/bench/sa/w0".parse().expect("an id"),
        ttl: Duration::from_secs(24 * 3600),
        min_left: Duration::from_secs(60),
        dns: Vec::new(),
    };
    let key = new_key();
    let request = csr::request(&key, Some(&profile.id)).expect("a request");
    let csr = per_round(&|| {
        Csr::from_pem(&request).expect("reads");
    });
    let leaf = per_round(&|| {
        issue(&profile, key.public_key(), &issuing, now).expect("issues");
    });
    Parts {
        csr: csr.saturating_sub(limit.verify),
        leaf: leaf.saturating_sub(limit.sign),
    }
}
