//! The SPIFFE Workload API: SVIDs, bundles and claims in its messages (SPIFFE_Workload_API §5, §6).
//!
//! Certificates are DER, concatenated. A bundle goes under its trust domain's SPIFFE ID. A private
//! key is wiped with the last copy of its message, a token with each.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use signet_certs::certificate::Certificate;
use signet_certs::key::KeyError;
use signet_certs::{BundleSet, SpiffeId, TrustBundle, TrustDomain, X509Svid};
use zeroize::Zeroize as _;

use crate::wire::{Jwtsvid, ValidateJwtsvidRequest, X509svid};

/// Key of the metadata that every call carries (SPIFFE_Workload_Endpoint §3).
pub const SECURITY_KEY: &str = "workload.spiffe.io";
/// Its value.
pub const SECURITY_VALUE: &str = "true";
/// Descriptors of the services on the agent's socket, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/socket.descriptors");
/// How deep a claim may be nested. Each level takes up to three messages, and protobuf readers refuse
/// a hundred.
const MAX_CLAIM_DEPTH: usize = 16;

/// An SVID for its workload: the chain leaf first without the root, the key as PKCS#8, `bundle` as
/// [`x509_bundle`] makes it.
///
/// # Errors
/// When the key cannot be written as PKCS#8.
pub fn x509_svid(svid: &X509Svid, bundle: Bytes, hint: Option<&str>) -> Result<X509svid, KeyError> {
    Ok(X509svid {
        spiffe_id: svid.id().to_string(),
        x509_svid: concatenated(svid.chain().certificates()),
        // Shared by every copy of the message, wiped with the last one (I3).
        x509_svid_key: Bytes::from_owner(svid.key().expose_pkcs8_der()?),
        bundle,
        hint: hint.unwrap_or_default().to_owned(),
    })
}

/// The X.509 authorities of one trust domain.
#[must_use]
pub fn x509_bundle(bundle: &TrustBundle) -> Bytes {
    concatenated(bundle.roots().iter().map(|root| root.certificate()))
}

/// The JWT keys of one trust domain, as a JWK set that general JWT libraries read too.
#[must_use]
pub fn jwt_bundle(bundle: &TrustBundle) -> Bytes {
    Bytes::from(bundle.to_jwt_jwks())
}

/// What a bundle of `domain` is filed under.
#[must_use]
pub fn domain_key(domain: &TrustDomain) -> String {
    domain.id().to_string()
}

/// The X.509 bundles of all domains but `own`. A domain without one is left out: its absence tells a
/// client to unload, where an empty value would be unreadable to some.
#[must_use]
pub fn foreign_x509_bundles(bundles: &BundleSet, own: &TrustDomain) -> BTreeMap<String, Bytes> {
    foreign(bundles, own)
        .filter(|bundle| !bundle.roots().is_empty())
        .map(|bundle| (domain_key(bundle.trust_domain()), x509_bundle(bundle)))
        .collect()
}

/// The JWT bundles of all domains but `own`; as [`foreign_x509_bundles`].
#[must_use]
pub fn foreign_jwt_bundles(bundles: &BundleSet, own: &TrustDomain) -> BTreeMap<String, Bytes> {
    foreign(bundles, own)
        .filter(|bundle| !bundle.jwt_keys().is_empty())
        .map(|bundle| (domain_key(bundle.trust_domain()), jwt_bundle(bundle)))
        .collect()
}

fn foreign<'a>(bundles: &'a BundleSet, own: &'a TrustDomain) -> impl Iterator<Item = &'a TrustBundle> {
    bundles
        .iter()
        .map(AsRef::as_ref)
        .filter(move |bundle: &&TrustBundle| bundle.trust_domain() != own)
}

/// A token for its workload.
#[must_use]
pub fn jwt_svid(id: &SpiffeId, token: &str, hint: Option<&str>) -> Jwtsvid {
    Jwtsvid {
        spiffe_id: id.to_string(),
        svid: token.to_owned(),
        hint: hint.unwrap_or_default().to_owned(),
    }
}

