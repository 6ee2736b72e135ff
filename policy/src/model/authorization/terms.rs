//! The fields of sources and operations, each a term.

use super::Reading;
use crate::cursor::{Cursor, Faults, Object};
use crate::fault::{BadValue, Conflict, Excerpt, Shape};
use crate::matcher::{Glob, Pattern};
use crate::model::term::{Attribute, Part, PathValue, Place, Term, Values};
use crate::path::template::Template;
use crate::principal::{Account, RequestPrincipal, trust_domain_pattern};

/// Most values of `serviceAccounts`.
const MAX_ACCOUNTS: usize = 16;

const SOURCE: &[&str] = &[
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
    "namespaces",
    "notNamespaces",
    "ipBlocks",
    "notIpBlocks",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
    "serviceAccounts",
    "notServiceAccounts",
    "trustDomains",
    "notTrustDomains",
];
const OPERATION: &[&str] = &[
    "hosts",
    "notHosts",
    "ports",
    "notPorts",
    "methods",
    "notMethods",
    "paths",
    "notPaths",
];

/// The terms of an operation.
pub(super) fn operation(at: &Cursor<'_>, entry: usize, faults: &mut Faults) -> Option<Vec<Term>> {
    let fields = filled(at, OPERATION, faults)?;
    terms(&fields, faults, |name, at, faults| {
        operation_term(name, entry, at, faults)
    })
}

/// An object that says something.
fn filled<'n>(at: &Cursor<'n>, known: &'static [&'static str], faults: &mut Faults) -> Option<Object<'n>> {
    let object = at.object(known, faults)?;
    if object.is_empty() {
        at.fault(faults, Shape::Empty);
        return None;
    }
    Some(object)
}

fn terms(
    object: &Object<'_>,
    faults: &mut Faults,
    mut read: impl FnMut(&str, &Cursor<'_>, &mut Faults) -> Option<Term>,
) -> Option<Vec<Term>> {
    let fields: Vec<_> = object.fields().collect();
    let count = fields.len();
    let terms: Vec<Term> = fields
        .iter()
        .filter_map(|(name, at)| read(name, at, faults))
        .collect();
    (terms.len() == count).then_some(terms)
}

/// The terms of a source.
pub(super) fn source(
    at: &Cursor<'_>,
    entry: usize,
    reading: Reading<'_>,
    faults: &mut Faults,
) -> Option<Vec<Term>> {
    let source = filled(at, SOURCE, faults)?;
    let accounts = source.get("serviceAccounts").or(source.get("notServiceAccounts"));
    let beside = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    if let Some(accounts) = accounts
        && beside.iter().any(|name| source.get(name).is_some())
    {
        accounts.fault(faults, Conflict::AccountsBeside);
    }
    terms(&source, faults, |name, at, faults| {
        source_term(name, entry, (at, reading), faults)
    })
}

/// The field without its negation, and whether it had one.
fn negation(name: &str) -> (&str, bool) {
    match name.strip_prefix("not") {
        Some(rest) => (rest, true),
        None => (name, false),
    }
}

/// The field as it stands in the list of known ones, for as long as the program runs.
fn known(name: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    fields.iter().copied().find(|field| *field == name)
}

fn source_term(
    name: &str,
    entry: usize,
    (at, reading): (&Cursor<'_>, Reading<'_>),
    faults: &mut Faults,
) -> Option<Term> {
    let field = known(name, SOURCE)?;
    let (bare, negated) = negation(name);
    let attribute = match bare {
        "principals" | "Principals" => Attribute::Principal,
        "requestPrincipals" | "RequestPrincipals" => Attribute::RequestPrincipal,
        "namespaces" | "Namespaces" => Attribute::Namespace,
        "ipBlocks" | "IpBlocks" => Attribute::SourceIp,
        "remoteIpBlocks" | "RemoteIpBlocks" => Attribute::RemoteIp,
        "serviceAccounts" | "ServiceAccounts" => Attribute::ServiceAccount,
        _ => Attribute::TrustDomain,
    };
    if reading.custom && attribute.is_identity() {
        at.fault(faults, Conflict::CustomIdentity);
        return None;
    }
    if attribute == Attribute::ServiceAccount {
        at.filled_list(MAX_ACCOUNTS, faults)?;
    }
    let values = values(&attribute, at, reading, faults)?;
    Some(Term {
        attribute,
        negated,
        values,
        place: Place {
            part: Part::From,
            entry,
            field,
        },
    })
}

fn operation_term(name: &str, entry: usize, at: &Cursor<'_>, faults: &mut Faults) -> Option<Term> {
    let field = known(name, OPERATION)?;
    let (bare, negated) = negation(name);
    let (attribute, values) = match bare {
        "hosts" | "Hosts" => (Attribute::Host, Values::Patterns(patterns(at, faults)?)),
        "methods" | "Methods" => (Attribute::Method, Values::Patterns(patterns(at, faults)?)),
        "paths" | "Paths" => (
            Attribute::Path,
            Values::Paths(at.parse_all(faults, |text| {
                if Template::is_template(text) {
                    Template::new(text).map(PathValue::Template)
                } else {
                    Ok(PathValue::Pattern(Pattern::new(text)))
                }
            })?),
        ),
        _ => (
            Attribute::DestinationPort,
            Values::Ports(at.parse_all(faults, port)?),
        ),
    };
    Some(Term {
        attribute,
        negated,
        values,
        place: Place {
            part: Part::To,
            entry,
            field,
        },
    })
}

fn patterns(at: &Cursor<'_>, faults: &mut Faults) -> Option<Vec<Pattern>> {
    at.parse_all(faults, |text| Ok::<_, BadValue>(Pattern::new(text)))
}

/// The values that an attribute takes, wherever it is compared.
pub(super) fn values(
    attribute: &Attribute,
    at: &Cursor<'_>,
    reading: Reading<'_>,
    faults: &mut Faults,
) -> Option<Values> {
    Some(match attribute {
        Attribute::Namespace => {
            Values::Globs(at.parse_all(faults, |text| Ok::<_, BadValue>(Glob::new(text)))?)
        }
        Attribute::ServiceAccount => {
            Values::Accounts(at.parse_all(faults, |text| Account::new(text, reading.namespace))?)
        }
        Attribute::TrustDomain => Values::Patterns(at.parse_all(faults, trust_domain_pattern)?),
        Attribute::RequestPrincipal => Values::RequestPrincipals(
            at.parse_all(faults, |text| Ok::<_, BadValue>(RequestPrincipal::new(text)))?,
        ),
        Attribute::SourceIp | Attribute::RemoteIp | Attribute::DestinationIp => {
            Values::Blocks(at.parse_all(faults, str::parse)?)
        }
        Attribute::DestinationPort => Values::Ports(at.parse_all(faults, port)?),
        _ => Values::Patterns(patterns(at, faults)?),
    })
}

/// Decimal digits, 0 to 65535.
pub(crate) fn port(text: &str) -> Result<u16, BadValue> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits => Ok(port),
        _ => Err(BadValue::Port(Excerpt::of(text))),
    }
}
