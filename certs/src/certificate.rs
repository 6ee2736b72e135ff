//! One parsed certificate: its DER and the facts that issuing, verifying and showing need.
//!
//! Parsing is strict (I1, I4): trailing bytes, repeated extensions and undecodable known extensions
//! fail the whole certificate. Judging the facts is left to [`crate::profile`] and [`crate::verify`].

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension, SubjectAlternativeName};
use x509_parser::oid_registry;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::id::{IdError, SpiffeId};
use crate::key::{KeyError, PublicKey, hex};

/// Longest certificate read, in bytes of DER. Ours have about 500; foreign roots seldom reach 4 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
/// Most names one certificate or request may carry.
pub const MAX_NAMES: usize = 64;

/// Most extensions one certificate may carry; real ones have about ten.
pub const MAX_EXTENSIONS: usize = 64;

/// Why bytes are not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than [`MAX_CERTIFICATE_BYTES`].
    #[error("certificate has {0} bytes, at most {MAX_CERTIFICATE_BYTES} are read")]
    TooLarge(usize),
    /// Not DER, or not X.509.
    #[error("not an x.509 certificate: {0}")]
    Malformed(String),
    /// Bytes after the end.
    #[error("{0} bytes after the certificate")]
    Trailing(usize),
    /// An extension stands twice (RFC 5280 §4.2).
    #[error("extension {0} stands twice")]
    RepeatedExtension(String),
    /// A known extension that cannot be decoded.
    #[error("extension {0} cannot be decoded")]
    BadExtension(String),
    /// More than [`MAX_EXTENSIONS`].
    #[error("{0} extensions, at most {MAX_EXTENSIONS} are read")]
    TooManyExtensions(usize),
    /// More than [`MAX_NAMES`] subject alternative names.
    #[error("{0} subject alternative names, at most {MAX_NAMES} are read")]
    TooManyNames(usize),
    /// A PEM text that holds no certificate, or is broken.
    #[error("no usable CERTIFICATE block in the PEM text: {0}")]
    Pem(String),
}

/// Subject alternative names as text, unjudged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Names of other kinds (addresses, mail, directory names), described.
    pub others: Vec<String>,
    /// Whether the extension is critical.
    pub critical: bool,
}

impl Names {
    pub(crate) fn read(san: &SubjectAlternativeName<'_>, critical: bool) -> Result<Self, CertificateError> {
        if san.general_names.len() > MAX_NAMES {
            return Err(CertificateError::TooManyNames(san.general_names.len()));
        }
        let mut names = Self {
            critical,
            ..Self::default()
        };
        for name in &san.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
                GeneralName::IPAddress(bytes) => names.others.push(format!("ip {}", ip(bytes))),
                GeneralName::RFC822Name(mail) => names.others.push(format!("mail {mail}")),
                GeneralName::Invalid(..) => {
                    return Err(CertificateError::BadExtension("subjectAltName".into()));
                }
                other => names.others.push(other.to_string()),
            }
        }
        Ok(names)
    }
}

/// As much of a stranger's text as an error may repeat: it travels in status messages and logs.
pub(crate) fn shown(text: &str) -> &str {
    const MOST: usize = 512;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

fn ip(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(v4).to_string();
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(v6) => std::net::Ipv6Addr::from(v6).to_string(),
        Err(_) => hex(bytes),
    }
}

/// Basic constraints (RFC 5280 §4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether the subject is a CA.
    pub ca: bool,
    /// Most intermediates below it, if limited.
    pub path_len: Option<u32>,
    /// Whether the extension is critical.
    pub critical: bool,
}

/// The key usage bits that matter here (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage {
    /// May sign handshakes.
    pub digital_signature: bool,
    /// May encipher keys (RSA key transport).
    pub key_encipherment: bool,
    /// May sign certificates.
    pub key_cert_sign: bool,
    /// May sign revocation lists.
    pub crl_sign: bool,
    /// Whether the extension is critical.
    pub critical: bool,
}

/// Extended key usage (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedKeyUsage {
    /// TLS server authentication.
    pub server_auth: bool,
    /// TLS client authentication.
    pub client_auth: bool,
    /// Any purpose.
    pub any: bool,
}

/// What a certificate says its key is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Basic constraints, if present.
    pub basic: Option<BasicConstraints>,
    /// Key usage, if present.
    pub key_usage: Option<KeyUsage>,
    /// Extended key usage, if present.
    pub extended: Option<ExtendedKeyUsage>,
    /// Whether name constraints are present.
    pub has_name_constraints: bool,
    /// Critical extensions unknown here, as dotted OIDs.
    pub unknown_critical: Vec<String>,
}

/// A distinguished name, for comparing and for showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its DER, compared byte for byte.
    pub der: Vec<u8>,
}

impl Name {
    /// Its text, as in `O=cluster.local`; empty for an empty name.
    #[must_use]
    pub fn text(&self) -> String {
        X509Name::from_der(&self.der).map_or_else(|_| String::new(), |(_, name)| name.to_string())
    }
}

/// A parsed certificate with its DER. Clones share both.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    der: CertificateDer<'static>,
    facts: Facts,
    /// Made when first asked for: issuing authorities and roots are sent with every answer.
    pem: OnceLock<String>,
}

