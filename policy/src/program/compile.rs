//! From checked policies to a program.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{MAX_PROVIDERS, Policy, Program, Provider, Tables, Unenforceable};
use crate::clause::{Clause, Making};
use crate::decision::PolicyName;
use crate::model::salvage::{Effect, Faulty};
use crate::model::{Action, Attribute, AuthorizationPolicy, Rule, Term, Values};
use crate::scope::{Level, Mesh};
use crate::table::Table;

/// A policy that concerns the workload.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// As written.
    Sound(&'a AuthorizationPolicy),
    /// What an unreadable one counts as.
    Faulty(&'a Faulty),
}

/// What a rule is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Tcp,
}

impl Protocol {
    /// Whether the attribute can be compared here.
    fn has(self, attribute: &Attribute) -> bool {
        !attribute.is_unavailable() && (self == Self::Http || !attribute.is_http())
    }
}

/// A program being made.
pub(crate) struct Compiler<'a> {
    mesh: &'a Mesh,
    policies: Vec<Policy>,
    providers: Vec<(String, crate::scope::ProviderKind)>,
    http: Lists,
    tcp: Lists,
    differs: bool,
    shut_by: Option<u32>,
    first_allow: Option<(Level, u32)>,
    unenforceable: Vec<Unenforceable>,
}

/// Clauses by action and by dry run.
#[derive(Default)]
struct Lists {
    clauses: BTreeMap<(&'static str, bool), Vec<Clause>>,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(mesh: &'a Mesh) -> Self {
        Self {
            mesh,
            policies: Vec::new(),
            providers: Vec::new(),
            http: Lists::default(),
            tcp: Lists::default(),
            differs: false,
            shut_by: None,
            first_allow: None,
            unenforceable: Vec::new(),
        }
    }

    /// Takes a policy; they come in the order of their names.
    pub(crate) fn add(&mut self, name: PolicyName, level: Level, source: Source<'_>) {
        let Ok(number) = u32::try_from(self.policies.len()) else {
            return;
        };
        let allows = match source {
            Source::Sound(policy) => policy.action == Action::Allow && !policy.meta.dry_run,
            Source::Faulty(faulty) => faulty.effect == Effect::AllowNothing,
        };
        if allows && self.first_allow.is_none_or(|(first, _)| level > first) {
            self.first_allow = Some((level, number));
        }
        match source {
            Source::Sound(policy) => self.sound(number, name, policy),
            Source::Faulty(faulty) => self.faulty(number, name, faulty.effect),
        }
    }

    fn faulty(&mut self, number: u32, name: PolicyName, effect: Effect) {
        let action = match effect {
            Effect::AllowNothing => Action::Allow,
            Effect::DenyAll => Action::Deny,
            Effect::Strict | Effect::RefuseTokens | Effect::Nothing => return,
        };
        if action == Action::Deny {
            self.shut_by = self.shut_by.or(Some(number));
        }
        self.policies.push(Policy {
            name,
            action,
            dry_run: false,
            faulty: Some(effect),
            rules: 0,
            provider: None,
        });
    }

    fn sound(&mut self, number: u32, name: PolicyName, policy: &AuthorizationPolicy) {
        let provider = match &policy.action {
            Action::Custom(name) => Some(self.provider(name)),
            _ => None,
        };
        for (at, rule) in (0..).zip(&policy.rules) {
            self.report((number, &name), at, policy, rule);
            let making = Making::new(number, at, &policy.action, &self.mesh.domains);
            // An AUDIT decides nothing anyway, so it has no dry run.
            let dry_run = policy.meta.dry_run && policy.action != Action::Audit;
            let list = (policy.action.as_str(), dry_run);
            let allow = policy.action == Action::Allow;
            for (protocol, lists) in [(Protocol::Http, &mut self.http), (Protocol::Tcp, &mut self.tcp)] {
                let enforced = enforceable(rule, allow, protocol);
                if protocol == Protocol::Tcp && !matches!(enforced, Some(Cow::Borrowed(_))) {
                    self.differs = true;
                }
                if let Some(rule) = enforced {
                    lists
                        .clauses
                        .entry(list)
                        .or_default()
                        .extend(making.clauses(&rule));
                }
            }
        }
        self.policies.push(Policy {
            name,
            action: policy.action.clone(),
            dry_run: policy.meta.dry_run,
            faulty: None,
            rules: policy.rules.len(),
            provider,
        });
    }

