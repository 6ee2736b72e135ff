//! The JSON objects of the admin pages.

use serde::Serialize;
use serde_json::{Value, json};
use signet_certs::TrustBundle;
use signet_runtime::clock::rfc3339;

use crate::status::LastFailure;
use crate::svids::{Shown, Trust};

/// An SVID as an operator sees it: everything but its key.
#[derive(Debug, Serialize)]
pub(super) struct SvidView {
    spiffe_id: String,
    serial: String,
    authority_id: String,
    key: String,
    not_before: String,
    not_after: String,
    received_at: String,
    renews_at: Option<String>,
    renewals: u64,
    last_success: Option<String>,
    last_failure: Option<FailureView>,
    chain_pem: String,
}

/// A failure as an operator sees it.
#[derive(Debug, Serialize)]
pub(super) struct FailureView {
    at: String,
    reason: &'static str,
    error: String,
}

impl From<&LastFailure> for FailureView {
    fn from(failure: &LastFailure) -> Self {
        Self {
            at: rfc3339(failure.at),
            reason: failure.kind.code(),
            error: failure.text.clone(),
        }
    }
}

/// The SVID in this place, if one is served.
pub(super) fn svid(shown: &Shown) -> Option<SvidView> {
    let (verified, status) = (shown.verified.as_ref()?, &shown.status);
    let chain = verified.svid().chain();
    let leaf = chain.leaf();
    let issuer = chain
        .intermediates()
        .first()
        .map(signet_certs::bundle::authority_id);
    Some(SvidView {
        spiffe_id: chain.id().to_string(),
        serial: chain.serial(),
        authority_id: leaf
            .authority_key_id()
            .map(str::to_owned)
            .or(issuer)
            .unwrap_or_default(),
        key: verified.svid().key().public_key().kind().to_string(),
        not_before: rfc3339(chain.not_before()),
        not_after: rfc3339(chain.not_after()),
        received_at: rfc3339(verified.received()),
        renews_at: status.renews_at.map(rfc3339),
        renewals: status.renewals,
        last_success: status.last_success.map(rfc3339),
        last_failure: status.last_failure.as_ref().map(Into::into),
        chain_pem: chain.to_pem(),
    })
}

pub(super) fn bundle(bundle: &TrustBundle) -> Value {
    json!({
        "trust_domain": bundle.trust_domain().as_str(),
        "sequence": bundle.sequence(),
        "refresh_hint_seconds": bundle.refresh_hint().map(|hint| hint.as_secs()),
        "pem": bundle.to_pem(),
        "jwks": bundle.to_jwks(),
    })
}

/// The domains we federate with, once there is a bundle at all.
pub(super) fn federation(trust: &Trust) -> Option<Value> {
    let own = trust.own()?;
    let federated: Vec<Value> = trust
        .foreign()
        .iter()
        .map(|bundle| {
            json!({
                "trust_domain": bundle.trust_domain().as_str(),
                "sequence": bundle.sequence(),
                "roots": bundle.roots().len(),
                "jwt_keys": bundle.jwt_keys().len(),
                "refresh_hint_seconds": bundle.refresh_hint().map(|hint| hint.as_secs()),
            })
        })
        .collect();
    Some(json!({
        "trust_domain": own.trust_domain().as_str(),
        "sequence": own.sequence(),
        "federated": federated,
    }))
}