impl Certificate {
    /// Reads one DER certificate.
    ///
    /// # Errors
    /// A [`CertificateError`] naming what is wrong.
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge(der.len()));
        }
        let parsed = {
            let (rest, cert) =
                X509Certificate::from_der(&der).map_err(|e| CertificateError::Malformed(e.to_string()))?;
            if !rest.is_empty() {
                return Err(CertificateError::Trailing(rest.len()));
            }
            facts(&cert)?
        };
        Ok(Self(Arc::new(Inner {
            der,
            facts: parsed,
            pem: OnceLock::new(),
        })))
    }

    /// Reads every `CERTIFICATE` block of a PEM text, in order. Other blocks are refused: a private
    /// key pasted into a chain file is a mistake worth stopping at.
    ///
    /// # Errors
    /// [`CertificateError::Pem`] when there is none, or the first block's own error.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let mut all = Vec::new();
        for block in <(rustls_pki_types::pem::SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = block.map_err(|e| CertificateError::Pem(e.to_string()))?;
            if kind != rustls_pki_types::pem::SectionKind::Certificate {
                return Err(CertificateError::Pem("it holds another kind of block".into()));
            }
            all.push(Self::from_der(CertificateDer::from(der))?);
        }
        if all.is_empty() {
            let why = if pem.trim_ascii().is_empty() {
                "it is empty"
            } else {
                "it holds no CERTIFICATE block"
            };
            return Err(CertificateError::Pem(why.into()));
        }
        Ok(all)
    }

    /// The certificate's DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    /// The certificate as one PEM block, newline-terminated.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.pem().to_owned()
    }

    /// As [`Certificate::to_pem`], borrowed.
    #[must_use]
    pub fn pem(&self) -> &str {
        self.0
            .pem
            .get_or_init(|| crate::der::pem("CERTIFICATE", &self.0.der))
    }

    /// The serial number, big-endian, as it stands in the certificate.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.0.facts.serial
    }

    /// The serial number in lower-case hex.
    #[must_use]
    pub fn serial_hex(&self) -> String {
        hex(&self.0.facts.serial)
    }

    /// First second of validity.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.0.facts.validity.0
    }

    /// Last second of validity.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.0.facts.validity.1
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.0.facts.subject
    }

    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.0.facts.issuer
    }

    /// Whether subject and issuer are the same name. Says nothing about the signature.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.0.facts.subject.der == self.0.facts.issuer.der
    }

    /// The public key, or why it is not accepted.
    ///
    /// # Errors
    /// The [`KeyError`] that judging the key gave.
    pub fn public_key(&self) -> Result<&PublicKey, &KeyError> {
        self.0.facts.public_key.as_ref()
    }

    /// Subject alternative names.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.0.facts.names
    }

    /// The one URI name read as a SPIFFE ID, or what is wrong with it; nothing when there is not exactly
    /// one.
    pub(crate) fn uri_id(&self) -> Option<&Result<SpiffeId, IdError>> {
        self.0.facts.id.as_ref()
    }

    /// What the key is for.
    #[must_use]
    pub fn constraints(&self) -> &Constraints {
        &self.0.facts.constraints
    }

    /// Subject key identifier in hex, if present: how an authority is named in logs.
    #[must_use]
    pub fn subject_key_id(&self) -> Option<&str> {
        self.0.facts.key_ids.0.as_ref().map(KeyId::hex)
    }

    /// Subject key identifier as it stands in the certificate.
    pub(crate) fn subject_key_id_bytes(&self) -> Option<&[u8]> {
        self.0.facts.key_ids.0.as_ref().map(|id| &*id.bytes)
    }

    /// Authority key identifier in hex, if present.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&str> {
        self.0.facts.key_ids.1.as_ref().map(KeyId::hex)
    }

    /// Dotted OID of the signature algorithm.
    #[must_use]
    pub fn signature_algorithm(&self) -> &str {
        &self.0.facts.signature_algorithm
    }
}

/// Everything but the DER.
#[derive(Debug)]
struct Facts {
    serial: Vec<u8>,
    validity: (UnixTime, UnixTime),
    subject: Name,
    issuer: Name,
    public_key: Result<PublicKey, KeyError>,
    names: Names,
    /// The one URI name read as an ID; nothing when there is not exactly one.
    id: Option<Result<SpiffeId, IdError>>,
    constraints: Constraints,
    key_ids: (Option<KeyId>, Option<KeyId>),
    signature_algorithm: Cow<'static, str>,
}

/// A key identifier; its text is made when first asked for.
#[derive(Debug)]
struct KeyId {
    bytes: Box<[u8]>,
    hex: OnceLock<String>,
}

impl KeyId {
    fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            hex: OnceLock::new(),
        }
    }

    fn hex(&self) -> &str {
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

fn facts(cert: &X509Certificate<'_>) -> Result<Facts, CertificateError> {
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

impl Constraints {
    fn read(&mut self, parsed: &ParsedExtension<'_>, critical: bool, oid: &Oid<'_>) {
        match parsed {
            ParsedExtension::BasicConstraints(basic) => {
                self.basic = Some(BasicConstraints {
                    ca: basic.ca,
                    path_len: basic.path_len_constraint,
                    critical,
                });
            }
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(KeyUsage {
                    digital_signature: usage.digital_signature(),
                    key_encipherment: usage.key_encipherment(),
                    key_cert_sign: usage.key_cert_sign(),
                    crl_sign: usage.crl_sign(),
                    critical,
                });
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.extended = Some(ExtendedKeyUsage {
                    server_auth: usage.server_auth,
                    client_auth: usage.client_auth,
                    any: usage.any,
                });
            }
            ParsedExtension::NameConstraints(_) => self.has_name_constraints = true,
            _ if critical => self.unknown_critical.push(oid.to_id_string()),
            _ => {}
        }
    }
}

/// Times before 1970 are all equally past.
fn time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
