//! `AuthorizationPolicy`: parsed whole or not at all.

use crate::cursor::{Cursor, Faults, Object};
use crate::fault::{BadValue, Conflict, Excerpt, Shape};
use crate::matcher::{Glob, Pattern};
use crate::model::meta::Meta;
use crate::model::selector::Attachment;
use crate::model::term::{Attribute, Part, PathValue, Place, Term, Values};
use crate::path::template::Template;
use crate::principal::{Account, RequestPrincipal, trust_domain_pattern};

mod when;
pub(crate) use when::is_header_name;

/// Most rules of a policy, and most entries of one part of a rule.
const MAX_ENTRIES: usize = 512;
/// Most values of `serviceAccounts`.
const MAX_ACCOUNTS: usize = 16;

pub(crate) const SPEC: &[&str] = &[
    "selector",
    "targetRef",
    "targetRefs",
    "action",
    "provider",
    "rules",
];
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

/// Who may do what.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// What Kubernetes knows of it.
    pub meta: Meta,
    /// What it applies to.
    pub attachment: Attachment,
    /// What a match means.
    pub action: Action,
    /// Any of them may match; none of them never does.
    pub rules: Vec<Rule>,
}

/// What a match means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it pass, unless something denies it; and deny what no such policy matches.
    Allow,
    /// Refuse it.
    Deny,
    /// Record it.
    Audit,
    /// Ask the provider of that name.
    Custom(String),
}

impl Action {
    /// Its name in a document.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom(_) => "CUSTOM",
        }
    }
}

/// All parts must match; of `from` and `to` one entry, of `when` every term. An absent part matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Sources, each a conjunction.
    pub from: Vec<Vec<Term>>,
    /// Operations, each a conjunction.
    pub to: Vec<Vec<Term>>,
    /// Conditions.
    pub when: Vec<Term>,
}

impl Rule {
    /// Every comparison in it.
    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        let parts = self.from.iter().chain(&self.to).flatten();
        parts.chain(&self.when)
    }
}

/// Reads a `spec`, which may be absent.
pub(crate) fn read(
    meta: Meta,
    spec: Option<&Cursor<'_>>,
    faults: &mut Faults,
) -> Option<AuthorizationPolicy> {
    let Some(spec) = spec else {
        return Some(AuthorizationPolicy {
            meta,
            attachment: Attachment::Everything,
            action: Action::Allow,
            rules: Vec::new(),
        });
    };
    let spec = spec.object(SPEC, faults)?;
    let attachment = Attachment::read(&spec, Some(&meta.namespace), faults);
    let action = action(&spec, faults);
    let rules = rules(&spec, &meta.namespace, action.as_ref(), faults);
    let (action, rules) = (action?, rules?);
    if rules.is_empty() && action != Action::Allow && action != Action::Audit {
        spec.at().fault(faults, Conflict::NoRules(action.as_str()));
        return None;
    }
    Some(AuthorizationPolicy {
        attachment: attachment?,
        meta,
        action,
        rules,
    })
}

/// The action alone, for an object whose other parts may be unreadable.
pub(crate) fn action(spec: &Object<'_>, faults: &mut Faults) -> Option<Action> {
    let word = match spec.get("action") {
        Some(at) => at.parse(faults, |word| match word {
            "ALLOW" | "DENY" | "AUDIT" | "CUSTOM" => Ok(word),
            _ => Err(BadValue::Action(Excerpt::of(word))),
        })?,
        None => "ALLOW",
    };
    let provider = spec.get("provider");
    match (word, provider) {
        ("CUSTOM", None) => {
            spec.at().fault(faults, Conflict::CustomWithoutProvider);
            None
        }
        ("CUSTOM", Some(provider)) => {
            let name = provider.object(&["name"], faults)?.require("name", faults)?;
            Some(Action::Custom(name.text(faults)?.to_owned()))
        }
        (_, Some(provider)) => {
            provider.fault(faults, Conflict::ProviderWithoutCustom);
            None
        }
        ("DENY", None) => Some(Action::Deny),
        ("AUDIT", None) => Some(Action::Audit),
        (_, None) => Some(Action::Allow),
    }
}

fn rules(
    spec: &Object<'_>,
    namespace: &str,
    action: Option<&Action>,
    faults: &mut Faults,
) -> Option<Vec<Rule>> {
    let Some(list) = spec.get("rules") else {
        return Some(Vec::new());
    };
    let items = list.list(MAX_ENTRIES, faults)?;
    let count = items.len();
    let custom = matches!(action, Some(Action::Custom(_)));
    let read: Vec<Rule> = items
        .iter()
        .filter_map(|item| rule(item, Reading { namespace, custom }, faults))
        .collect();
    (read.len() == count).then_some(read)
}

/// What the fields of a rule depend on besides themselves.
#[derive(Clone, Copy)]
struct Reading<'a> {
    namespace: &'a str,
    custom: bool,
}

fn rule(at: &Cursor<'_>, reading: Reading<'_>, faults: &mut Faults) -> Option<Rule> {
    let rule = at.object(&["from", "to", "when"], faults)?;
    let from = entries(&rule, "from", faults, |entry, item, faults| {
        let source = item.object(&["source"], faults)?.require("source", faults)?;
        source_terms(&source, entry, reading, faults)
    });
    let to = entries(&rule, "to", faults, |entry, item, faults| {
        let operation = item
            .object(&["operation"], faults)?
            .require("operation", faults)?;
        let fields = filled(&operation, OPERATION, faults)?;
        terms(&fields, faults, |name, at, faults| {
            operation_term(name, entry, at, faults)
        })
    });
    let when = entries(&rule, "when", faults, |entry, item, faults| {
        when::terms(item, entry, reading, faults)
    });
    Some(Rule {
        from: from?,
        to: to?,
        when: when?.into_iter().flatten().collect(),
    })
}

/// The entries of one part of a rule; an absent part has none, an empty one is a fault.
fn entries<T>(
    rule: &Object<'_>,
    part: &str,
    faults: &mut Faults,
    mut read: impl FnMut(usize, &Cursor<'_>, &mut Faults) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(list) = rule.get(part) else {
        return Some(Vec::new());
    };
    let items = list.filled_list(MAX_ENTRIES, faults)?;
    let count = items.len();
    let entries: Vec<T> = items
        .iter()
        .enumerate()
        .filter_map(|(entry, item)| read(entry, item, faults))
        .collect();
    (entries.len() == count).then_some(entries)
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

fn source_terms(
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
fn values(
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
