//! The policies of one workload, compiled: immutable, and asked once per request or connection.
//!
//! The order is Istio's: [`Program::gate`] first (CUSTOM), then the token, then [`Cleared::decide`] (DENY, then
//! ALLOW). A decision cannot be asked for before the gate was passed. What only observes is in
//! [`Program::shadow`], what explains in [`Program::explain`].

use crate::clause::Clause;
use crate::connection::{Connection, Facts, Request};
use crate::decision::{Denial, Nearest, Permit, PolicyName, ProviderDenial, RuleRef};
use crate::model::{Action, Attribute, Place, salvage::Effect};
use crate::principal::LocalDomains;
use crate::scope::ProviderKind;
use crate::table::{NoMatch, Table};

mod compile;
mod trace;

pub(crate) use compile::{Compiler, Source};
pub use trace::{Miss, Reason, Says, Several, Trace, Vote};

/// Most providers that the policies of one workload ask; policies that name a further one deny.
pub const MAX_PROVIDERS: usize = 16;

/// The policies in force for one workload.
#[derive(Clone, Debug)]
pub struct Program {
    policies: Box<[Policy]>,
    providers: Box<[(String, ProviderKind)]>,
    domains: LocalDomains,
    http: Tables,
    /// For connections without requests, where these differ.
    tcp: Option<Box<Tables>>,
    /// A policy without a good version that denies everything, if there is one.
    shut_by: Option<u32>,
    /// The first by name of the most specific ALLOW policies in force, if there are any.
    first_allow: Option<u32>,
    unenforceable: Box<[Unenforceable]>,
}

/// A policy of a program.
#[derive(Clone, Debug)]
struct Policy {
    name: PolicyName,
    action: Action,
    dry_run: bool,
    /// What it counts as, if it could not be read.
    faulty: Option<Effect>,
    rules: usize,
    provider: Option<Provider>,
}

/// Who answers for a CUSTOM policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// A provider of the program, by number.
    Known(usize),
    /// None that can be asked.
    Unknown,
}

/// The clauses by what they do.
#[derive(Clone, Debug)]
struct Tables {
    custom: Table,
    deny: Table,
    allow: Table,
    audit: Table,
    dry_custom: Table,
    dry_deny: Table,
    dry_allow: Table,
    /// ALLOW policies in force.
    allowing: usize,
    /// ALLOW policies that would be in force but for their dry run.
    dry_allowing: usize,
}

/// A field that cannot be enforced, and how it counts: never wider than written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unenforceable {
    /// The policy's number in its program.
    number: u32,
    /// The policy.
    pub policy: PolicyName,
    /// The rule in it, from 0.
    pub rule: usize,
    /// The field.
    pub field: Place,
    /// What it compares.
    pub attribute: Attribute,
    /// True where nothing can enforce it; false where only listeners without HTTP cannot.
    pub everywhere: bool,
    /// True where the whole rule matches nothing, false where the field counts as matched.
    pub never_matches: bool,
    /// The ports that the rule is limited to; none for all.
    pub ports: Vec<u16>,
}

/// What CUSTOM policies say.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'p> {
    /// Nobody has to be asked.
    Open(Cleared<'p>),
    /// Somebody has to be asked first.
    Ask(Question<'p>),
    /// It is refused without asking.
    Shut(Denial<'p>),
}

/// Proof that everybody who had to be asked let it pass.
#[derive(Clone, Copy, Debug)]
pub struct Cleared<'p> {
    program: &'p Program,
}

/// Who has to be asked. What is done with the answers is up to [`Question::granted`] and [`Question::refused`].
#[derive(Clone, Copy, Debug)]
pub struct Question<'p> {
    program: &'p Program,
    /// The rule that asks each provider.
    asked: [Option<(u32, u32)>; MAX_PROVIDERS],
}

/// What policies that decide nothing would have said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadow<'p> {
    /// An AUDIT rule that matched.
    pub audit: Option<RuleRef<'p>>,
    /// A CUSTOM rule in dry run that would have asked.
    pub custom: Option<RuleRef<'p>>,
    /// A DENY rule in dry run that would have denied.
    pub deny: Option<RuleRef<'p>>,
    /// An ALLOW rule in dry run that would have allowed.
    pub allow: Option<RuleRef<'p>>,
    /// ALLOW policies in dry run would be in force, and none of them matched.
    pub not_allowed: bool,
}

