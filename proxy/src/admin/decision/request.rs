//! A connection or a request before the judges of real ones.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderName, HeaderValue, Request, request};
use serde::Deserialize;
use signet_certs::jws::TokenFault;
use signet_policy::program::{Says, Trace};
use signet_policy::{Denial, Gate, RequestIdentity};

use super::{Answer, Refused, Step, Vote};
use crate::access_log::{Reason, RequestFault};
use crate::connection::Accepted;
use crate::enforced::Enforced;
use crate::http::exchange::settle_head;
use crate::http::judge::{denied, with_request};
use crate::http::refusal::Refusal;
use crate::http::{asking, told};
use crate::jwt::{Fault, TokenRefused};
use crate::shared::Shared;

/// A request as a client would send it. Never shown: it may hold a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Asked {
    method: String,
    path: String,
    host: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    token: Option<String>,
}

/// What is judged, and by what.
pub(super) struct Case<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) enforced: &'a Arc<Enforced>,
    pub(super) accepted: &'a Accepted,
}

impl Case<'_> {
    /// A connection without requests.
    pub(super) fn judge_connection(&self, answer: &mut Answer) -> Result<(), Refused> {
        let program = &self.enforced.in_force.program;
        let facts = self.accepted.facts();
        answer.vote(votes(&program.explain(&facts, None)));
        let (cleared, asks) = match program.gate(&facts, None) {
            Gate::Open(cleared) => (cleared, Vec::new()),
            Gate::Shut(denial) => return Err(by_policy(&denial, false)),
            Gate::Ask(question) => (
                question.granted(),
                question.providers().map(str::to_owned).collect(),
            ),
        };
        let permit = cleared
            .decide(&facts, None)
            .map_err(|denial| by_policy(&denial, false))?;
        answer.push(permitted(permit.by().map(|by| by.to_string()), &asks));
        Ok(())
    }

    /// A request, by the port's HTTP.
    pub(super) fn judge_request(&self, asked: Asked, answer: &mut Answer) -> Result<(), Refused> {
        let has_token = asked.token.is_some();
        let mut head = head(asked)?;
        let xfcc = told(self.accepted);
        settle_head(
            self.shared.config.normalization,
            self.accepted,
            xfcc.as_ref(),
            &mut head,
        )
        .map_err(|refusal| refused("request", refusal))?;
        let program = &self.enforced.in_force.program;
        let facts = self.accepted.facts();
        let gate = with_request(&head, None, |request| program.gate(&facts, Some(request)));
        let (cleared, asks) = match gate {
            Gate::Open(cleared) => (cleared, Vec::new()),
            Gate::Shut(denial) => {
                answer.vote(self.votes(&head, None));
                return Err(by_policy(&denial, true));
            }
            Gate::Ask(question) => (
                question.granted(),
                question.providers().map(str::to_owned).collect::<Vec<_>>(),
            ),
        };
        let identity = self.token(&mut head, has_token, answer)?;
        answer.vote(self.votes(&head, identity.as_deref()));
        let permit = with_request(&head, identity.as_deref(), |request| {
            let permit = cleared.decide(&facts, Some(request));
            permit
                .map(|permit| permit.by().map(|by| by.to_string()))
                .map_err(|denial| by_policy(&denial, true))
        })?;
        answer.push(permitted(permit, &asks));
        Ok(())
    }

    fn votes(&self, head: &request::Parts, identity: Option<&RequestIdentity>) -> Vec<Vote> {
        let program = &self.enforced.in_force.program;
        let facts = self.accepted.facts();
        with_request(head, identity, |request| {
            votes(&program.explain(&facts, Some(request)))
        })
    }

    /// By the keys at hand: whose issuer is asked for newer ones is up to those who bring real requests.
    fn token(
        &self,
        head: &mut request::Parts,
        has_token: bool,
        answer: &mut Answer,
    ) -> Result<Option<Arc<RequestIdentity>>, Refused> {
        let rules = &self.enforced.in_force.tokens;
        if rules.is_empty() {
            let sentence = match has_token {
                true => "no RequestAuthentication reaches the workload, so the token is not looked at",
                false => "no RequestAuthentication reaches the workload",
            };
            answer.push(Step::ok("token", sentence));
            return Ok(None);
        }
        let (shared, keys) = (self.shared, &self.enforced.keys);
        let now = shared.clock.now();
        let judged = shared.tokens.judge_again(rules, keys, (head, None), now);
        let judged = judged.map_err(|lost| by_token(&lost.refused))?;
        judged.edits.apply(&mut head.headers);
        let principal = judged.identity.as_ref().and_then(|identity| identity.principal());
        let sentence = match (&judged.identity, principal) {
            (Some(_), Some(principal)) => format!("the token is good; it is that of {principal}"),
            (Some(_), None) => "the token is good; it names no principal".to_owned(),
            (None, _) => {
                "the request has no token, which is no fault by itself: policies may demand one".to_owned()
            }
        };
        answer.push(Step::ok("token", sentence));
        Ok(judged.identity)
    }
}

