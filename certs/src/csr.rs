//! Certificate signing requests (PKCS#10, RFC 2986): size-capped, parsed strictly, possession proven.
//!
//! Only the public key of a CSR ever reaches a certificate. Names in it are compared with the permit
//! by [`Csr::check_names`] and never used (I2).

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519, Oid,
};
use x509_parser::prelude::FromDer;

use crate::certificate::{Names, shown};
use crate::id::SpiffeId;
use crate::key::{KeyError, KeyKind, PublicKey, SigningKey, hex};

/// Longest CSR read, in bytes of PEM text. An RSA-8192 request needs about 3,000.
pub const MAX_CSR_BYTES: usize = 32 * 1024;

/// What a CSR is called in PEM (RFC 7468 §7).
const PEM_LABEL: &str = "CERTIFICATE REQUEST";

/// Why a CSR is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// Longer than [`MAX_CSR_BYTES`].
    #[error("csr has {0} bytes, at most {MAX_CSR_BYTES} are read")]
    TooLarge(usize),
    /// No `CERTIFICATE REQUEST` block, or more than one.
    #[error("csr is not one PEM block of type CERTIFICATE REQUEST")]
    NotPem,
    /// Not a PKCS#10 request.
    #[error("csr is not a PKCS#10 request: {0}")]
    Malformed(String),
    /// The key is weak or of a kind that is not accepted.
    #[error("csr {0}")]
    Key(#[from] KeyError),
    /// The signature algorithm is not accepted, or does not fit the key.
    #[error("csr is signed with {algorithm}, which is not accepted for a {key} key")]
    Algorithm {
        /// Dotted OID found.
        algorithm: String,
        /// Kind of the key in the request.
        key: KeyKind,
    },
    /// The signature does not prove possession of the key.
    #[error("csr signature does not match its key")]
    UnprovenKey,
    /// The request asks for a CA certificate.
    #[error("csr asks for a CA certificate; workloads get leaves only")]
    AsksForCa,
    /// More than one URI name.
    #[error("csr asks for {found} URI names; an SVID has exactly one")]
    UriSans {
        /// How many there are.
        found: usize,
    },
    /// A name other than the identity the caller may have.
    #[error("csr asks for {:?}, but the caller may have only {permitted}", shown(asked))]
    OtherName {
        /// What the request names.
        asked: String,
        /// What the permit names.
        permitted: SpiffeId,
    },
}

/// A request whose signature proved possession of its key.
#[derive(Clone, Debug)]
pub struct Csr {
    public_key: PublicKey,
    names: Names,
    common_names: Vec<String>,
    hash: String,
}

impl Csr {
    /// Reads one PEM request and verifies its signature.
    ///
    /// # Errors
    /// A [`CsrError`], cheapest test first: size, form, key strength, CA flag, URI count, signature.
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLarge(pem.len()));
        }
        if let Some(der) = crate::der::plain_pem(PEM_LABEL, pem) {
            return Self::from_der(&der);
        }
        let mut blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes());
        match (blocks.next(), blocks.next()) {
            (Some(Ok((SectionKind::Csr, der))), None) => Self::from_der(&der),
            _ => Err(CsrError::NotPem),
        }
    }

    /// Reads one DER request and verifies its signature.
    ///
    /// # Errors
    /// As [`Csr::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLarge(der.len()));
        }
        let (rest, csr) =
            X509CertificationRequest::from_der(der).map_err(|e| CsrError::Malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed(format!("{} bytes after it", rest.len())));
        }
        let info = &csr.certification_request_info;
        let public_key = PublicKey::from_spki_der(info.subject_pki.raw)?;
        let names = requested(&csr)?;
        let common_names = info
            .subject
            .iter_common_name()
            .map(|cn| cn.as_str().unwrap_or("(not text)").to_owned())
            .filter(|cn| !cn.is_empty())
            .collect();
        prove_possession(&csr, &public_key)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        Ok(Self {
            public_key,
            names,
            common_names,
            hash: hex(digest.as_ref()),
        })
    }

    /// The key to certify.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// SHA-256 of the DER in hex: the only form in which a CSR is logged.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// As [`Csr::hash`], when nothing else of the request is needed any more.
    #[must_use]
    pub fn into_hash(self) -> String {
        self.hash
    }

    /// Every name in the request is the permitted one, or there is none.
    ///
    /// # Errors
    /// [`CsrError::OtherName`] naming both.
    pub fn check_names(&self, permitted: &SpiffeId) -> Result<(), CsrError> {
        let others = self.names.dns.iter().chain(&self.names.others);
        let wrong_uri = self.names.uris.iter().find(|uri| *uri != permitted.as_str());
        let wrong_cn = self.common_names.iter().find(|cn| *cn != permitted.as_str());
        match wrong_uri.or(wrong_cn).into_iter().chain(others).next() {
            Some(asked) => Err(CsrError::OtherName {
                asked: asked.clone(),
                permitted: permitted.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The one URI name asked for, if any; unjudged text.
    #[must_use]
    pub fn requested_uri(&self) -> Option<&str> {
        self.names.uris.first().map(String::as_str)
    }
}

/// The names asked for, from every extension request; a CA flag and a second URI end it here.
fn requested(csr: &X509CertificationRequest<'_>) -> Result<Names, CsrError> {
    let mut names = Names::default();
    for extension in requested_extensions(csr)? {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                let more = Names::read(san, true).map_err(|e| CsrError::Malformed(e.to_string()))?;
                names.uris.extend(more.uris);
                names.dns.extend(more.dns);
                names.others.extend(more.others);
            }
            ParsedExtension::BasicConstraints(basic) if basic.ca => return Err(CsrError::AsksForCa),
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() => return Err(CsrError::AsksForCa),
            ParsedExtension::ParseError { .. } => {
                return Err(CsrError::Malformed(
                    "a requested extension cannot be decoded".into(),
                ));
            }
            _ => {}
        }
    }
    match names.uris.len() {
        0 | 1 => Ok(names),
        found => Err(CsrError::UriSans { found }),
    }
}

/// The extensions of every extension request. One attribute holds one request (RFC 2985 §5.4.2); a
/// second one behind it would go unread, so it is refused.
fn requested_extensions<'a>(
    csr: &'a X509CertificationRequest<'a>,
) -> Result<Vec<&'a X509Extension<'a>>, CsrError> {
    let mut all = Vec::new();
    for attribute in csr.certification_request_info.iter_attributes() {
        if let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() {
            if !matches!(crate::der::element(attribute.value), Some((_, _, []))) {
                return Err(CsrError::Malformed(
                    "an attribute with several extension requests".into(),
                ));
            }
            all.extend(&request.extensions);
        }
    }
    Ok(all)
}

