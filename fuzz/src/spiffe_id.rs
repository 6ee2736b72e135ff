//! IDs, trust domains and service accounts from any text.

use signet_certs::id::{MAX_ID_BYTES, MAX_TRUST_DOMAIN_BYTES};
use signet_certs::{ServiceAccountId, SpiffeId, TrustDomain};

/// Whatever parses prints as it stood, keeps the bounds, and is the sum of its parts.
pub fn spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
        assert!(text.len() <= MAX_ID_BYTES && text.is_ascii());
        assert_eq!(format!("{}{}", id.trust_domain().id(), id.path()), text);
        assert_eq!(id.trust_domain().as_str().parse(), Ok(id.trust_domain()));
        assert_eq!(id.is_trust_domain(), id.path().is_empty());
        assert!(id.is_in(&id.trust_domain()));
        if let Ok(account) = ServiceAccountId::try_from(&id) {
            assert_eq!(account.spiffe_id(&id.trust_domain()), id);
        }
    }
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.to_string(), text);
        assert!((1..=MAX_TRUST_DOMAIN_BYTES).contains(&text.len()));
        assert_eq!(domain.id().as_str().parse(), Ok(domain.id()));
    }
    if let Ok(account) = text.parse::<ServiceAccountId>() {
        assert_eq!(account.to_string(), text);
    }
}
