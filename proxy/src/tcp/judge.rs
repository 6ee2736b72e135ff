//! The verdict on a connection without HTTP: CUSTOM first, then DENY and ALLOW.

use std::sync::Arc;

use signet_policy::Gate;
use signet_policy::program::{Cleared, Program, Question};

use crate::access_log::{Policy, Reason, Record};
use crate::connection::Accepted;
use crate::enforced::Enforced;
use crate::shared::Shared;

/// Judges one connection, again and again. An external authorizer that said yes is not asked again: it judged this
/// connection, which has not changed.
pub(super) struct Judge {
    shared: Arc<Shared>,
    accepted: Arc<Accepted>,
    granted: Vec<String>,
    by: Option<String>,
}

/// A refusal.
pub(super) struct Verdict {
    pub(super) reason: Reason,
    pub(super) detail: String,
    pub(super) policy: Option<String>,
}

impl Verdict {
    pub(super) fn tell(self, record: &mut Record) {
        record.policy = self.policy;
        record.ended(self.reason, self.detail);
    }
}

impl Judge {
    pub(super) fn new(shared: &Arc<Shared>, accepted: &Arc<Accepted>) -> Self {
        Self {
            shared: Arc::clone(shared),
            accepted: Arc::clone(accepted),
            granted: Vec::new(),
            by: None,
        }
    }

    /// The rule that let it pass, if it took one.
    pub(super) fn by(&self) -> Option<String> {
        self.by.clone()
    }

    pub(super) async fn judge(&mut self, enforced: Option<Arc<Enforced>>) -> Result<(), Verdict> {
        let Some(enforced) = enforced else {
            return Err(Verdict {
                reason: Reason::Policy(Policy::NotReady),
                detail: "there are no policies yet, and nobody passes before".to_owned(),
                policy: None,
            });
        };
        if let Err(unmet) = enforced.meets(&self.accepted) {
            return Err(Verdict {
                reason: unmet.reason(),
                detail: unmet.to_string(),
                policy: None,
            });
        }
        let program = &enforced.in_force.program;
        let accepted = Arc::clone(&self.accepted);
        let facts = accepted.facts();
        let cleared = match program.gate(&facts, None) {
            Gate::Open(cleared) => cleared,
            Gate::Shut(denial) => return Err(refused(&denial)),
            Gate::Ask(question) => self.ask(question).await?,
        };
        self.decide(program, cleared)
    }

    fn decide(&mut self, program: &Program, cleared: Cleared<'_>) -> Result<(), Verdict> {
        let facts = self.accepted.facts();
        if program.has_shadow() {
            self.shared.metrics.shadow(&program.shadow(&facts, None));
        }
        let permit = cleared.decide(&facts, None).map_err(|denial| refused(&denial))?;
        self.by = permit.by().map(|rule| rule.to_string());
        Ok(())
    }

    async fn ask<'p>(&mut self, question: Question<'p>) -> Result<Cleared<'p>, Verdict> {
        for provider in question.providers() {
            if self.granted.iter().any(|granted| granted == provider) {
                continue;
            }
            let Err((reason, detail)) = self.shared.ask_about_connection(provider, &self.accepted).await
            else {
                self.granted.push(provider.to_owned());
                continue;
            };
            let denial = question.refused(provider);
            return Err(Verdict {
                reason,
                detail,
                policy: denial.and_then(|denial| denial.policy().map(ToString::to_string)),
            });
        }
        Ok(question.granted())
    }
}

fn refused(denial: &signet_policy::Denial<'_>) -> Verdict {
    Verdict {
        reason: denial.into(),
        detail: denial.to_string(),
        policy: denial.policy().map(ToString::to_string),
    }
}
