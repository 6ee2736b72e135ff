//! Subject alternative names, as they stand there.

use x509_parser::extensions::{GeneralName, SubjectAlternativeName};

use super::{CertificateError, MAX_NAMES};
use crate::key::hex;

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
