//! What is wrong with a policy document: where, what, and what to write instead.
//!
//! The sentences are listed in `docs/policy.md`; a test compares them.

use std::fmt;

/// Longest piece of a document that a fault repeats.
const MAX_EXCERPT: usize = 80;

/// One thing that is wrong in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The offending field, as in `spec.rules[0].from[1].source.ipBlocks[2]`; empty for the whole document.
    pub path: String,
    /// Its line in the text it was read from, from 1; nothing for an object that came without a text.
    pub line: Option<u64>,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.problem, self.problem.hint())
    }
}

/// What is wrong, by who has to look: at the form, at one value, or at two things together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The document has not the form of its kind.
    #[error(transparent)]
    Shape(#[from] Shape),
    /// A value cannot be used.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// Each value is sound, together they are not.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Found by another process, or before the document was read; in its words.
    #[error("{problem}")]
    Told {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        hint: String,
    },
}

impl Problem {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Shape(shape) => shape.hint(),
            Self::Value(value) => value.hint().to_owned(),
            Self::Conflict(conflict) => conflict.hint().to_owned(),
            Self::Told { hint, .. } => hint.clone(),
        }
    }
}

/// A document that has not the form of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Shape {
    /// Neither YAML nor JSON.
    #[error("not readable as YAML: {0}")]
    NotYaml(Excerpt),
    /// More bytes than a document may have.
    #[error("document has {bytes} bytes, at most {most} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What is allowed.
        most: usize,
    },
    /// A field that its object does not have.
    #[error("unknown field")]
    UnknownField {
        /// The field that was probably meant.
        meant: Option<&'static str>,
    },
    /// A value of another type.
    #[error("must be {wanted}, not {found}")]
    WrongType {
        /// What belongs here.
        wanted: &'static str,
        /// What stands here.
        found: &'static str,
    },
    /// A field that is written and has no value.
    #[error("has no value")]
    Null,
    /// A field that must be there.
    #[error("missing")]
    Missing,
    /// A list, object or text without contents.
    #[error("is empty")]
    Empty,
    /// A list or a text beyond its bound.
    #[error("has {found} {unit}, at most {most} are allowed")]
    TooMany {
        /// How many there are.
        found: usize,
        /// Of what.
        unit: &'static str,
        /// How many may be.
        most: usize,
    },
    /// A version that is not served.
    #[error("{0} is not a known version")]
    Version(Excerpt),
    /// A kind that `security.istio.io` does not have.
    #[error("{0} is not a known kind")]
    Kind(Excerpt),
}

