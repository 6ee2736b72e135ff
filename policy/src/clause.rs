//! A rule, taken apart into conjunctions that an index can file.

use std::sync::Arc;

use crate::check::{Check, Keys, Reading};
use crate::connection::{Facts, Lines};
use crate::model::{Action, Attribute, Place, Rule, Term};
use crate::principal::LocalDomains;

/// A rule with at most so many pairs of source and operation becomes one clause per pair; beyond that, one per
/// source.
const MAX_PAIRS: usize = 64;

type Checks = Arc<[Check]>;

/// One way for a rule to match: a source, one of some operations, and all conditions.
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    /// Number of the policy in its program.
    pub(crate) policy: u32,
    /// Number of the rule in its policy.
    pub(crate) rule: u32,
    from: Checks,
    /// Any of them; none of them is true.
    to: Arc<[Checks]>,
    when: Checks,
}

/// Where a clause stopped matching, and how far it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Miss<'c> {
    pub(crate) passed: usize,
    pub(crate) check: &'c Check,
}

impl Clause {
    /// Where it does not match, or nothing if it does.
    pub(crate) fn miss<'c>(&'c self, facts: &Facts<'_>) -> Option<Miss<'c>> {
        let mut passed = 0;
        if let Some(miss) = first_miss(&self.from, &mut passed, facts) {
            return Some(miss);
        }
        if let Some(miss) = self.miss_to(&mut passed, facts) {
            return Some(miss);
        }
        first_miss(&self.when, &mut passed, facts)
    }

    fn miss_to<'c>(&'c self, passed: &mut usize, facts: &Facts<'_>) -> Option<Miss<'c>> {
        let before = *passed;
        let mut nearest: Option<Miss<'c>> = None;
        for operation in self.to.iter() {
            *passed = before;
            let miss = first_miss(operation, passed, facts)?;
            if nearest.is_none_or(|nearest| miss.passed > nearest.passed) {
                nearest = Some(miss);
            }
        }
        nearest
    }

    /// The comparison that completes a match.
    pub(crate) fn last_place(&self, facts: &Facts<'_>) -> Option<Place> {
        let matched = |checks: &&Checks| checks.iter().all(|check| check.holds(facts));
        let operation = self.to.iter().find(matched);
        let all = self.from.iter();
        let all = all.chain(operation.into_iter().flat_map(|checks| checks.iter()));
        all.chain(self.when.iter()).last().map(|check| check.place)
    }

    /// Every attribute of which it demands something.
    pub(crate) fn demanded(&self) -> impl Iterator<Item = &Attribute> {
        let checks = self.from.iter().chain(self.when.iter());
        let checks = checks.chain(self.to.iter().flat_map(|operation| operation.iter()));
        checks
            .filter(|check| !check.negated)
            .map(|check| &check.attribute)
    }

    /// What a value of `attribute` must be like for this clause to match, if it must be like something.
    pub(crate) fn keys(&self, attribute: &Attribute) -> Option<Keys> {
        let positive = |check: &&Check| !check.negated && check.attribute == *attribute;
        let fixed = self.from.iter().chain(self.when.iter());
        let fixed = fixed.filter(positive).map(Check::keys).min_by_key(Keys::len);
        if fixed.is_some() {
            return fixed;
        }
        let operations = self.to.iter();
        let keys = operations.map(|checks| checks.iter().find(positive).map(Check::keys));
        keys.reduce(|a, b| a?.and(b?)).flatten()
    }
}

fn first_miss<'c>(checks: &'c [Check], passed: &mut usize, facts: &Facts<'_>) -> Option<Miss<'c>> {
    for check in checks {
        if !check.holds(facts) {
            let passed = *passed;
            return Some(Miss { passed, check });
        }
        *passed += 1;
    }
    None
}

/// What clauses are made for.
#[derive(Clone, Copy)]
pub(crate) struct Making<'a> {
    pub(crate) policy: u32,
    pub(crate) rule: u32,
    pub(crate) allow: bool,
    pub(crate) local: &'a LocalDomains,
}

impl<'a> Making<'a> {
    pub(crate) fn new(policy: u32, rule: u32, action: &Action, local: &'a LocalDomains) -> Self {
        Self {
            policy,
            rule,
            allow: *action == Action::Allow,
            local,
        }
    }

    /// The clauses of a rule, one of which must match.
    pub(crate) fn clauses(self, rule: &Rule) -> Vec<Clause> {
        let no_source = Vec::new();
        let sources: Vec<&Vec<Term>> = match rule.from.as_slice() {
            [] => vec![&no_source],
            some => some.iter().collect(),
        };
        let operations: Vec<Checks> = rule.to.iter().map(|to| self.checks(to, false)).collect();
        let operations: Vec<Arc<[Checks]>> =
            if operations.len() * sources.len() > MAX_PAIRS || operations.is_empty() {
                vec![operations.into()]
            } else {
                operations.into_iter().map(|one| Arc::from([one])).collect()
            };
        let conditioned = names_domain(&rule.when);
        let when = [false, true].map(|explicit| self.checks(&rule.when, explicit));
        let [when_local, when_any] = when;
        let mut clauses = Vec::new();
        for source in sources {
            let explicit = conditioned || names_domain(source);
            let from = self.checks(source, explicit);
            let when = if explicit { &when_any } else { &when_local };
            clauses.extend(operations.iter().map(|to| Clause {
                policy: self.policy,
                rule: self.rule,
                from: from.clone(),
                to: to.clone(),
                when: when.clone(),
            }));
        }
        clauses
    }

    /// Names of namespaces and accounts mean our own trust domain and its aliases, unless `trustDomains` stands
    /// beside them. In an ALLOW, what must not match counts peers of every domain: that lets fewer pass.
    ///
    /// A header that stands several times matches by any of its lines where a match holds back, and by all of them
    /// joined, as Istio has it, where a match lets pass: in `values` of an ALLOW and `notValues` of the others.
    fn checks(self, terms: &[Term], explicit: bool) -> Checks {
        let check = |term: &Term| {
            let counts_everybody = term.negated && self.allow;
            let local_only = !(explicit || counts_everybody);
            let lines = match self.allow == term.negated {
                true => Lines::EachAndJoined,
                false => Lines::Joined,
            };
            Check::new(term, Reading { local_only, lines }, self.local)
        };
        terms.iter().map(check).collect()
    }
}

/// Whether the terms say which trust domains are meant.
fn names_domain(terms: &[Term]) -> bool {
    terms
        .iter()
        .any(|term| term.attribute == Attribute::TrustDomain && !term.negated)
}
