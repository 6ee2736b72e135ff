//! Names of peers and requests in rules, and what they mean across trust domains.

use std::fmt;

use signet_certs::{ServiceAccountId, TrustDomain};

use crate::fault::{BadValue, Excerpt};
use crate::matcher::Pattern;
use crate::trie::Fold;

/// In the first segment of a principal this means the local trust domain, whatever its name.
const POINTER: &str = "cluster.local";
/// Longest value of `serviceAccounts`.
const MAX_ACCOUNT: usize = 320;

/// A service account as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account(ServiceAccountId);

impl Account {
    /// Reads `name`, which lies in `namespace`, or `namespace/name`.
    ///
    /// # Errors
    /// [`BadValue::Account`].
    pub fn new(text: &str, namespace: &str) -> Result<Self, BadValue> {
        let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
        let account = ServiceAccountId::new(namespace, name);
        match account {
            Ok(account) if text.len() <= MAX_ACCOUNT => Ok(Self(account)),
            _ => Err(BadValue::Account(Excerpt::of(text))),
        }
    }

    /// `namespace/sa/name`, as it stands in a SPIFFE ID after `/ns/`.
    pub(crate) fn in_path(&self) -> String {
        format!("{}/sa/{}", self.0.namespace(), self.0.name())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A trust domain as a rule names it: at most one star, at an end.
///
/// # Errors
/// [`BadValue::TrustDomain`].
pub(crate) fn trust_domain_pattern(text: &str) -> Result<Pattern, BadValue> {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*'));
    if inner.unwrap_or(text).contains(['*', '/']) {
        return Err(BadValue::TrustDomain(Excerpt::of(text)));
    }
    Ok(Pattern::new(text))
}

/// A value of `requestPrincipals`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestPrincipal {
    text: Box<str>,
    issuer: Pattern,
    subject: Pattern,
}

impl RequestPrincipal {
    /// Reads `issuer/subject`, split at the last slash. A leading star is one of the issuer, a trailing one
    /// one of the subject; without a slash, a star alone is a whole side.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let exact = |text: &str| Pattern::Exact(text.into());
        let (issuer, subject) = match text.rsplit_once('/') {
            Some((issuer, subject)) if issuer.starts_with('*') => (Pattern::new(issuer), exact(subject)),
            Some((issuer, subject)) if subject.ends_with('*') => {
                let subject = match subject.strip_suffix('*').unwrap_or_default() {
                    "" => Pattern::Present,
                    prefix => Pattern::Prefix(prefix.into()),
                };
                (exact(issuer), subject)
            }
            Some((issuer, subject)) => (exact(issuer), exact(subject)),
            None if text == "*" => (Pattern::Present, Pattern::Present),
            None if text.starts_with('*') => (Pattern::Present, Pattern::new(text)),
            None if text.ends_with('*') => (Pattern::new(text), Pattern::Present),
            None => (exact(text), exact("")),
        };
        Self {
            text: text.into(),
            issuer,
            subject,
        }
    }

    /// Whether a token with this issuer and subject is meant.
    #[must_use]
    pub fn matches(&self, issuer: &str, subject: &str) -> bool {
        self.issuer.matches(issuer.as_bytes(), Fold::Exact)
            && self.subject.matches(subject.as_bytes(), Fold::Exact)
    }

    /// Something that `issuer/subject` of every token it matches is like.
    pub(crate) fn joined(&self) -> Pattern {
        match (&self.issuer, &self.subject) {
            (Pattern::Exact(issuer), Pattern::Exact(subject)) => {
                Pattern::Exact(format!("{issuer}/{subject}").into())
            }
            (Pattern::Exact(issuer), Pattern::Prefix(subject)) => {
                Pattern::Prefix(format!("{issuer}/{subject}").into())
            }
            (Pattern::Exact(issuer), _) => Pattern::Prefix(format!("{issuer}/").into()),
            (Pattern::Prefix(issuer), _) => Pattern::Prefix(issuer.clone()),
            (Pattern::Suffix(issuer), Pattern::Exact(subject)) => {
                Pattern::Suffix(format!("{issuer}/{subject}").into())
            }
            (_, Pattern::Exact(subject)) => Pattern::Suffix(format!("/{subject}").into()),
            (_, Pattern::Suffix(subject)) => Pattern::Suffix(subject.clone()),
            _ => Pattern::Present,
        }
    }
}

impl fmt::Display for RequestPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The trust domains that are one with ours: our own first, then its aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDomains(Vec<TrustDomain>);

impl LocalDomains {
    /// Our own trust domain and its aliases.
    #[must_use]
    pub fn new(own: TrustDomain, aliases: impl IntoIterator<Item = TrustDomain>) -> Self {
        let mut all = vec![own];
        for alias in aliases {
            if !all.contains(&alias) {
                all.push(alias);
            }
        }
        Self(all)
    }

    /// Whether a peer of this trust domain is one of ours.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|domain| domain.as_str() == name)
    }

    /// What a value of `principals` means here: one value per trust domain of ours if it names one of them or
    /// points at them, else the value itself.
    pub(crate) fn expand_principal(&self, value: &Pattern) -> Vec<Pattern> {
        let text = value.to_string();
        let segments: Vec<&str> = text.split('/').collect();
        let [domain, rest @ ..] = segments.as_slice() else {
            return vec![value.clone()];
        };
        if segments.len() != 5 || *domain == "*" {
            return vec![value.clone()];
        }
        let pattern = Pattern::new(domain);
        let means = |own: &TrustDomain| pattern.matches(own.as_str().as_bytes(), Fold::Exact);
        if *domain != POINTER && !self.0.iter().any(means) {
            return vec![value.clone()];
        }
        let starred = domain.starts_with('*');
        let mut expanded = Vec::new();
        for own in &self.0 {
            let new = if starred && means(own) {
                value.clone()
            } else {
                Pattern::new(&format!("{own}/{}", rest.join("/")))
            };
            if !expanded.contains(&new) {
                expanded.push(new);
            }
        }
        expanded
    }

    /// What a value of `trustDomains` means here: all of ours if it names one of them.
    pub(crate) fn expand_domain(&self, value: &Pattern) -> Vec<Pattern> {
        match value {
            Pattern::Exact(name) if self.contains(name) => self
                .0
                .iter()
                .map(|own| Pattern::Exact(own.as_str().into()))
                .collect(),
            other => vec![other.clone()],
        }
    }
}

#[cfg(test)]
mod tests;
