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
use crate::connection::Accepted;
use crate::enforced::Enforced;
use crate::ext_authz::answer::Changes;

/// Most times that one request is judged because policies changed while it was.
const ROUNDS: usize = 8;

/// A verified token's claims. Not for logs.
#[derive(Clone)]
pub struct Identity(pub Arc<RequestIdentity>);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

/// Judges a request whose head was settled, and edits the head as its judges want. What external authorizers want of
/// the response's headers comes back. What it was let pass by is in force when this is done, and is kept with the
/// request, to be judged again when that changes.
///
/// # Errors
/// [`Refusal`].
pub async fn judge(
    account: &Account,
    head: &mut request::Parts,
    ticket: &mut Ticket,
) -> Result<Vec<Changes>, Refusal> {
    let mut later = Vec::new();
    let policies = &account.shared.policies;
    for round in 0..ROUNDS {
        let Some(case) = ticket.case() else {
            // What the workload sends is judged where it arrives.
            return Ok(later);
        };
        if round > 0
            && let Some(before) = case.matter().head.read()
        {
            head.headers = before.headers;
        }
        let Some(enforced) = policies.current() else {
            return Err(Refusal::new(Reason::Policy(Policy::NotReady), None));
        };
        judge_once(account, &enforced, head, ticket, &mut later).await?;
        // An authorizer or an issuer may have taken its time.
        if policies.is_current(&enforced) {
            return Ok(later);
        }
    }
    let detail = "policies change faster than it can be judged".to_owned();
    Err(Refusal::new(Reason::Policy(Policy::NotReady), detail))
}

async fn judge_once(
    account: &Account,
    enforced: &Arc<Enforced>,
    head: &mut request::Parts,
    ticket: &mut Ticket,
    later: &mut Vec<Changes>,
) -> Result<(), Refusal> {
    if let Err(unmet) = enforced.meets(&account.accepted) {
        let refusal = Refusal::new(unmet.reason(), unmet.to_string());
        let mut refusal = refusal.with_status(StatusCode::FORBIDDEN);
        refusal.close = true;
        return Err(refusal);
    }
    let program = &enforced.in_force.program;
    let cleared = match with_request(head, None, |request| {
        program.gate(&account.accepted.facts(), Some(request))
    }) {
        Gate::Open(cleared) => cleared,
        Gate::Shut(denial) => return Err(denied(&denial)),
        // What few requests need lies apart: the rest of this is part of every connection's memory.
        Gate::Ask(question) => Box::pin(asking::ask(account, question, head, ticket, later)).await?,
    };
    if let Some(case) = ticket.case() {
        case.matter().head.write(head);
    }
    let (identity, ends) = if enforced.in_force.tokens.is_empty() {
        (None, None)
    } else {
        Box::pin(asking::tokens(account, enforced, head, ticket)).await?
    };
    let facts = account.accepted.facts();
    let token = identity.as_ref().map(|identity| &*identity.0);
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
    if let Some(case) = ticket.case() {
        let mut matter = case.matter();
        matter.by = Some(Arc::clone(enforced));
        (matter.identity, matter.ends) = (identity, ends);
    }
    Ok(())
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
