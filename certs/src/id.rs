//! Trust domains, SPIFFE IDs and Kubernetes service accounts, each true once it exists.
//!
//! Follows SPIFFE-ID §2. Nothing is normalised: an ID that is not already in its one valid form is
//! refused, so equality is byte equality (SPIFFE-ID §2.4).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest SPIFFE ID in bytes, scheme included (SPIFFE-ID §2.3).
pub const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain name in bytes (RFC 3986 host limit, by SPIFFE-ID §2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why a text is no SPIFFE ID, trust domain or service account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text does not begin with `spiffe://`.
    #[error("must begin with \"spiffe://\"")]
    Scheme,
    /// The trust domain is empty.
    #[error("trust domain is empty")]
    EmptyTrustDomain,
    /// The trust domain is longer than [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("trust domain has {0} bytes, at most {MAX_TRUST_DOMAIN_BYTES} are allowed")]
    TrustDomainTooLong(usize),
    /// A character that a trust domain may not hold.
    #[error("trust domain may hold only a-z, 0-9, '.', '-' and '_', not {0:?}")]
    TrustDomainChar(char),
    /// The whole ID is longer than [`MAX_ID_BYTES`].
    #[error("has {0} bytes, at most {MAX_ID_BYTES} are allowed")]
    TooLong(usize),
    /// `//`, or a slash at the end.
    #[error("path has an empty segment or ends in '/'")]
    EmptySegment,
    /// A segment that is `.` or `..`.
    #[error("path has a relative segment (\".\" or \"..\")")]
    RelativeSegment,
    /// A character that a path segment may not hold.
    #[error("path may hold only letters, digits, '.', '-' and '_' between slashes, not {0:?}")]
    PathChar(char),
    /// An ID without the path `/ns/<namespace>/sa/<service account>`.
    #[error("path is not /ns/<namespace>/sa/<service account>")]
    NotServiceAccount,
    /// A namespace that is no RFC 1123 label.
    #[error("namespace {0:?} is not a DNS label (a-z, 0-9, '-', at most 63 bytes)")]
    Namespace(String),
    /// A service account name that is no RFC 1123 subdomain.
    #[error("service account {0:?} is not a DNS subdomain (a-z, 0-9, '-', '.', at most 253 bytes)")]
    ServiceAccount(String),
}

/// The name of a trust domain, as in `cluster.local`: lower case, never resolved, never decoded.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name alone, without scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own SPIFFE ID, which has no path: the ID of its authorities.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId {
            uri: format!("{SCHEME}{}", self.0).into(),
            path_at: SCHEME.len() + self.0.len(),
        }
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(name: &str) -> Result<Self, IdError> {
        check_domain(name)?;
        Ok(Self(name.into()))
    }
}

/// `name` is legal by SPIFFE-ID §2.1.
fn check_domain(name: &str) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::EmptyTrustDomain);
    }
    let legal = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if let Some(place) = name.bytes().position(|b| !legal(&b)) {
        return Err(IdError::TrustDomainChar(char_at(name, place)));
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(IdError::TrustDomainTooLong(name.len()));
    }
    Ok(())
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

/// A SPIFFE ID, as in `spiffe://cluster.local/ns/shop/sa/cart`. At most [`MAX_ID_BYTES`] long.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    path_at: usize,
}

impl SpiffeId {
    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain this ID belongs to.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_name().into())
    }

    /// The trust domain's name, borrowed.
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        self.uri.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }

    /// The path with its leading slash, or nothing for a trust domain's own ID.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.get(self.path_at..).unwrap_or_default()
    }

    /// Whether this is a trust domain's own ID. Such an ID never names a workload (X509-SVID §3.1).
    #[must_use]
    pub fn is_trust_domain(&self) -> bool {
        self.path().is_empty()
    }

    /// Whether this ID lies in `domain`.
    #[must_use]
    pub fn is_in(&self, domain: &TrustDomain) -> bool {
        self.trust_domain_name() == domain.as_str()
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(uri: &str) -> Result<Self, IdError> {
        if uri.len() > MAX_ID_BYTES {
            return Err(IdError::TooLong(uri.len()));
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        check_domain(domain)?;
        check_path(path)?;
        Ok(Self {
            uri: uri.into(),
            path_at: SCHEME.len() + domain.len(),
        })
    }
}

/// Every segment of `path` (which is empty or begins with a slash) is legal by SPIFFE-ID §2.2.
fn check_path(path: &str) -> Result<(), IdError> {
    let Some(segments) = path.strip_prefix('/') else {
        return Ok(());
    };
    for segment in segments.split('/') {
        match segment {
            "" => return Err(IdError::EmptySegment),
            "." | ".." => return Err(IdError::RelativeSegment),
            _ => {}
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if let Some(place) = segment.bytes().position(|b| !legal(b)) {
            return Err(IdError::PathChar(char_at(segment, place)));
        }
    }
    Ok(())
}

/// The character that begins at byte `place`.
fn char_at(text: &str, place: usize) -> char {
    let rest = text.get(place..).unwrap_or_default();
    rest.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER)
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.uri)
    }
}

/// A Kubernetes service account: `namespace/name` on paper, `/ns/<namespace>/sa/<name>` in a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAccountId {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl ServiceAccountId {
    /// Both names checked against the alphabets Kubernetes itself enforces, so that the SPIFFE ID
    /// made of them needs no escaping.
    ///
    /// # Errors
    /// [`IdError::Namespace`] and [`IdError::ServiceAccount`] name the one that does not fit.
    pub fn new(namespace: &str, name: &str) -> Result<Self, IdError> {
        if !is_dns_label(namespace) {
            return Err(IdError::Namespace(namespace.into()));
        }
        if name.len() > 253 || !name.split('.').all(is_dns_token) {
            return Err(IdError::ServiceAccount(name.into()));
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The account's name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The SPIFFE ID of this account in `domain`.
    #[must_use]
    pub fn spiffe_id(&self, domain: &TrustDomain) -> SpiffeId {
        SpiffeId {
            uri: format!("{SCHEME}{domain}/ns/{}/sa/{}", self.namespace, self.name).into(),
            path_at: SCHEME.len() + domain.as_str().len(),
        }
    }
}

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_token(text)
}

/// Lower-case letters, digits and inner dashes, not empty.
fn is_dns_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl TryFrom<&SpiffeId> for ServiceAccountId {
    type Error = IdError;

    fn try_from(id: &SpiffeId) -> Result<Self, IdError> {
        let mut parts = id.path().split('/');
        match (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) {
            (Some(""), Some("ns"), Some(ns), Some("sa"), Some(sa), None) => Self::new(ns, sa),
            _ => Err(IdError::NotServiceAccount),
        }
    }
}

impl FromStr for ServiceAccountId {
    type Err = IdError;

    /// Reads `namespace/name`.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (namespace, name) = text.split_once('/').ok_or(IdError::NotServiceAccount)?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for ServiceAccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
