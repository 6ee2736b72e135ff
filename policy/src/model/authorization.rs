//! `AuthorizationPolicy`: parsed whole or not at all.

use crate::cursor::{Cursor, Faults, Object};
use crate::fault::{BadValue, Conflict, Excerpt};
use crate::model::meta::Meta;
use crate::model::selector::Attachment;
use crate::model::term::Term;

mod terms;
mod when;
pub(crate) use terms::port;
pub(crate) use when::is_header_name;

/// Most rules of a policy, and most entries of one part of a rule.
const MAX_ENTRIES: usize = 512;

pub(crate) const SPEC: &[&str] = &[
    "selector",
    "targetRef",
    "targetRefs",
    "action",
    "provider",
    "rules",
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
        terms::source(&source, entry, reading, faults)
    });
    let to = entries(&rule, "to", faults, |entry, item, faults| {
        let operation = item
            .object(&["operation"], faults)?
            .require("operation", faults)?;
        terms::operation(&operation, entry, faults)
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
