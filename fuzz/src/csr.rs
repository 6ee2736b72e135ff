//! Signing requests in PEM and DER.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signet_certs::csr::MAX_CSR_BYTES;
use signet_certs::key::KeyKind;
use signet_certs::{Csr, SpiffeId};

/// A request in DER. What is accepted is accepted in PEM too, and is the same request.
pub fn csr_der(data: &[u8]) {
    let Ok(csr) = Csr::from_der(data) else { return };
    assert!(data.len() <= MAX_CSR_BYTES);
    accepted(&csr);
    let body = STANDARD.encode(data);
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    match Csr::from_pem(&pem) {
        Ok(again) => assert_eq!(again.hash(), csr.hash()),
        Err(refused) => assert!(pem.len() > MAX_CSR_BYTES, "{refused}"),
    }
}

/// A request in PEM.
pub fn csr_pem(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(csr) = Csr::from_pem(text) {
        assert!(text.len() <= MAX_CSR_BYTES);
        accepted(&csr);
    }
}

fn accepted(csr: &Csr) {
    assert_eq!(csr.hash().len(), 64);
    if let KeyKind::Rsa(bits) = csr.public_key().kind() {
        assert!((2048..=8192).contains(&bits));
    }
    // It never passes for an identity that it does not name, if it names one.
    let ids = [
        "spiffe://cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/till",
    ];
    let ids: Vec<SpiffeId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    for id in &ids {
        if csr.check_names(id).is_ok() {
            assert!(csr.requested_uri().is_none_or(|uri| uri == id.as_str()));
        }
    }
}
