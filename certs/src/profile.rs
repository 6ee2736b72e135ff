//! The X509-SVID profile, rule by rule (X509-SVID §2–§5): one list for issuing, verifying and showing.

use crate::certificate::{Certificate, shown};
use crate::id::{IdError, SpiffeId};
use crate::key::KeyError;

/// The first rule a leaf breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeafFault {
    /// Not exactly one URI name (X509-SVID §2).
    #[error("it has {found} URI names instead of exactly one")]
    UriSans {
        /// How many there are.
        found: usize,
    },
    /// The URI is no SPIFFE ID.
    #[error("its URI name {:?} is no SPIFFE ID: {fault}", shown(uri))]
    Id {
        /// The URI found.
        uri: String,
        /// What is wrong with it.
        fault: IdError,
    },
    /// The ID has no path, so it names a trust domain (X509-SVID §3.1).
    #[error("its id {0} names a trust domain, not a workload")]
    NoPath(SpiffeId),
    /// It is a CA certificate (X509-SVID §5.2).
    #[error("it is a CA certificate")]
    Ca,
    /// No key usage extension, or not critical (X509-SVID §4.3).
    #[error("its key usage is {0}")]
    KeyUsage(&'static str),
    /// May sign certificates or revocation lists (X509-SVID §5.2).
    #[error("its key usage allows signing certificates or revocation lists")]
    SigningUsage,
    /// Extended key usage present, but not for both ends (X509-SVID §4.4).
    #[error("its extended key usage lacks serverAuth or clientAuth")]
    ExtendedUsage,
    /// An empty subject needs a critical name extension (RFC 5280 §4.1.2.6).
    #[error("its subject is empty and its subject alternative name is not critical")]
    NamesNotCritical,
    /// The leaf's own key is weak or of an unknown kind.
    #[error("its {0}")]
    Key(KeyError),
}

/// One rule of the profile and whether a certificate keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCheck {
    /// Section of the X509-SVID standard, as in `§4.3`.
    pub section: &'static str,
    /// What is asked for.
    pub rule: &'static str,
    /// Nothing when kept, otherwise what was found.
    pub fault: Option<LeafFault>,
}

/// The identity in a leaf that keeps every rule.
///
/// # Errors
/// The first [`LeafFault`]. A CA certificate is called that before anything else, since its names
/// break other rules too.
pub fn leaf_id(leaf: &Certificate) -> Result<SpiffeId, LeafFault> {
    not_ca(leaf)?;
    let id = uri_id(leaf)?;
    for rule in RULES {
        (rule.check)(leaf)?;
    }
    Ok(id)
}

/// Every rule with its outcome, in the order of the standard.
#[must_use]
pub fn check_leaf(leaf: &Certificate) -> Vec<RuleCheck> {
    RULES
        .iter()
        .map(|rule| RuleCheck {
            section: rule.section,
            rule: rule.text,
            fault: (rule.check)(leaf).err(),
        })
        .collect()
}

struct Rule {
    section: &'static str,
    text: &'static str,
    check: fn(&Certificate) -> Result<(), LeafFault>,
}

const RULES: &[Rule] = &[
    Rule {
        section: "§2",
        text: "exactly one URI name, a SPIFFE ID",
        check: |c| uri_id(c).map(drop),
    },
    Rule {
        section: "§3.1",
        text: "the id names a workload",
        check: has_path,
    },
    Rule {
        section: "§3.1",
        text: "names are critical when the subject is empty",
        check: names_critical,
    },
    Rule {
        section: "§4.1",
        text: "not a CA",
        check: not_ca,
    },
    Rule {
        section: "§4.3",
        text: "key usage is critical, with digitalSignature",
        check: key_usage,
    },
    Rule {
        section: "§4.3",
        text: "no keyCertSign, no cRLSign",
        check: no_signing_usage,
    },
    Rule {
        section: "§4.4",
        text: "extended usage for both server and client",
        check: extended_usage,
    },
    Rule {
        section: "–",
        text: "a strong key of an accepted kind",
        check: strong_key,
    },
];

/// A `Name` without attributes, in DER.
const EMPTY_NAME: [u8; 2] = [0x30, 0x00];

fn uri_id(leaf: &Certificate) -> Result<SpiffeId, LeafFault> {
    match (leaf.uri_id(), leaf.names().uris.as_slice()) {
        (Some(Ok(id)), _) => Ok(id.clone()),
        (Some(Err(fault)), [uri]) => Err(LeafFault::Id {
            uri: uri.clone(),
            fault: fault.clone(),
        }),
        (_, uris) => Err(LeafFault::UriSans { found: uris.len() }),
    }
}

fn has_path(leaf: &Certificate) -> Result<(), LeafFault> {
    let id = uri_id(leaf)?;
    if id.is_trust_domain() {
        Err(LeafFault::NoPath(id))
    } else {
        Ok(())
    }
}

fn names_critical(leaf: &Certificate) -> Result<(), LeafFault> {
    let empty = leaf.subject().der == EMPTY_NAME;
    if empty && !leaf.names().critical {
        Err(LeafFault::NamesNotCritical)
    } else {
        Ok(())
    }
}

fn not_ca(leaf: &Certificate) -> Result<(), LeafFault> {
    if leaf.constraints().basic.is_some_and(|b| b.ca) {
        Err(LeafFault::Ca)
    } else {
        Ok(())
    }
}

fn key_usage(leaf: &Certificate) -> Result<(), LeafFault> {
    match leaf.constraints().key_usage {
        None => Err(LeafFault::KeyUsage("missing")),
        Some(usage) if !usage.critical => Err(LeafFault::KeyUsage("not critical")),
        Some(usage) if !usage.digital_signature => Err(LeafFault::KeyUsage("without digitalSignature")),
        Some(_) => Ok(()),
    }
}

fn no_signing_usage(leaf: &Certificate) -> Result<(), LeafFault> {
    let signs = leaf
        .constraints()
        .key_usage
        .is_some_and(|u| u.key_cert_sign || u.crl_sign);
    if signs {
        Err(LeafFault::SigningUsage)
    } else {
        Ok(())
    }
}

fn extended_usage(leaf: &Certificate) -> Result<(), LeafFault> {
    match leaf.constraints().extended {
        Some(usage) if !(usage.server_auth && usage.client_auth) => Err(LeafFault::ExtendedUsage),
        _ => Ok(()),
    }
}

fn strong_key(leaf: &Certificate) -> Result<(), LeafFault> {
    leaf.public_key().map(drop).map_err(|e| LeafFault::Key(e.clone()))
}
