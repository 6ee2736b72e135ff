//! What a decision says: a permit, or a denial that names the policy, the rule and the field.

use std::fmt;
use std::sync::Arc;

use crate::model::{Attribute, ObjectKey, Place};

/// The name of a policy: its object, or the document that could not be read as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    /// An object.
    Object(ObjectKey),
    /// A document without a readable name.
    Document {
        /// Where it came from.
        origin: Arc<str>,
        /// The line it begins on.
        line: u64,
    },
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(key) => key.fmt(f),
            Self::Document { origin, line } => write!(f, "the document at {origin}:{line}"),
        }
    }
}

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'p> {
    /// The policy.
    pub policy: &'p PolicyName,
    /// The rule in it, from 0.
    pub rule: usize,
}

impl fmt::Display for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rules[{}]", self.policy, self.rule)
    }
}

/// Proof that policy lets a connection or a request pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit<'p> {
    by: Option<RuleRef<'p>>,
}

impl<'p> Permit<'p> {
    pub(crate) fn new(by: Option<RuleRef<'p>>) -> Self {
        Self { by }
    }

    /// The ALLOW rule that matched; nothing where no ALLOW policy is in force.
    #[must_use]
    pub fn by(&self) -> Option<RuleRef<'p>> {
        self.by
    }
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial<'p> {
    /// A DENY rule matched.
    #[error("{by} denies it{}", place(*.field, " by "))]
    Denied {
        /// The rule.
        by: RuleRef<'p>,
        /// The field that completed the match; a rule without fields has none.
        field: Option<Place>,
    },
    /// ALLOW policies are in force, and none of their rules matched.
    #[error("none of {policies} ALLOW policies matches: {nearest}")]
    NotAllowed {
        /// How many.
        policies: usize,
        /// One of them, to begin with where no rule came near: the first by name of the most specific ones.
        first: Option<&'p PolicyName>,
        /// What came nearest.
        nearest: Nearest<'p>,
    },
    /// A policy that cannot be read, and has no good version, denies what it reaches.
    #[error("{policy} cannot be read and denies everything it reaches")]
    Faulty {
        /// The policy.
        policy: &'p PolicyName,
    },
    /// A CUSTOM rule matched, and its provider did not let it pass.
    #[error("{by} asks provider {provider}, which {why}")]
    Custom {
        /// The rule.
        by: RuleRef<'p>,
        /// The provider.
        provider: &'p str,
        /// Why not.
        why: ProviderDenial,
    },
}

impl Denial<'_> {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::NotAllowed { .. } => "not_allowed",
            Self::Faulty { .. } => "faulty_policy",
            Self::Custom { why, .. } => why.as_str(),
        }
    }

    /// The policy to look at: the one that decided, or one that might have let it pass.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyName> {
        match self {
            Self::Denied { by, .. } | Self::Custom { by, .. } => Some(by.policy),
            Self::NotAllowed { nearest, first, .. } => nearest.policy().or(*first),
            Self::Faulty { policy } => Some(policy),
        }
    }
}

/// Why a provider did not let something pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderDenial {
    /// It said no, or could not be asked.
    Refused,
    /// No usable provider has that name.
    Unknown,
    /// It speaks HTTP only, and this is no HTTP.
    HttpOnly,
}

impl ProviderDenial {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "provider_refused",
            Self::Unknown => "provider_unknown",
            Self::HttpOnly => "provider_http_only",
        }
    }
}

impl fmt::Display for ProviderDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "did not allow it",
            Self::Unknown => "is not configured",
            Self::HttpOnly => "cannot judge a TCP connection",
        })
    }
}

/// The ALLOW rule that came nearest to a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearest<'p> {
    /// This one, up to this field.
    Rule {
        /// The rule.
        by: RuleRef<'p>,
        /// The field that did not match.
        field: Place,
    },
    /// Every rule demands something of this attribute that is not so.
    Attribute(&'p Attribute),
    /// There is no rule that could match here: the policies have none, or demand what a TCP connection lacks.
    NoRule {
        /// One of the policies.
        policy: Option<&'p PolicyName>,
    },
    /// No rule was near enough to be tried.
    Far,
}

impl Nearest<'_> {
    fn policy(&self) -> Option<&PolicyName> {
        match self {
            Self::Rule { by, .. } => Some(by.policy),
            Self::NoRule { policy } => *policy,
            Self::Attribute(_) | Self::Far => None,
        }
    }
}

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { by, field } => write!(f, "nearest is {by}, which {field} excludes"),
            Self::Attribute(attribute) => write!(f, "no rule admits the {attribute}"),
            Self::NoRule { policy: Some(policy) } => write!(f, "{policy} has no rule that could"),
            Self::NoRule { policy: None } => f.write_str("they have no rule that could"),
            Self::Far => f.write_str("no rule comes near"),
        }
    }
}

fn place(field: Option<Place>, before: &str) -> String {
    field.map(|field| format!("{before}{field}")).unwrap_or_default()
}