/// Kind of key, signature algorithm, and how the signature is verified.
type Algorithm = (
    fn(KeyKind) -> bool,
    Oid<'static>,
    &'static dyn VerificationAlgorithm,
);

/// Every pair accepted.
static ALGORITHMS: [Algorithm; 8] = {
    const P256: fn(KeyKind) -> bool = |kind| matches!(kind, KeyKind::P256);
    const P384: fn(KeyKind) -> bool = |kind| matches!(kind, KeyKind::P384);
    const ED25519: fn(KeyKind) -> bool = |kind| matches!(kind, KeyKind::Ed25519);
    const RSA: fn(KeyKind) -> bool = |kind| matches!(kind, KeyKind::Rsa(_));
    [
        (
            P256,
            OID_SIG_ECDSA_WITH_SHA256,
            &signature::ECDSA_P256_SHA256_ASN1,
        ),
        (
            P256,
            OID_SIG_ECDSA_WITH_SHA384,
            &signature::ECDSA_P256_SHA384_ASN1,
        ),
        // `openssl req` signs with SHA-256 whatever the curve.
        (
            P384,
            OID_SIG_ECDSA_WITH_SHA256,
            &signature::ECDSA_P384_SHA256_ASN1,
        ),
        (
            P384,
            OID_SIG_ECDSA_WITH_SHA384,
            &signature::ECDSA_P384_SHA384_ASN1,
        ),
        (ED25519, OID_SIG_ED25519, &signature::ED25519),
        (
            RSA,
            OID_PKCS1_SHA256WITHRSA,
            &signature::RSA_PKCS1_2048_8192_SHA256,
        ),
        (
            RSA,
            OID_PKCS1_SHA384WITHRSA,
            &signature::RSA_PKCS1_2048_8192_SHA384,
        ),
        (
            RSA,
            OID_PKCS1_SHA512WITHRSA,
            &signature::RSA_PKCS1_2048_8192_SHA512,
        ),
    ]
};

/// Checks the self-signature. The algorithm must be one of a short list and fit the key's kind.
fn prove_possession(csr: &X509CertificationRequest<'_>, key: &PublicKey) -> Result<(), CsrError> {
    let oid = &csr.signature_algorithm.algorithm;
    let known = ALGORITHMS
        .iter()
        .find(|(kind, of, _)| kind(key.kind()) && of == oid);
    let Some((.., algorithm)) = known else {
        return Err(CsrError::Algorithm {
            algorithm: oid.to_id_string(),
            key: key.kind(),
        });
    };
    UnparsedPublicKey::new(*algorithm, key.raw_bits())
        .verify(csr.certification_request_info.raw, &csr.signature_value.data)
        .map_err(|_| CsrError::UnprovenKey)
}

/// A PEM request for `key`, naming `id` as its one critical URI or, without one, nothing at all.
///
/// # Errors
/// [`CsrError::Key`] when the key cannot sign.
pub fn request(key: &std::sync::Arc<SigningKey>, id: Option<&SpiffeId>) -> Result<String, CsrError> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(id) = id {
        params.subject_alt_names = vec![
            crate::issue::uri_san(id.as_str()).map_err(|_| CsrError::Malformed("id is not ASCII".into()))?,
        ];
    }
    let signer = crate::key::RcgenKey::new(std::sync::Arc::clone(key));
    let csr = params
        .serialize_request(&signer)
        .map_err(|_| CsrError::Key(KeyError::Sign))?;
    Ok(crate::der::pem(PEM_LABEL, csr.der()))
}
