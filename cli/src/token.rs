//! `signet token check`: what the CA will say to a token, and the exact fix.
//!
//! | module | owns |
//! |---|---|
//! | [`verdict`] | who judged it, how, and what to do; its page |
//! | [`review`] | the API server's word, judged as the CA would |

pub mod review;
pub mod verdict;

use signet_certs::UnixTime;
use signet_certs::account_token::{AccountClaims, AccountTokenError};

use crate::Shell;
use crate::admin::Admin;
use crate::args::TokenCheckArgs;
use crate::fault::{Answer, Fault};
use crate::inputs;
use verdict::{Finding, Judge, Verdict};

pub(crate) async fn run(args: &TokenCheckArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let token = inputs::token(&args.token_file, "service-account token")?;
    let now = shell.now();
    let claims = AccountClaims::read(&token);
    let verdict = match (&args.admin, &args.kubeconfig) {
        (Some(socket), _) => {
            let answer = Admin::at(socket).check_token(&token).await?;
            Verdict::new(&args.audience, claims.as_ref().ok(), now).said_by_ca(answer)
        }
        (None, Some(kubeconfig)) => {
            let verdict = Verdict::new(&args.audience, claims.as_ref().ok(), now);
            match at_first_sight(claims.as_ref(), &args.audience, now) {
                Some(finding) => verdict.refused(Judge::Nobody, finding),
                None => review::ask(&token, &args.audience, kubeconfig, verdict).await?,
            }
        }
        (None, None) => {
            let verdict = Verdict::new(&args.audience, claims.as_ref().ok(), now);
            match at_first_sight(claims.as_ref(), &args.audience, now) {
                Some(finding) => verdict.refused(Judge::Nobody, finding),
                None => verdict.unverified(),
            }
        }
    };
    shell.show(&verdict)?;
    match verdict.accepted {
        Some(true) => Ok(Answer::Yes),
        Some(false) => Ok(Answer::No),
        None => Err(Fault::unanswered(
            "nothing was verified: pass --admin SOCKET to ask the CA, or --kubeconfig FILE to ask the API server",
        )),
    }
}

/// What the CA refuses without asking anybody.
fn at_first_sight(
    claims: Result<&AccountClaims, &AccountTokenError>,
    audience: &str,
    now: UnixTime,
) -> Option<Finding> {
    match claims {
        Err(error) => Some(Finding::unreadable(error)),
        Ok(claims) => Finding::of_claims(claims, audience, now),
    }
}