    fn provider(&mut self, name: &str) -> Provider {
        if let Some(known) = self.providers.iter().position(|(known, _)| known == name) {
            return Provider::Known(known);
        }
        match self.mesh.providers.get(name) {
            Some(kind) if self.providers.len() < MAX_PROVIDERS => {
                self.providers.push((name.to_owned(), *kind));
                Provider::Known(self.providers.len() - 1)
            }
            _ => Provider::Unknown,
        }
    }

    fn report(
        &mut self,
        (number, name): (u32, &PolicyName),
        at: u32,
        policy: &AuthorizationPolicy,
        rule: &Rule,
    ) {
        let lost = rule
            .terms()
            .filter(|term| term.attribute.is_http() || term.attribute.is_unavailable());
        for term in lost {
            self.unenforceable.push(Unenforceable {
                number,
                policy: name.clone(),
                rule: usize::try_from(at).unwrap_or_default(),
                field: term.place,
                attribute: term.attribute.clone(),
                everywhere: term.attribute.is_unavailable(),
                never_matches: policy.action == Action::Allow,
                ports: ports(rule),
            });
        }
    }

    pub(crate) fn finish(self) -> Program {
        let count = |dry_run| {
            let allowing = |policy: &&Policy| policy.action == Action::Allow && policy.dry_run == dry_run;
            self.policies.iter().filter(allowing).count()
        };
        let (allowing, dry_allowing) = (count(false), count(true));
        Program {
            http: self.http.tables(allowing, dry_allowing),
            tcp: self
                .differs
                .then(|| Box::new(self.tcp.tables(allowing, dry_allowing))),
            policies: self.policies.into(),
            providers: self.providers.into(),
            domains: self.mesh.domains.clone(),
            shut_by: self.shut_by,
            first_allow: self.first_allow.map(|(_, number)| number),
            unenforceable: self.unenforceable.into(),
        }
    }
}

impl Lists {
    fn tables(mut self, allowing: usize, dry_allowing: usize) -> Tables {
        let mut table = |action, dry_run| {
            let clauses = self.clauses.remove(&(action, dry_run));
            Table::new(clauses.unwrap_or_default())
        };
        let audit = table("AUDIT", false);
        Tables {
            custom: table("CUSTOM", false),
            deny: table("DENY", false),
            allow: table("ALLOW", false),
            audit,
            dry_custom: table("CUSTOM", true),
            dry_deny: table("DENY", true),
            dry_allow: table("ALLOW", true),
            allowing,
            dry_allowing,
        }
    }
}

/// The rule without what cannot be compared: nothing for an ALLOW rule that has such a field, since it could
/// only match too much; for others the field counts as matched, since they could only match too little.
fn enforceable(rule: &Rule, allow: bool, protocol: Protocol) -> Option<Cow<'_, Rule>> {
    if rule.terms().all(|term| protocol.has(&term.attribute)) {
        return Some(Cow::Borrowed(rule));
    }
    if allow {
        return None;
    }
    let keep = |terms: &Vec<Term>| {
        let terms = terms.iter().filter(|term| protocol.has(&term.attribute));
        terms.cloned().collect::<Vec<_>>()
    };
    Some(Cow::Owned(Rule {
        from: rule.from.iter().map(keep).collect(),
        to: rule.to.iter().map(keep).collect(),
        when: keep(&rule.when),
    }))
}

/// The ports that every operation of the rule names; none if one does not.
fn ports(rule: &Rule) -> Vec<u16> {
    let named = |terms: &Vec<Term>| {
        terms.iter().find_map(|term| match (&term.values, term.negated) {
            (Values::Ports(ports), false) => Some(ports.clone()),
            _ => None,
        })
    };
    let named: Option<Vec<Vec<u16>>> = rule.to.iter().map(named).collect();
    named.unwrap_or_default().concat()
}