/// The head of the request that is meant.
fn head(asked: Asked) -> Result<request::Parts, Refused> {
    let bad = |what: &str| {
        let sentence = format!("{what} cannot stand in a request");
        let mut refused = Step::refused("request", Reason::Request(RequestFault::Bad), sentence);
        refused.status = Some(400);
        refused
    };
    let builder = Request::builder().method(asked.method.as_str()).uri(asked.path);
    let (mut head, ()) = builder
        .body(())
        .map_err(|_| bad("the method or the path"))?
        .into_parts();
    let host = HeaderValue::from_str(&asked.host).map_err(|_| bad("the host"))?;
    head.headers.insert(HOST, host);
    for (name, value) in asked.headers {
        let name: HeaderName = name.parse().map_err(|_| bad("the name of a header"))?;
        let value = HeaderValue::from_str(&value).map_err(|_| bad("the value of a header"))?;
        head.headers.append(name, value);
    }
    if let Some(token) = asked.token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_| bad("the token"))?;
        value.set_sensitive(true);
        head.headers.insert(AUTHORIZATION, value);
    }
    Ok(head)
}

fn refused(step: &'static str, refusal: Refusal) -> Refused {
    let status = refusal.status().as_u16();
    let sentence = refusal.detail.unwrap_or_default();
    let mut refused = Step::refused(step, refusal.reason, sentence);
    refused.status = Some(status);
    refused.policy = refusal.policy;
    refused
}

fn by_token(fault: &TokenRefused) -> Refused {
    let mut step = refused("token", asking::refusal(fault));
    if matches!(fault, TokenRefused::Invalid(Fault::Token(TokenFault::UnknownKid))) {
        step.sentence +=
            "; keys that are fetched would be fetched anew for a real request, which was not done";
        step.status = None;
        return Box::new(step.depends());
    }
    step
}

fn by_policy(denial: &Denial<'_>, http: bool) -> Refused {
    let mut step = refused("policy", denied(denial));
    step.status = step.status.filter(|_| http);
    step
}

fn permitted(by: Option<String>, asks: &[String]) -> Step {
    let sentence = match &by {
        Some(by) => format!("{by} allows it"),
        None => "no ALLOW policy reaches the workload, so whatever is not denied passes".to_owned(),
    };
    let mut step = Step::ok("policy", sentence);
    step.policy = by;
    if !asks.is_empty() {
        step.outcome = "depends";
        let asks = asks.join(", ");
        step.sentence = format!(
            "{}; before that it is up to {asks}, which was not asked",
            step.sentence
        );
    }
    step
}

fn votes(trace: &Trace) -> Vec<Vote> {
    let votes = trace.votes.iter();
    votes
        .map(|vote| {
            let (says, because) = match &vote.says {
                Says::Matches(rule) => ("matches", vec![format!("rules[{rule}]")]),
                Says::Unreadable(effect) => (
                    "unreadable",
                    vec![format!("cannot be read, counts as {}", effect.as_str())],
                ),
                Says::DoesNotMatch(misses, _) => {
                    ("does_not_match", misses.iter().map(ToString::to_string).collect())
                }
            };
            Vote {
                policy: vote.policy.to_string(),
                action: vote.action,
                dry_run: vote.dry_run,
                says,
                because,
            }
        })
        .collect()
}