impl Program {
    /// Asks the CUSTOM policies. For a connection without requests, `request` is nothing.
    #[must_use]
    pub fn gate<'p>(&'p self, connection: &Connection<'_>, request: Option<&Request<'_>>) -> Gate<'p> {
        if let Some(policy) = self.shut_by.and_then(|number| self.policy(number)) {
            return Gate::Shut(Denial::Faulty { policy: &policy.name });
        }
        let tables = self.tables(request.is_some());
        if tables.custom.clauses().is_empty() {
            return Gate::Open(Cleared { program: self });
        }
        let facts = Facts::new(connection, request, &self.domains);
        let mut question = Question {
            program: self,
            asked: [None; MAX_PROVIDERS],
        };
        let mut denial = None;
        tables.custom.each(&facts, &mut |clause| {
            let denied = self.ask(clause, request.is_some(), &mut question);
            denial = denial.or(denied);
        });
        match denial {
            Some(denial) => Gate::Shut(denial),
            None if question.asked.iter().all(Option::is_none) => Gate::Open(Cleared { program: self }),
            None => Gate::Ask(question),
        }
    }

    /// Notes whom `clause` asks, or why nobody can be asked.
    fn ask<'p>(&'p self, clause: &Clause, http: bool, question: &mut Question<'p>) -> Option<Denial<'p>> {
        let by = self.rule(clause)?;
        let policy = self.policy(clause.policy)?;
        let known = match policy.provider {
            Some(Provider::Known(number)) => self.providers.get(number).map(|known| (number, known)),
            Some(Provider::Unknown) | None => None,
        };
        let custom = |provider, why| Some(Denial::Custom { by, provider, why });
        match known {
            Some((_, (name, ProviderKind::Http))) if !http => custom(name, ProviderDenial::HttpOnly),
            Some((number, _)) => {
                let place = question.asked.get_mut(number)?;
                *place = place.or(Some((clause.policy, clause.rule)));
                None
            }
            None => {
                let name = match &policy.action {
                    Action::Custom(name) => name.as_str(),
                    _ => "",
                };
                custom(name, ProviderDenial::Unknown)
            }
        }
    }

    /// What AUDIT policies and dry runs say. It changes nothing.
    #[must_use]
    pub fn shadow<'p>(&'p self, connection: &Connection<'_>, request: Option<&Request<'_>>) -> Shadow<'p> {
        let tables = self.tables(request.is_some());
        let facts = Facts::new(connection, request, &self.domains);
        let first = |table: &'p Table| table.first(&facts).ok().and_then(|clause| self.rule(clause));
        let allow = first(&tables.dry_allow);
        Shadow {
            audit: first(&tables.audit),
            custom: first(&tables.dry_custom),
            deny: first(&tables.dry_deny),
            not_allowed: allow.is_none() && tables.dry_allowing > 0,
            allow,
        }
    }

    /// Whether [`Self::shadow`] could say anything.
    #[must_use]
    pub fn has_shadow(&self) -> bool {
        let mut observing = self.policies.iter();
        observing.any(|policy| policy.dry_run || policy.action == Action::Audit)
    }

    /// Fields that cannot be enforced: to be reported when the program is put in force. Those that only HTTP
    /// has matter where a listener has none.
    #[must_use]
    pub fn unenforceable(&self) -> &[Unenforceable] {
        &self.unenforceable
    }

    /// Names of the policies in force, dry runs and unreadable ones included.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyName> {
        self.policies.iter().map(|policy| &policy.name)
    }

    fn tables(&self, http: bool) -> &Tables {
        match &self.tcp {
            Some(tcp) if !http => tcp,
            _ => &self.http,
        }
    }

    fn policy(&self, number: u32) -> Option<&Policy> {
        self.policies.get(usize::try_from(number).ok()?)
    }

    fn rule(&self, clause: &Clause) -> Option<RuleRef<'_>> {
        self.rule_ref(clause.policy, clause.rule)
    }

    fn rule_ref(&self, policy: u32, rule: u32) -> Option<RuleRef<'_>> {
        Some(RuleRef {
            policy: &self.policy(policy)?.name,
            rule: usize::try_from(rule).ok()?,
        })
    }

    fn not_allowed<'p>(&'p self, tables: &'p Tables, no_match: NoMatch<'p>) -> Denial<'p> {
        let near = |clause, field| {
            self.rule(clause)
                .map_or(Nearest::Far, |by| Nearest::Rule { by, field })
        };
        let first = self.first_allow.and_then(|number| self.policy(number));
        let first = first.map(|policy| &policy.name);
        Denial::NotAllowed {
            policies: tables.allowing,
            first,
            nearest: match no_match {
                NoMatch::Near(clause, field) => near(clause, field),
                NoMatch::Attribute(attribute) => Nearest::Attribute(attribute),
                NoMatch::Far => Nearest::Far,
                NoMatch::Empty => Nearest::NoRule { policy: first },
            },
        }
    }
}

impl<'p> Question<'p> {
    /// The providers to ask, each once.
    pub fn providers(&self) -> impl Iterator<Item = &'p str> + use<'p> {
        let asked = self.asked;
        let numbered = self.program.providers.iter().zip(asked);
        numbered.filter_map(|((name, _), by)| by.map(|_| name.as_str()))
    }

    /// Every one of [`Self::providers`] said yes. Said by whoever asked them, and by nobody else.
    #[must_use]
    pub fn granted(self) -> Cleared<'p> {
        Cleared {
            program: self.program,
        }
    }

    /// One of them said no, or did not answer in time. Nothing for a name that was not asked.
    #[must_use]
    pub fn refused(self, provider: &str) -> Option<Denial<'p>> {
        let numbered = self.program.providers.iter().zip(self.asked);
        let mut named = numbered.filter(|((name, _), _)| name == provider);
        let ((name, _), by) = named.next()?;
        let (policy, rule) = by?;
        Some(Denial::Custom {
            by: self.program.rule_ref(policy, rule)?,
            provider: name,
            why: ProviderDenial::Refused,
        })
    }
}

impl<'p> Cleared<'p> {
    /// Asks the DENY policies, then the ALLOW policies. For a connection without requests, `request` is nothing;
    /// for a request, its token was verified before.
    ///
    /// # Errors
    /// [`Denial`] with the policy, the rule and the field.
    pub fn decide(
        self,
        connection: &Connection<'_>,
        request: Option<&Request<'_>>,
    ) -> Result<Permit<'p>, Denial<'p>> {
        let program = self.program;
        let tables = program.tables(request.is_some());
        let facts = Facts::new(connection, request, &program.domains);
        if let Ok(clause) = tables.deny.first(&facts)
            && let Some(by) = program.rule(clause)
        {
            let field = clause.last_place(&facts);
            return Err(Denial::Denied { by, field });
        }
        if tables.allowing == 0 {
            return Ok(Permit::new(None));
        }
        match tables.allow.first(&facts) {
            Ok(clause) => Ok(Permit::new(program.rule(clause))),
            Err(no_match) => Err(program.not_allowed(tables, no_match)),
        }
    }
}
