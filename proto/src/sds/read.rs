//! The other direction: what a client of the service makes of its secrets. Whatever cannot be read fails its
//! whole resource (I4).

use std::sync::Arc;

use prost::Message as _;
use prost_types::Any;
use signet_certs::bundle::BundleError;
use signet_certs::id::IdError;
use signet_certs::key::KeyError;
use signet_certs::svid::SvidError;
use signet_certs::{BundleSet, SigningKey, SvidChain, TrustBundle, TrustDomain, X509Svid};

use super::{SECRET_TYPE_URL, SPIFFE_VALIDATOR_TYPE_URL};
use crate::wire::envoy::config::core::v3::DataSource;
use crate::wire::envoy::config::core::v3::data_source::Specifier;
use crate::wire::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret,
};

/// Most trust domains in one resource.
pub const MAX_DOMAINS: usize = 1_024;

/// What a secret holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// A chain with its key.
    Pair(X509Svid),
    /// The roots of several trust domains.
    Bundles(BundleSet),
}

/// Why a secret is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Another type of resource.
    #[error("resource is of type {0:?}, not a Secret")]
    Type(String),
    /// Not the message it says it is.
    #[error("{what} cannot be decoded: {fault}")]
    Message {
        /// Which message.
        what: &'static str,
        /// What the decoder said.
        fault: prost::DecodeError,
    },
    /// Neither a key pair nor roots by trust domain.
    #[error("secret {0:?} holds neither a key pair nor roots by trust domain")]
    Kind(String),
    /// A part is not inline.
    #[error("{0} is not inline_bytes")]
    NotInline(&'static str),
    /// A chain that is none.
    #[error("certificate chain: {0}")]
    Chain(#[from] SvidError),
    /// A key that is none. The text holds none of its bytes.
    #[error("private key: {0}")]
    Key(#[from] KeyError),
    /// A name that is none.
    #[error("trust domain {name:?}: {fault}")]
    Domain {
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: IdError,
    },
    /// Roots that are none.
    #[error("roots of {domain}: {fault}")]
    Bundle {
        /// Whose.
        domain: TrustDomain,
        /// What is wrong with them.
        fault: BundleError,
    },
    /// A trust domain that stands twice.
    #[error("trust domain {0} stands twice")]
    Twice(TrustDomain),
    /// More than [`MAX_DOMAINS`].
    #[error("{0} trust domains, at most {MAX_DOMAINS} are read")]
    TooMany(usize),
}

/// Reads one resource: its name and what it holds.
///
/// # Errors
/// A [`ReadError`].
pub fn read(resource: &Any) -> Result<(String, Content), ReadError> {
    if resource.type_url != SECRET_TYPE_URL {
        return Err(ReadError::Type(resource.type_url.chars().take(200).collect()));
    }
    let secret = Secret::decode(resource.value.as_slice()).map_err(undecoded("Secret"))?;
    let content = match secret.r#type {
        Some(secret::Type::TlsCertificate(pair)) => Content::Pair(read_pair(&pair)?),
        Some(secret::Type::ValidationContext(context)) => {
            Content::Bundles(read_roots(&secret.name, &context)?)
        }
        _ => return Err(ReadError::Kind(secret.name)),
    };
    Ok((secret.name, content))
}

fn undecoded(what: &'static str) -> impl Fn(prost::DecodeError) -> ReadError {
    move |fault| ReadError::Message { what, fault }
}

fn read_pair(pair: &TlsCertificate) -> Result<X509Svid, ReadError> {
    let chain = SvidChain::from_pem(bytes(pair.certificate_chain.as_ref(), "certificate_chain")?)?;
    let key = SigningKey::from_pem(bytes(pair.private_key.as_ref(), "private_key")?)?;
    Ok(X509Svid::new(chain, Arc::new(key))?)
}

fn read_roots(name: &str, context: &CertificateValidationContext) -> Result<BundleSet, ReadError> {
    let validator = context.custom_validator_config.as_ref();
    let config = validator.and_then(|validator| validator.typed_config.as_ref());
    let config = config
        .filter(|config| config.type_url == SPIFFE_VALIDATOR_TYPE_URL)
        .ok_or_else(|| ReadError::Kind(name.to_owned()))?;
    let config = SpiffeCertValidatorConfig::decode(config.value.as_slice());
    let domains = config
        .map_err(undecoded("SPIFFECertValidatorConfig"))?
        .trust_domains;
    if domains.len() > MAX_DOMAINS {
        return Err(ReadError::TooMany(domains.len()));
    }
    let mut bundles = BundleSet::default();
    for one in domains {
        let domain: TrustDomain = one.name.parse().map_err(|fault| ReadError::Domain {
            name: one.name.chars().take(255).collect(),
            fault,
        })?;
        if bundles.get(&domain).is_some() {
            return Err(ReadError::Twice(domain));
        }
        let pem = bytes(one.trust_bundle.as_ref(), "trust_bundle")?;
        let bundle = TrustBundle::from_pem(domain.clone(), pem, 0);
        bundles.insert(Arc::new(
            bundle.map_err(|fault| ReadError::Bundle { domain, fault })?,
        ));
    }
    Ok(bundles)
}

fn bytes<'a>(source: Option<&'a DataSource>, what: &'static str) -> Result<&'a [u8], ReadError> {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        _ => Err(ReadError::NotInline(what)),
    }
}
