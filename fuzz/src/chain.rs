//! Certificates and chains: parsing, the profile, path validation under a fixed root.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use signet_certs::certificate::Certificate;
use signet_certs::profile::check_leaf;
use signet_certs::verify::{Role, verify_peer};
use signet_certs::{BundleSet, CertificateDer, SvidChain, TrustBundle, UnixTime};

/// The root that the seeds' chains end in.
pub const ROOT: &str = include_str!("../fixtures/root.pem");
/// When the seeds' chains are valid: 2027-01-15, in seconds.
pub const FIXTURE_TIME: u64 = 1_800_000_000;

static BUNDLES: LazyLock<BundleSet> = LazyLock::new(|| {
    let bundle = "cluster.local"
        .parse()
        .ok()
        .and_then(|td| TrustBundle::from_pem(td, ROOT.as_bytes(), 1).ok());
    bundle
        .map(|bundle| BundleSet::of(Arc::new(bundle)))
        .unwrap_or_default()
});

/// A chain: certificates in DER, each behind its length in two bytes, leaf first.
pub fn chain(data: &[u8]) {
    let ders = parts(data);
    for der in &ders {
        if let Ok(certificate) = Certificate::from_der(der.clone()) {
            assert_eq!(certificate.der(), der);
            let again = Certificate::all_from_pem(certificate.to_pem().as_bytes());
            assert!(again.is_ok_and(|all| all.iter().map(Certificate::der).eq([der])));
            assert_eq!(check_leaf(&certificate).len(), 8);
        }
    }
    let parsed = SvidChain::from_der(ders.clone());
    if let Ok(chain) = &parsed {
        assert_eq!(chain.to_der(), ders);
        assert!(SvidChain::from_pem(chain.to_pem().as_bytes()).is_ok());
        assert!(check_leaf(chain.leaf()).iter().all(|rule| rule.fault.is_none()));
        assert!(!chain.id().is_trust_domain());
    }
    let now = UnixTime::since_unix_epoch(Duration::from_secs(FIXTURE_TIME));
    let server = verify_peer(&ders, &BUNDLES, Role::Server, now);
    let client = verify_peer(&ders, &BUNDLES, Role::Client, now);
    for id in [server, client].into_iter().flatten() {
        assert_eq!(id.trust_domain_name(), "cluster.local");
        if let Ok(chain) = &parsed {
            assert_eq!(chain.id(), &id);
            assert!(chain.leaf().not_before() <= now && now <= chain.leaf().not_after());
        }
    }
}

/// Splits a corpus file into its certificates; what is short of its length is taken as it is.
#[must_use]
pub fn parts(mut data: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut all = Vec::new();
    while let Some((head, rest)) = data.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*head)).min(rest.len());
        let (der, rest) = rest.split_at(len);
        all.push(CertificateDer::from(der.to_vec()));
        data = rest;
    }
    all
}

/// The corpus form of a chain; the opposite of [`parts`].
#[must_use]
pub fn pack(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for der in chain {
        out.extend(u16::try_from(der.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(der);
    }
    out
}