/// The claims of a validated token. A claim that is nested too deep for common readers is left out.
#[must_use]
pub fn claims(claims: &serde_json::Map<String, serde_json::Value>) -> Struct {
    let fields = claims
        .iter()
        .filter_map(|(name, claim)| Some((name.clone(), value(claim, MAX_CLAIM_DEPTH)?)))
        .collect();
    Struct { fields }
}

/// `None` when it is nested deeper than `depth`.
fn value(json: &serde_json::Value, depth: usize) -> Option<Value> {
    use serde_json::Value as Json;
    let below = depth.checked_sub(1)?;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(yes) => Kind::BoolValue(*yes),
        Json::Number(number) => Kind::NumberValue(number.as_f64()?),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => {
            let values: Option<Vec<Value>> = items.iter().map(|item| value(item, below)).collect();
            Kind::ListValue(ListValue { values: values? })
        }
        Json::Object(members) => {
            let fields: Option<BTreeMap<String, Value>> = members
                .iter()
                .map(|(name, member)| Some((name.clone(), value(member, below)?)))
                .collect();
            Kind::StructValue(Struct { fields: fields? })
        }
    };
    Some(Value { kind: Some(kind) })
}

fn concatenated<'a>(certificates: impl Iterator<Item = &'a Certificate>) -> Bytes {
    let mut der = Vec::new();
    for certificate in certificates {
        der.extend_from_slice(certificate.der());
    }
    Bytes::from(der)
}

/// A token is good for whoever holds it, so no copy outlives its message.
impl Drop for Jwtsvid {
    fn drop(&mut self) {
        self.svid.zeroize();
    }
}

impl Drop for ValidateJwtsvidRequest {
    fn drop(&mut self) {
        self.svid.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(json: serde_json::Value) -> Struct {
        let serde_json::Value::Object(map) = json else {
            unreachable!("tests pass objects")
        };
        claims(&map)
    }

    #[test]
    fn claims_keep_their_kinds() {
        let read = of(json!({
            "sub": "spiffe://td/a", "aud": ["x", "y"], "exp": 1_893_456_000, "flag": true, "none": null,
            "deep": {"list": [1.5, {"k": "v"}]},
        }));
        let kind = |name: &str| read.fields[name].kind.clone().unwrap();
        assert_eq!(kind("sub"), Kind::StringValue("spiffe://td/a".into()));
        assert_eq!(kind("exp"), Kind::NumberValue(1_893_456_000.0));
        assert_eq!(kind("flag"), Kind::BoolValue(true));
        assert_eq!(kind("none"), Kind::NullValue(0));
        let Kind::ListValue(audience) = kind("aud") else {
            panic!("aud is a list")
        };
        assert_eq!(audience.values.len(), 2);
        let Kind::StructValue(deep) = kind("deep") else {
            panic!("deep is a struct")
        };
        assert!(matches!(deep.fields["list"].kind, Some(Kind::ListValue(_))));
    }

    #[test]
    fn a_claim_nested_too_deep_is_left_out_and_the_others_stay() {
        let mut deep = json!("end");
        for _ in 0..MAX_CLAIM_DEPTH {
            deep = json!([deep]);
        }
        let fits = deep[0].clone();
        let read = of(json!({"sub": "spiffe://td/a", "deep": deep, "fits": fits}));
        assert_eq!(read.fields.keys().collect::<Vec<_>>(), ["fits", "sub"]);
    }

    #[test]
    fn tokens_do_not_show_in_debug_output() {
        let message = crate::wire::JwtsvidResponse {
            svids: vec![jwt_svid(&"spiffe://td/a".parse().unwrap(), "a.b.c", None)],
        };
        let question = ValidateJwtsvidRequest {
            audience: "x".into(),
            svid: "a.b.c".into(),
        };
        for shown in [format!("{message:?}"), format!("{question:?}")] {
            assert!(!shown.contains("a.b.c"), "{shown}");
        }
    }
}
