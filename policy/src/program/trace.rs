//! The whole answer: what every policy says of one connection or request, and why. Made on demand; it allocates.

use std::collections::BTreeMap;
use std::fmt;

use super::{Gate, Policy, Program, Tables};
use crate::check::Check;
use crate::clause::Clause;
use crate::connection::{Connection, Facts, Lines, Request, with_values};
use crate::decision::PolicyName;
use crate::model::{Action, Attribute, Place, salvage::Effect};
use crate::table::Table;

/// Most rules of one policy that are told apart.
const MAX_MISSES: usize = 64;

/// What every policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The verdict, as a sentence; a question to a provider counts as answered with yes.
    pub verdict: Result<String, String>,
    /// Providers that are asked first.
    pub asks: Vec<String>,
    /// One vote per policy in force, in the order of evaluation: CUSTOM, AUDIT, DENY, ALLOW.
    pub votes: Vec<Vote>,
}

/// What one policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The policy.
    pub policy: PolicyName,
    /// `ALLOW`, `DENY`, `AUDIT` or `CUSTOM`.
    pub action: &'static str,
    /// It decides nothing.
    pub dry_run: bool,
    /// What it says.
    pub says: Says,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// This rule of it matches, the first of them.
    Matches(usize),
    /// No rule matches: why, rule by rule, and how many more there are.
    DoesNotMatch(Vec<Miss>, usize),
    /// It cannot be read, has no good version, and counts as this.
    Unreadable(Effect),
}

/// Why a rule does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The rule, from 0.
    pub rule: usize,
    /// The first field that does not match, in the source or operation that came furthest.
    pub field: Place,
    /// Why it does not.
    pub reason: Reason,
}

/// Why a field does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Something else is there.
    Differs {
        /// What is compared.
        attribute: String,
        /// Of a header that stands several times, how that is read.
        several: Option<Several>,
        /// What is there; nothing if it is not to be shown or not there.
        presented: Option<String>,
        /// The values of the field.
        wanted: String,
        /// True if it must be none of them.
        negated: bool,
    },
    /// It cannot be enforced here, so the whole rule matches nothing.
    Unenforceable,
}

