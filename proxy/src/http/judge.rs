//! Who may: external authorizers, then tokens, then policies; all by what is in force at this moment.

use std::sync::Arc;

use http::{StatusCode, request};
use signet_policy::program::Shadow;
use signet_policy::{Denial, Gate, Request, RequestIdentity};

use super::asking;
use super::headers::Seen;
use super::refusal::Refusal;
use super::target;
use super::ticket::{Account, Ticket};
use crate::access_log::{Policy, Reason};
use crate::connection::{Accepted, Direction};
use crate::enforced::Enforced;
use crate::ext_authz::answer::Changes;

/// What was found of a request that may pass.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// Whose token it carries.
    pub identity: Option<Token>,
    /// What external authorizers want of the response's headers.
    pub later: Vec<Changes>,
}

/// A verified token's claims. Not for logs.
#[derive(Clone)]
pub struct Token(pub Arc<RequestIdentity>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Judges a request whose head was settled, and edits the head as its judges want.
///
/// # Errors
/// [`Refusal`].
pub async fn judge(
    account: &Account,
    head: &mut request::Parts,
    ticket: &mut Ticket,
) -> Result<Passed, Refusal> {
    if account.accepted.direction == Direction::Outbound {
        // What the workload sends is judged where it arrives.
        return Ok(Passed::default());
    }
    let Some(enforced) = account.shared.policies.current() else {
        return Err(Refusal::new(Reason::Policy(Policy::NotReady), None));
    };
    if let Err(unmet) = enforced.meets(&account.accepted) {
        let refusal = Refusal::new(unmet.reason(), unmet.to_string());
        let mut refusal = refusal.with_status(StatusCode::FORBIDDEN);
        refusal.close = true;
        return Err(refusal);
    }
    let program = &enforced.in_force.program;
    let mut later = Vec::new();
    let cleared = match with_request(head, None, |request| {
        program.gate(&account.accepted.facts(), Some(request))
    }) {
        Gate::Open(cleared) => cleared,
        Gate::Shut(denial) => return Err(denied(&denial)),
        // What few requests need lies apart: the rest of this is part of every connection's memory.
        Gate::Ask(question) => Box::pin(asking::ask(account, question, head, &mut later)).await?,
    };
    let identity = if enforced.in_force.tokens.is_empty() {
        None
    } else {
        Box::pin(asking::tokens(account, &enforced, head, ticket)).await?
    };
    let token = identity.as_deref();
    let facts = account.accepted.facts();
    let verdict = with_request(head, token, |request| {
        if program.has_shadow() {
            let shadow = program.shadow(&facts, Some(request));
            account.shared.metrics.shadow(&shadow);
            show(&shadow, &account.accepted);
        }
        match cleared.decide(&facts, Some(request)) {
            Ok(permit) => Ok(permit
                .by()
                .filter(|_| ticket.wants_permits())
                .map(|by| by.to_string())),
            Err(denial) => Err(denied(&denial)),
        }
    })?;
    if let Some(policy) = verdict {
        ticket.policy(policy);
    }
    let identity = identity.map(Token);
    Ok(Passed { identity, later })
}

/// Whether a request that passed would pass again.
#[must_use]
pub fn still_passes(
    enforced: &Enforced,
    accepted: &Accepted,
    head: &request::Parts,
    passed: &Passed,
) -> bool {
    if enforced.meets(accepted).is_err() {
        return false;
    }
    let facts = accepted.facts();
    let token = passed.identity.as_ref().map(|token| &*token.0);
    with_request(head, token, |request| {
        let cleared = match enforced.in_force.program.gate(&facts, Some(request)) {
            Gate::Open(cleared) => cleared,
            Gate::Shut(_) => return false,
            // It was asked when the request came; what it said holds for this request.
            Gate::Ask(question) => question.granted(),
        };
        cleared.decide(&facts, Some(request)).is_ok()
    })
}

/// Shows `look` the request as policy sees it.
pub fn with_request<R>(
    head: &request::Parts,
    identity: Option<&RequestIdentity>,
    look: impl FnOnce(&Request<'_>) -> R,
) -> R {
    let path = target::path(head);
    let headers = Seen(&head.headers);
    look(&Request {
        method: head.method.as_str(),
        authority: target::authority(head),
        path: &path,
        headers: &headers,
        identity,
    })
}

/// A policy's denial as a refusal.
#[must_use]
pub fn denied(denial: &Denial<'_>) -> Refusal {
    let mut refusal = Refusal::new(Reason::from(denial), denial.to_string());
    refusal.policy = denial.policy().map(ToString::to_string);
    refusal
}

/// What policies that decide nothing would have said goes to the log.
fn show(shadow: &Shadow<'_>, accepted: &Accepted) {
    for (outcome, rule) in [
        ("audit", shadow.audit),
        ("dry_run_custom", shadow.custom),
        ("dry_run_deny", shadow.deny),
        ("dry_run_allow", shadow.allow),
    ] {
        if let Some(rule) = rule {
            tracing::info!(
                target: "access",
                connection = accepted.id,
                policy = %rule,
                outcome,
                "policy that decides nothing matched"
            );
        }
    }
    if shadow.not_allowed {
        tracing::info!(
            target: "access",
            connection = accepted.id,
            outcome = "dry_run_not_allowed",
            "policy that decides nothing matched"
        );
    }
}