impl Shape {
    fn hint(&self) -> String {
        match self {
            Self::NotYaml(_) => "correct the syntax here or just before it".to_owned(),
            Self::TooLarge { .. } => "split it into several objects".to_owned(),
            Self::UnknownField { meant: Some(meant) } => format!("did you mean {meant}?"),
            Self::UnknownField { meant: None } => "remove it, or move it to where it belongs".to_owned(),
            Self::WrongType {
                wanted: "text",
                found,
            } if matches!(*found, "a number" | "true or false") => "put it in quotes".to_owned(),
            Self::WrongType { .. } => "look at the indentation and at the dashes".to_owned(),
            Self::Null => "give it a value or remove the field".to_owned(),
            Self::Missing => "add it".to_owned(),
            Self::Empty => "fill it, or remove the field if nothing is to be said here".to_owned(),
            Self::TooMany { .. } => "split the policy into several".to_owned(),
            Self::Version(_) => "write security.istio.io/v1 or security.istio.io/v1beta1".to_owned(),
            Self::Kind(_) => {
                "write AuthorizationPolicy, PeerAuthentication or RequestAuthentication".to_owned()
            }
        }
    }
}

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadValue {
    /// No action of a policy.
    #[error("{0} is not an action")]
    Action(Excerpt),
    /// No mode of mutual TLS.
    #[error("{0} is not a mode")]
    Mode(Excerpt),
    /// No address and no block of addresses.
    #[error("{0} is neither an IP address nor a CIDR block")]
    Address(Excerpt),
    /// No port.
    #[error("{0} is not a port")]
    Port(Excerpt),
    /// A path template that cannot be matched.
    #[error("{0} is not a path template: {1}")]
    Template(Excerpt, &'static str),
    /// No service account.
    #[error("{0} is not a service account")]
    Account(Excerpt),
    /// A trust domain with more than one star, or with a slash.
    #[error("{0} is not a trust domain pattern")]
    TrustDomain(Excerpt),
    /// A `when` key that does not exist.
    #[error("{0} is not a known key")]
    Key(Excerpt),
    /// A `when` key of Istio's first version.
    #[error("{0} is a key of v1alpha1, which is gone")]
    OldKey(Excerpt),
    /// A `when` key whose brackets are wrong.
    #[error("{0} must have its name in brackets")]
    KeyForm(Excerpt),
    /// A request pseudo header that `when` cannot compare.
    #[error("{0} is a pseudo header that cannot be compared")]
    PseudoHeader(Excerpt),
    /// A star in a selector.
    #[error("labels are compared whole; {0} holds a star")]
    LabelStar(Excerpt),
    /// Not the name of a Kubernetes object.
    #[error("{0} is not a Kubernetes name")]
    Name(Excerpt),
    /// No HTTP header name.
    #[error("{0} is not a header name")]
    Header(Excerpt),
    /// No address of a key set.
    #[error("{0} is not an http or https URL")]
    Url(Excerpt),
    /// No duration.
    #[error("{0} is not a duration")]
    Duration(Excerpt),
    /// An inline key set that is none. Its text is not repeated: it may hold private keys.
    #[error("not a JSON Web Key Set: {0}")]
    Jwks(&'static str),
    /// No time as Kubernetes writes it.
    #[error("{0} is not a time in UTC")]
    Time(Excerpt),
    /// The dry-run annotation is neither true nor false.
    #[error("{0} is neither true nor false")]
    Bool(Excerpt),
    /// A kind that policies cannot be attached to.
    #[error("{0} is not a kind that policies attach to")]
    Target(Excerpt),
}

impl BadValue {
    fn hint(&self) -> &'static str {
        match self {
            Self::Action(_) => "write ALLOW, DENY, AUDIT or CUSTOM",
            Self::Mode(_) => "write STRICT, PERMISSIVE, DISABLE or UNSET",
            Self::Address(_) => "write 10.1.2.3, 10.1.0.0/16, fd00::1 or fd00::/8",
            Self::Port(_) => "write a number from 0 to 65535 (1 to 65535 for portLevelMtls)",
            Self::Template(..) => {
                "write {*} for one whole segment and {**}, once and as the last operator, for any number"
            }
            Self::Account(_) => "write the account's name, or namespace/name; no stars, no scheme",
            Self::TrustDomain(_) => "write a name with at most one star, at its start or its end",
            Self::Key(_) => "see the keys in docs/policy.md",
            Self::OldKey(_) => "use metadata.namespace and spec.selector to say which workloads are meant",
            Self::KeyForm(_) => "write request.headers[name] or request.auth.claims[name]",
            Self::PseudoHeader(_) => "use paths, methods and hosts of to.operation",
            Self::LabelStar(_) => "name the label's whole value, or leave the label out",
            Self::Name(_) => "use lower-case letters, digits, '-' and '.'",
            Self::Header(_) => "use letters, digits and '-'",
            Self::Url(_) => "write https://host/path, at most 2048 characters",
            Self::Duration(_) => "write 5s, 500ms or 1m30s, at least 1ms",
            Self::Jwks(_) => "give {\"keys\": [...]}, each key with its \"kty\"",
            Self::Time(_) => "write it as 2026-01-31T12:00:00Z",
            Self::Bool(_) => "write \"true\" or \"false\"",
            Self::Target(_) => {
                "attach to a Gateway, GatewayClass, Service or ServiceEntry of the policy's own namespace"
            }
        }
    }
}

/// Values that are sound one by one and not together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// Both a selector and target references.
    #[error("selector and targetRefs exclude one another")]
    SelectorAndTargets,
    /// Both the old and the new form of target references.
    #[error("targetRef and targetRefs exclude one another")]
    TargetTwice,
    /// A reference into another namespace.
    #[error("a policy attaches to objects of its own namespace only")]
    TargetElsewhere,
    /// `provider` with another action.
    #[error("provider is for CUSTOM only")]
    ProviderWithoutCustom,
    /// CUSTOM without one.
    #[error("CUSTOM needs a provider")]
    CustomWithoutProvider,
    /// Restricting policies that match nothing.
    #[error("{0} without rules would do nothing")]
    NoRules(&'static str),
    /// Identity fields in a policy that runs before they are trusted.
    #[error("CUSTOM runs before identities are judged and cannot use this field")]
    CustomIdentity,
    /// `serviceAccounts` beside fields that say the same.
    #[error("serviceAccounts cannot stand beside principals or namespaces in one source")]
    AccountsBeside,
    /// A condition without values.
    #[error("a condition needs values or notValues")]
    NoValues,
    /// Ports without a selector.
    #[error("portLevelMtls needs a selector with labels")]
    PortsWithoutSelector,
    /// Both places for keys.
    #[error("jwks and jwksUri exclude one another")]
    TwoKeySources,
    /// Neither an issuer nor keys.
    #[error("a rule without issuer needs jwksUri")]
    NoIssuer,
    /// Two objects of one name.
    #[error("a second object of this kind, namespace and name")]
    Twice,
}

impl Conflict {
    fn hint(&self) -> &'static str {
        match self {
            Self::SelectorAndTargets => "keep selector for workloads, targetRefs for gateways and services",
            Self::TargetTwice => "keep targetRefs",
            Self::TargetElsewhere => "move the policy there and leave targetRefs.namespace out",
            Self::ProviderWithoutCustom => "remove it, or write action: CUSTOM",
            Self::CustomWithoutProvider => "name one under provider.name",
            Self::NoRules(_) => "add rules; `rules: [{}]` matches everything",
            Self::CustomIdentity => {
                "use addresses, hosts, ports, methods, paths or headers; put identity in an ALLOW or DENY"
            }
            Self::AccountsBeside => "keep serviceAccounts alone, or write the principals out",
            Self::NoValues => "add one of them",
            Self::PortsWithoutSelector => "add spec.selector.matchLabels",
            Self::TwoKeySources => "keep one of them",
            Self::NoIssuer => "add issuer, or jwksUri",
            Self::Twice => "keep one of them, or rename it",
        }
    }
}

/// A short piece of a document, printed in quotes with control characters escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    /// At most the first characters of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut short: String = text.chars().take(MAX_EXCERPT).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        Self(short)
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