/// A header that stands several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Several {
    /// How often.
    pub lines: usize,
    /// Whether each line counts, beside all of them joined.
    pub each: bool,
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = if self.each { "each of them and all " } else { "" };
        write!(f, " of {} lines, {each}joined by commas,", self.lines)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Ok(why) => writeln!(f, "allowed: {why}")?,
            Err(why) => writeln!(f, "denied: {why}")?,
        }
        for provider in &self.asks {
            writeln!(f, "asks provider {provider} first")?;
        }
        for vote in &self.votes {
            let dry = if vote.dry_run { " (dry run)" } else { "" };
            write!(f, "{} {}{dry}: ", vote.action, vote.policy)?;
            match &vote.says {
                Says::Matches(rule) => writeln!(f, "rules[{rule}] matches")?,
                Says::Unreadable(effect) => writeln!(f, "cannot be read, counts as {}", effect.as_str())?,
                Says::DoesNotMatch(misses, more) => {
                    writeln!(f, "does not match")?;
                    for miss in misses {
                        writeln!(f, "  {miss}")?;
                    }
                    if *more > 0 {
                        writeln!(f, "  and {more} more rules")?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rules[{}].{}: ", self.rule, self.field)?;
        match &self.reason {
            Reason::Unenforceable => f.write_str("cannot be enforced here, so the rule matches nothing"),
            Reason::Differs {
                attribute,
                several,
                presented,
                wanted,
                negated,
            } => {
                write!(f, "the {attribute}")?;
                several.map_or(Ok(()), |several| several.fmt(f))?;
                match presented {
                    Some(presented) => write!(f, " is {presented:?}")?,
                    None => f.write_str(" is absent or not shown")?,
                }
                let verb = if *negated {
                    "must be none of"
                } else {
                    "must be one of"
                };
                write!(f, ", and {verb} {wanted}")
            }
        }
    }
}

impl Program {
    /// What every policy says, and why.
    #[must_use]
    pub fn explain(&self, connection: &Connection<'_>, request: Option<&Request<'_>>) -> Trace {
        let facts = Facts::new(connection, request, &self.domains);
        let tables = self.tables(request.is_some());
        let gate = self.gate(connection, request);
        let (cleared, asks) = match gate {
            Gate::Open(cleared) => (Ok(cleared), Vec::new()),
            Gate::Ask(question) => (
                Ok(question.granted()),
                question.providers().map(str::to_owned).collect(),
            ),
            Gate::Shut(denial) => (Err(denial), Vec::new()),
        };
        let verdict = match cleared.and_then(|cleared| cleared.decide(connection, request)) {
            Ok(permit) => Ok(match permit.by() {
                Some(by) => format!("{by} allows it"),
                None => "no ALLOW policy is in force".to_owned(),
            }),
            Err(denial) => Err(denial.to_string()),
        };
        let mut votes: Vec<(u8, Vote)> = (0..)
            .zip(&self.policies)
            .map(|(number, policy)| (order(policy), self.vote(number, policy, (tables, &facts))))
            .collect();
        votes.sort_by_key(|(order, _)| *order);
        Trace {
            verdict,
            asks,
            votes: votes.into_iter().map(|(_, vote)| vote).collect(),
        }
    }

    fn vote(&self, number: u32, policy: &Policy, (tables, facts): (&Tables, &Facts<'_>)) -> Vote {
        let says = match policy.faulty {
            Some(effect) => Says::Unreadable(effect),
            None => self.says(number, policy, (tables, facts)),
        };
        Vote {
            policy: policy.name.clone(),
            action: policy.action.as_str(),
            dry_run: policy.dry_run,
            says,
        }
    }

    fn says(&self, number: u32, policy: &Policy, (tables, facts): (&Tables, &Facts<'_>)) -> Says {
        let mut nearest: BTreeMap<usize, (usize, Miss)> = BTreeMap::new();
        for clause in table(tables, policy).clauses_of(number) {
            let rule = usize::try_from(clause.rule).unwrap_or_default();
            let Some((passed, miss)) = miss(clause, rule, facts) else {
                return Says::Matches(rule);
            };
            let known = nearest.get(&rule).map(|(passed, _)| *passed);
            if known.is_none_or(|known| passed > known) {
                nearest.insert(rule, (passed, miss));
            }
        }
        let from = self.unenforceable.partition_point(|lost| lost.number < number);
        let lost = self.unenforceable.iter().skip(from);
        let lost = lost.take_while(|lost| lost.number == number);
        let lost = lost.filter(|lost| lost.never_matches && (lost.everywhere || facts.request.is_none()));
        for lost in lost {
            let miss = Miss {
                rule: lost.rule,
                field: lost.field,
                reason: Reason::Unenforceable,
            };
            nearest.entry(lost.rule).or_insert((0, miss));
        }
        let misses: Vec<Miss> = nearest
            .into_values()
            .map(|(_, miss)| miss)
            .take(MAX_MISSES)
            .collect();
        let more = policy.rules.saturating_sub(misses.len());
        Says::DoesNotMatch(misses, more)
    }
}

fn table<'t>(tables: &'t Tables, policy: &Policy) -> &'t Table {
    match (&policy.action, policy.dry_run) {
        (Action::Custom(_), false) => &tables.custom,
        (Action::Custom(_), true) => &tables.dry_custom,
        (Action::Deny, false) => &tables.deny,
        (Action::Deny, true) => &tables.dry_deny,
        (Action::Allow, false) => &tables.allow,
        (Action::Allow, true) => &tables.dry_allow,
        (Action::Audit, _) => &tables.audit,
    }
}

fn order(policy: &Policy) -> u8 {
    match policy.action {
        Action::Custom(_) => 0,
        Action::Audit => 1,
        Action::Deny => 2,
        Action::Allow => 3,
    }
}

fn miss(clause: &Clause, rule: usize, facts: &Facts<'_>) -> Option<(usize, Miss)> {
    let miss = clause.miss(facts)?;
    let check = miss.check;
    let reason = Reason::Differs {
        attribute: check.attribute.to_string(),
        several: several(check, facts),
        presented: presented(check, facts),
        wanted: check.written.to_string(),
        negated: check.negated,
    };
    let field = check.place;
    Some((miss.passed, Miss { rule, field, reason }))
}

fn several(check: &Check, facts: &Facts<'_>) -> Option<Several> {
    let (Attribute::Header(name), Some(request)) = (&check.attribute, facts.request) else {
        return None;
    };
    let lines = with_values(request.headers, name, |values| values.len());
    let each = check.lines == Lines::EachAndJoined;
    (lines > 1).then_some(Several { lines, each })
}

/// What is there. Headers and tokens are never shown: they may be secrets.
fn presented(check: &Check, facts: &Facts<'_>) -> Option<String> {
    let connection = facts.connection;
    match &check.attribute {
        Attribute::SourceIp => Some(connection.source.to_string()),
        Attribute::RemoteIp => Some(connection.remote.to_string()),
        Attribute::DestinationIp => Some(connection.destination.to_string()),
        Attribute::DestinationPort => Some(connection.port.to_string()),
        Attribute::Namespace | Attribute::ServiceAccount if !facts.local => {
            facts.principal.map(str::to_owned)
        }
        attribute => facts.text(attribute).map(str::to_owned),
    }
}
