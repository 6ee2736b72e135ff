//! The facts of a certificate, read once.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry;

use super::{CertificateError, Constraints, MAX_EXTENSIONS, Name, Names};
use crate::id::{IdError, SpiffeId};
use crate::key::{KeyError, PublicKey, hex};

/// Everything but the DER.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) serial: Vec<u8>,
    pub(super) validity: (UnixTime, UnixTime),
    pub(super) subject: Name,
    pub(super) issuer: Name,
    pub(super) public_key: Result<PublicKey, KeyError>,
    pub(super) names: Names,
    /// The one URI name read as an ID; nothing when there is not exactly one.
    pub(super) id: Option<Result<SpiffeId, IdError>>,
    pub(super) constraints: Constraints,
    pub(super) key_ids: (Option<KeyId>, Option<KeyId>),
    pub(super) signature_algorithm: Cow<'static, str>,
}

/// A key identifier; its text is made when first asked for.
#[derive(Debug)]
pub(super) struct KeyId {
    pub(super) bytes: Box<[u8]>,
    hex: OnceLock<String>,
}

impl KeyId {
    fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            hex: OnceLock::new(),
        }
    }

    pub(super) fn hex(&self) -> &str {
        self.hex.get_or_init(|| hex(&self.bytes))
    }
}

/// A dotted OID, without writing the commonest anew.
fn algorithm_text(oid: &Oid<'_>) -> Cow<'static, str> {
    if *oid == oid_registry::OID_SIG_ECDSA_WITH_SHA256 {
        return Cow::Borrowed("1.2.840.10045.4.3.2");
    }
    Cow::Owned(oid.to_id_string())
}

pub(super) fn facts(cert: &X509Certificate<'_>) -> Result<Facts, CertificateError> {
    let tbs = &cert.tbs_certificate;
    let mut names = Names::default();
    let mut constraints = Constraints::default();
    let mut key_ids = (None, None);
    if tbs.extensions().len() > MAX_EXTENSIONS {
        return Err(CertificateError::TooManyExtensions(tbs.extensions().len()));
    }
    for (place, extension) in tbs.extensions().iter().enumerate() {
        if tbs
            .extensions()
            .iter()
            .take(place)
            .any(|earlier| earlier.oid == extension.oid)
        {
            return Err(CertificateError::RepeatedExtension(extension.oid.to_id_string()));
        }
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => names = Names::read(san, extension.critical)?,
            ParsedExtension::SubjectKeyIdentifier(id) => key_ids.0 = Some(KeyId::new(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                key_ids.1 = id.key_identifier.as_ref().map(|id| KeyId::new(id.0));
            }
            ParsedExtension::ParseError { .. } => {
                return Err(CertificateError::BadExtension(extension.oid.to_id_string()));
            }
            parsed => constraints.read(parsed, extension.critical, &extension.oid),
        }
    }
    Ok(Facts {
        serial: tbs.raw_serial().to_vec(),
        validity: (
            time(tbs.validity.not_before.timestamp()),
            time(tbs.validity.not_after.timestamp()),
        ),
        subject: Name {
            der: tbs.subject.as_raw().to_vec(),
        },
        issuer: Name {
            der: tbs.issuer.as_raw().to_vec(),
        },
        id: match names.uris.as_slice() {
            [uri] => Some(uri.parse()),
            _ => None,
        },
        public_key: PublicKey::from_spki_der(tbs.subject_pki.raw),
        names,
        constraints,
        key_ids,
        signature_algorithm: algorithm_text(&cert.signature_algorithm.algorithm),
    })
}

/// Times before 1970 are all equally past.
fn time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
