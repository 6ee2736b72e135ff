//! What a certificate says its key is for (RFC 5280 §4.2.1).

use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::ParsedExtension;

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

impl Constraints {
    pub(super) fn read(&mut self, parsed: &ParsedExtension<'_>, critical: bool, oid: &Oid<'_>) {
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
