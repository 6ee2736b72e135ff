//! Whom else a request is shown to: external authorizers, and the judge of tokens.

use http::request;
use signet_certs::UnixTime;
use signet_policy::program::{Cleared, Question};

use super::judge::{Identity, denied};
use super::refusal::{Refusal, Said};
use super::ticket::{Account, Ticket};
use crate::access_log::{Policy, Reason, Token};
use crate::enforced::Enforced;
use crate::ext_authz::answer::Changes;
use crate::ext_authz::{Answer, Denied};
use crate::jwt::{Fault, TokenRefused};

/// Asks every external authorizer that has to be asked and has not let this request pass before, one after the other:
/// each sees what the one before it changed. What they want of the response is noted in `later`.
///
/// # Errors
/// [`Refusal`], as soon as one of them does not say yes.
pub async fn ask<'p>(
    account: &Account,
    question: Question<'p>,
    head: &mut request::Parts,
    ticket: &Ticket,
    later: &mut Vec<Changes>,
) -> Result<Cleared<'p>, Refusal> {
    let case = ticket.case();
    for provider in question.providers() {
        if case.is_some_and(|case| case.matter().is_granted(provider)) {
            continue;
        }
        let refusal = || match question.refused(provider) {
            Some(denial) => denied(&denial),
            None => Refusal::new(Reason::Policy(Policy::ProviderUnknown), None),
        };
        match account
            .shared
            .asker
            .ask(provider, &account.accepted, Some(head))
            .await
        {
            Answer::Allowed(allowed) => {
                allowed.request.apply(&mut head.headers);
                if !allowed.response.is_empty() {
                    later.push(allowed.response);
                }
                if let Some(case) = case {
                    case.matter().granted.push(provider.to_owned());
                }
            }
            Answer::Denied(Denied {
                status,
                headers,
                body,
            }) => {
                let mut said = Said {
                    body,
                    ..Said::default()
                };
                headers.apply(&mut said.headers);
                let mut refusal = refusal().with_status(status);
                refusal.said = Some(Box::new(said));
                return Err(refusal);
            }
            Answer::Failed(failure) => {
                let mut refusal = refusal();
                refusal.reason = Reason::Policy(Policy::ProviderFailed);
                refusal.detail = Some(format!("provider {provider}: {failure}"));
                return Err(refusal);
            }
        }
    }
    Ok(question.granted())
}

/// Whose token the request carries, and until when it counts. Its headers are left as the rules want them: without what only we may say
/// of tokens, without the token unless it is to go on, with what its claims say.
///
/// # Errors
/// [`Refusal`] with 401.
pub async fn tokens(
    account: &Account,
    enforced: &Enforced,
    head: &mut request::Parts,
    ticket: &mut Ticket,
) -> Result<(Option<Identity>, Option<UnixTime>), Refusal> {
    let rules = &enforced.in_force.tokens;
    let shared = &account.shared;
    let judged = shared
        .tokens
        .judge(rules, &enforced.keys, head, &*shared.clock)
        .await;
    match judged {
        Ok(judged) => {
            judged.edits.apply(&mut head.headers);
            ticket.token(judged.identity.as_ref().and_then(|identity| identity.principal()));
            Ok((judged.identity.map(Identity), judged.ends))
        }
        Err(refused) => Err(refusal(&refused)),
    }
}

/// A refused token as a refusal.
#[must_use]
pub fn refusal(refused: &TokenRefused) -> Refusal {
    let reason = Reason::Token(match refused {
        TokenRefused::Invalid(Fault::Keys(_)) => Token::NoKeys,
        TokenRefused::Invalid(_) => Token::Invalid,
        TokenRefused::Ambiguous | TokenRefused::TooMany => Token::Ambiguous,
        TokenRefused::Faulty(_) => Token::Faulty,
    });
    let mut refusal = Refusal::new(reason, refused.to_string());
    if let TokenRefused::Faulty(name) = refused {
        refusal.policy = Some(name.to_string());
    }
    refusal.token = Some((refused.challenge(), refused.body().to_string()));
    refusal
}
