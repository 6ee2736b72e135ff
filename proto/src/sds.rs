//! SDS secrets: SVIDs and bundles in Envoy's messages (PEM in `inline_bytes`).

mod read;
mod sequences;

use bytes::Bytes;
use prost::Message as _;
use prost_types::Any;
use signet_certs::key::KeyError;
use signet_certs::{BundleSet, TrustBundle, X509Svid};

use crate::wire::envoy::config::core::v3::data_source::Specifier;
use crate::wire::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use crate::wire::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use crate::wire::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret,
};

pub use read::{Content, MAX_DOMAINS, ReadError, read};
pub use sequences::{numbered, sequences_message};

/// Type of every resource of this service.
pub const SECRET_TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Envoy's registered name of its SPIFFE validator.
const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const SPIFFE_VALIDATOR_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// A key pair under `name`: chain leaf first without the root, key as PKCS#8, in one resource so that
/// Envoy never holds halves of two.
///
/// # Errors
/// When the key cannot be written as PKCS#8.
pub fn key_pair(name: &str, svid: &X509Svid) -> Result<Any, KeyError> {
    let pair = TlsCertificate {
        certificate_chain: inline(svid.chain().to_pem().into_bytes()),
        private_key: inline(svid.key().expose_pem().as_bytes().to_vec()),
    };
    Ok(resource(name, secret::Type::TlsCertificate(pair)))
}

/// The roots of one trust domain under `name`, as a plain `trusted_ca`.
#[must_use]
pub fn roots(name: &str, bundle: &TrustBundle) -> Any {
    let context = CertificateValidationContext {
        trusted_ca: inline(bundle.to_pem().into_bytes()),
        custom_validator_config: None,
    };
    resource(name, secret::Type::ValidationContext(context))
}

/// Every trust domain under `name`, one store each, for Envoy's SPIFFE validator: a foreign root can
/// never vouch for a local name.
#[must_use]
pub fn roots_by_domain(name: &str, bundles: &BundleSet) -> Any {
    let mut trust_domains: Vec<TrustDomain> = bundles
        .iter()
        .map(|bundle| TrustDomain {
            name: bundle.trust_domain().to_string(),
            trust_bundle: inline(bundle.to_pem().into_bytes()),
        })
        .collect();
    trust_domains.sort_by(|a, b| a.name.cmp(&b.name));
    let config = Any {
        type_url: SPIFFE_VALIDATOR_TYPE_URL.into(),
        value: SpiffeCertValidatorConfig { trust_domains }.encode_to_vec(),
    };
    let context = CertificateValidationContext {
        trusted_ca: None,
        custom_validator_config: Some(TypedExtensionConfig {
            name: SPIFFE_VALIDATOR.into(),
            typed_config: Some(config),
        }),
    };
    resource(name, secret::Type::ValidationContext(context))
}

fn resource(name: &str, kind: secret::Type) -> Any {
    let secret = Secret {
        name: name.into(),
        r#type: Some(kind),
    };
    Any {
        type_url: SECRET_TYPE_URL.into(),
        value: secret.encode_to_vec(),
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every field that takes it is optional on the wire"
)]
fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineBytes(Bytes::from(bytes))),
    })
}
