//! Judging once more what is under way: when policies change, when a token ends, when bundles no longer vouch for a
//! client. What would not be let pass now goes on no longer.

use std::sync::Arc;
use std::time::Duration;

use http::request;
use signet_certs::{UnixTime, lifetime};
use signet_policy::Gate;
use signet_policy::program::Cleared;

use super::docket::{Case, Matter, Sentence};
use super::judge::{Identity, with_request};
use super::ticket::Account;
use crate::access_log::{Identity as Peer, Policy, Reason, Record, Token};
use crate::enforced::Enforced;
use crate::jwt::Lost;

/// How long what was found of a token holds while the keys of a rule for it, which is new, are on their way.
const KEYS_GRACE: Duration = Duration::from_secs(30);

impl Account {
    /// Judges what is under way by `enforced`, if it was judged by something else; the connection first.
    pub fn judge_again(&self, enforced: &Arc<Enforced>) {
        if let Err(unmet) = enforced.meets(&self.accepted) {
            return self.end(&Sentence {
                reason: unmet.reason(),
                detail: unmet.to_string(),
                policy: None,
            });
        }
        for case in self.docket.under_way() {
            self.judge_case(enforced, &case, |matter| {
                let by = matter.by.as_ref();
                by.is_some_and(|by| !Arc::ptr_eq(by, enforced))
            });
        }
    }

    /// Ends the connection if the bundles no longer vouch for its client.
    pub fn judge_trust(&self) {
        if let Some(sentence) = self.untrusted() {
            self.end(&sentence);
        }
    }

    /// Some time has passed. Requests whose token has ended by now are judged again, and with `tokens` all that were let
    /// pass by one: its issuer's keys may have changed.
    pub fn tick(&self, now: UnixTime, tokens: bool) {
        // First those that were told before: what is told now has its own time to end.
        self.docket.tick();
        for case in self.docket.under_way() {
            let Some(by) = case.matter().by.clone() else {
                continue;
            };
            self.judge_case(&by, &case, |matter| {
                let ended = matter.ends.is_some_and(|end| end <= now);
                matter.by.is_some() && matter.identity.is_some() && (tokens || ended)
            });
        }
    }

    /// Why the connection must end, if the bundles no longer vouch for its client.
    pub(super) fn untrusted(&self) -> Option<Sentence> {
        let fault = self.trust()?.fault()?;
        Some(Sentence {
            reason: Reason::Identity(Peer::TrustWithdrawn),
            detail: format!("the client is no longer trusted: {fault}"),
            policy: None,
        })
    }

    fn end(&self, sentence: &Sentence) {
        let idle = self.docket.under_way().is_empty();
        if self.docket.end(sentence) && idle {
            // Requests under way have records of their own.
            let mut record = Record::begin(&self.shared, &self.accepted);
            record.ended(sentence.reason, sentence.detail.clone());
        }
    }

    fn judge_case(&self, enforced: &Arc<Enforced>, case: &Case, wanted: impl FnOnce(&Matter) -> bool) {
        let mut matter = case.matter();
        if !wanted(&matter) || case.is_ended() {
            return;
        }
        match self.verdict(enforced, &matter) {
            Ok(ends) => {
                matter.by = Some(Arc::clone(enforced));
                matter.ends = ends;
            }
            Err(sentence) => {
                drop(matter);
                case.end(sentence);
                self.docket.wake();
            }
        }
    }

    /// Whether a request would be let pass now, and until when its token counts.
    fn verdict(&self, enforced: &Enforced, matter: &Matter) -> Result<Option<UnixTime>, Sentence> {
        let withdrawn = |detail: String, policy: Option<String>| Sentence {
            reason: Reason::Policy(Policy::Withdrawn),
            detail,
            policy,
        };
        let Some(mut head) = matter.head.read() else {
            return Err(withdrawn("it cannot be judged again".into(), None));
        };
        let facts = self.accepted.facts();
        let program = &enforced.in_force.program;
        let gate = with_request(&head, None, |request| program.gate(&facts, Some(request)));
        let cleared: Cleared<'_> = match gate {
            Gate::Open(cleared) => cleared,
            Gate::Shut(denial) => return Err(withdrawn(denial.to_string(), policy(&denial))),
            Gate::Ask(question) => {
                if let Some(provider) = question.providers().find(|name| !matter.is_granted(name)) {
                    let detail = format!("provider {provider} was not asked when it came");
                    let policy = question.refused(provider).and_then(|denial| policy(&denial));
                    return Err(withdrawn(detail, policy));
                }
                question.granted()
            }
        };
        let (identity, ends) = self.tokens(enforced, matter, &mut head)?;
        let identity = identity.as_ref().map(|identity| &*identity.0);
        with_request(&head, identity, |request| cleared.decide(&facts, Some(request)))
            .map(|_| ends)
            .map_err(|denial| withdrawn(denial.to_string(), policy(&denial)))
    }

    fn tokens(
        &self,
        enforced: &Enforced,
        matter: &Matter,
        head: &mut request::Parts,
    ) -> Result<(Option<Identity>, Option<UnixTime>), Sentence> {
        let rules = &enforced.in_force.tokens;
        if rules.is_empty() {
            return Ok((None, None));
        }
        let now = self.shared.clock.now();
        let before = matter.identity.as_ref().map(|identity| &*identity.0);
        let tokens = &self.shared.tokens;
        match tokens.judge_again(rules, &enforced.keys, (head, before), now) {
            Ok(judged) => {
                judged.edits.apply(&mut head.headers);
                Ok((judged.identity.map(Identity), judged.ends))
            }
            // The rules are new and their keys on the way: for a while what was found of the token holds. Its end only
            // comes nearer, so the while is counted from when keys were first missed, however often rules change.
            Err(Lost { waits: true, .. }) if matter.ends.is_none_or(|end| now < end) => {
                let last = lifetime::plus(now, KEYS_GRACE);
                let ends = matter.ends.map_or(last, |end| end.min(last));
                Ok((matter.identity.clone(), Some(ends)))
            }
            Err(Lost { refused, .. }) => Err(Sentence {
                reason: Reason::Token(Token::Withdrawn),
                detail: refused.to_string(),
                policy: None,
            }),
        }
    }
}

fn policy(denial: &signet_policy::Denial<'_>) -> Option<String> {
    denial.policy().map(ToString::to_string)
}
