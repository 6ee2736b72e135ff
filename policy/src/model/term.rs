//! One comparison of a rule: an attribute, the values it may have, or must not have.

use std::fmt;

use crate::address::Block;
use crate::matcher::{Glob, Pattern};
use crate::path::template::Template;
use crate::principal::{Account, RequestPrincipal};

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// The peer's SPIFFE ID without its scheme.
    Principal,
    /// The namespace in the peer's SPIFFE ID.
    Namespace,
    /// The service account in the peer's SPIFFE ID.
    ServiceAccount,
    /// The peer's trust domain.
    TrustDomain,
    /// Issuer and subject of the request's token.
    RequestPrincipal,
    /// The address that the connection comes from.
    SourceIp,
    /// The original client's address.
    RemoteIp,
    /// The address that the connection goes to.
    DestinationIp,
    /// The listener's port.
    DestinationPort,
    /// The server name that the client's TLS asked for.
    Sni,
    /// The request's authority, with its port if it has one.
    Host,
    /// The request's method.
    Method,
    /// The request's path.
    Path,
    /// A request header, in lower case.
    Header(Box<str>),
    /// The token's audiences.
    Audiences,
    /// The token's authorized party.
    Presenter,
    /// A claim of the token, by its names from the outside in.
    Claim(Box<[Box<str>]>),
    /// Metadata of an Envoy filter, which this proxy has not.
    FilterMetadata(Box<str>),
}

impl Attribute {
    /// Whether only a request has it.
    #[must_use]
    pub fn is_http(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal
                | Self::Host
                | Self::Method
                | Self::Path
                | Self::Header(_)
                | Self::Audiences
                | Self::Presenter
                | Self::Claim(_)
        )
    }

    /// Whether nothing here ever has it.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::FilterMetadata(_))
    }

    /// Whether it says who the peer is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        matches!(
            self,
            Self::Principal
                | Self::Namespace
                | Self::ServiceAccount
                | Self::TrustDomain
                | Self::RequestPrincipal
                | Self::Audiences
                | Self::Presenter
                | Self::Claim(_)
        )
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Principal => "principal",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service account",
            Self::TrustDomain => "trust domain",
            Self::RequestPrincipal => "request principal",
            Self::SourceIp => "source address",
            Self::RemoteIp => "client address",
            Self::DestinationIp => "destination address",
            Self::DestinationPort => "port",
            Self::Sni => "server name",
            Self::Host => "host",
            Self::Method => "method",
            Self::Path => "path",
            Self::Header(name) => return write!(f, "header {name}"),
            Self::Audiences => "audience",
            Self::Presenter => "presenter",
            Self::Claim(names) => return write!(f, "claim {}", names.join(".")),
            Self::FilterMetadata(name) => return write!(f, "filter metadata {name}"),
        })
    }
}

/// The values of one field. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// String rules.
    Patterns(Vec<Pattern>),
    /// Namespaces, in which every star counts.
    Globs(Vec<Glob>),
    /// Service accounts, with their namespaces.
    Accounts(Vec<Account>),
    /// Issuer and subject.
    RequestPrincipals(Vec<RequestPrincipal>),
    /// Paths: string rules and templates.
    Paths(Vec<PathValue>),
    /// Addresses and blocks.
    Blocks(Vec<Block>),
    /// Ports.
    Ports(Vec<u16>),
}

/// One value of `paths`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathValue {
    /// A string rule.
    Pattern(Pattern),
    /// A template.
    Template(Template),
}

impl fmt::Display for PathValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => pattern.fmt(f),
            Self::Template(template) => template.fmt(f),
        }
    }
}

/// Most values of one field that are printed.
const SHOWN: usize = 5;

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patterns(values) => list(f, values),
            Self::Globs(values) => list(f, values),
            Self::Accounts(values) => list(f, values),
            Self::RequestPrincipals(values) => list(f, values),
            Self::Paths(values) => list(f, values),
            Self::Blocks(values) => list(f, values),
            Self::Ports(values) => list(f, values),
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, values: &[T]) -> fmt::Result {
    for (at, value) in values.iter().take(SHOWN).enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        value.fmt(f)?;
    }
    match values.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

/// Where in its rule a comparison stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The part of the rule.
    pub part: Part,
    /// The entry of that part.
    pub entry: usize,
    /// The field of that entry.
    pub field: &'static str,
}

/// The part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Who asks.
    From,
    /// What is asked for.
    To,
    /// Further conditions.
    When,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entry, field) = (self.entry, self.field);
        match self.part {
            Part::From => write!(f, "from[{entry}].source.{field}"),
            Part::To => write!(f, "to[{entry}].operation.{field}"),
            Part::When => write!(f, "when[{entry}].{field}"),
        }
    }
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// What is compared.
    pub attribute: Attribute,
    /// True when none of the values may match.
    pub negated: bool,
    /// With what.
    pub values: Values,
    /// Where it stands.
    pub place: Place,
}
