//! JWT-SVIDs: taking tokens apart, validation under fixed bundles.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use signet_certs::jwt::{JwtError, Validated};
use signet_certs::{BundleSet, JwtSvid, TrustBundle, UnixTime};

use crate::FIXTURE_TIME;

/// The bundles that the seeds' tokens are judged by: of `cluster.local` and `other.test`.
const BUNDLES: [(&str, &str); 2] = [
    (
        "cluster.local",
        include_str!("../fixtures/jwt-cluster.local.json"),
    ),
    ("other.test", include_str!("../fixtures/jwt-other.test.json")),
];
/// For whom the seeds' tokens are.
const AUDIENCE: &str = "https://vault.test";

static SET: LazyLock<BundleSet> = LazyLock::new(|| {
    let mut set = BundleSet::default();
    for (domain, json) in BUNDLES {
        let bundle = domain
            .parse()
            .ok()
            .and_then(|domain| TrustBundle::from_jwks(domain, json.as_bytes()).ok());
        if let Some(bundle) = bundle {
            set.insert(Arc::new(bundle));
        }
    }
    set
});

/// What the validator says of a token at the time of the fixtures.
///
/// # Errors
/// Its reason.
pub fn validate(token: &str) -> Result<Validated, JwtError> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(FIXTURE_TIME));
    JwtSvid::validate(token, AUDIENCE, &SET, now)
}

/// A token. What validates is in form, for its audience, of a known domain and not over; what does not has
/// a reason that is short enough for a log line.
pub fn jwt_svid(data: &[u8]) {
    let Ok(token) = std::str::from_utf8(data) else {
        return;
    };
    let read = JwtSvid::read_unverified(token);
    match validate(token) {
        Ok(found) => {
            assert!(read.is_ok_and(|read| read.check().is_ok() && read.id() == Some(found.id.clone())));
            assert!(!found.id.is_trust_domain() && SET.get(&found.id.trust_domain()).is_some());
            assert!(found.audience.iter().any(|one| one == AUDIENCE));
            assert!(found.expires_at.as_secs() + 30 > FIXTURE_TIME);
        }
        Err(fault) => assert!(fault.to_string().len() < 8 * 1024 && !fault.as_str().is_empty()),
    }
}
