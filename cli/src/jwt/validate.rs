//! `signet jwt validate`: what a receiver of this token would say to it.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use signet_certs::jwt::{JwtError, JwtSvid};
use signet_certs::{BundleSet, SpiffeId, UnixTime};

use super::inspect::{audiences, text};
use crate::Shell;
use crate::args::JwtValidateArgs;
use crate::fault::{Answer, Fault};
use crate::inputs::{self, NamedBy};
use crate::print::{Cell, Page, Tone, View};
use crate::times::Moment;
use crate::workload_api::{Judged, WorkloadApi};

/// Who judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// This program, by a bundle in a file.
    Bundle,
    /// An agent, by the bundles it holds.
    Agent,
}

/// Whether a token is accepted. Never the token.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether it is.
    pub accepted: bool,
    /// A stable word for why not.
    pub reason: Option<&'static str>,
    /// A sentence for why not.
    pub explanation: Option<String>,
    /// The identity it was accepted as.
    pub spiffe_id: Option<String>,
    /// The audience it had to be for.
    pub audience: String,
    /// All audiences of an accepted token.
    pub audiences: Vec<String>,
    /// The key that signed an accepted token, if it says which.
    pub kid: Option<String>,
    /// When an accepted token ends.
    pub expires_at: Option<Moment>,
    /// The time it was judged by.
    pub at: Moment,
    /// Who judged.
    pub judged_by: Judge,
    /// The trust domain of the bundle; nothing from an agent, which has several.
    pub trust_domain: Option<String>,
    /// Who says so.
    pub trust_domain_from: Option<NamedBy>,
}

impl Verdict {
    fn refused(args: &JwtValidateArgs, judged_by: Judge, at: Moment) -> Self {
        Self {
            accepted: false,
            reason: None,
            explanation: None,
            spiffe_id: None,
            audience: args.audience.clone(),
            audiences: Vec::new(),
            kid: None,
            expires_at: None,
            at,
            judged_by,
            trust_domain: None,
            trust_domain_from: None,
        }
    }

    fn because(self, reason: &'static str, explanation: impl Into<String>) -> Self {
        Self {
            reason: Some(reason),
            explanation: Some(explanation.into()),
            ..self
        }
    }

    /// Accepted, unless another identity was expected.
    fn accepted(self, id: &SpiffeId, expected: Option<&SpiffeId>) -> Self {
        match expected {
            Some(expected) if expected != id => {
                let error = JwtError::OtherId {
                    expected: expected.clone(),
                    found: id.clone(),
                };
                self.because(error.as_str(), error.to_string())
            }
            _ => Self {
                accepted: true,
                spiffe_id: Some(id.to_string()),
                ..self
            },
        }
    }
}

impl View for Verdict {
    fn page(&self, page: &mut Page, now: UnixTime) {
        if self.accepted {
            page.fact("verdict", Cell::new("accepted", Tone::Good));
        } else {
            page.fact("verdict", Cell::new("refused", Tone::Bad));
        }
        for (name, value) in [("reason", self.reason), ("because", self.explanation.as_deref())] {
            if let Some(value) = value {
                page.fact(name, value);
            }
        }
        if let Some(id) = &self.spiffe_id {
            page.fact("SPIFFE ID", &**id);
        }
        page.fact("audience", &*self.audience);
        if let Some(kid) = &self.kid {
            page.fact("key", &**kid);
        }
        if let Some(end) = self.expires_at {
            page.fact("ends", end.words(now));
        }
        match (&self.trust_domain, self.trust_domain_from) {
            (Some(domain), Some(NamedBy::Operator)) => page.fact("trust domain", format!("{domain} (given)")),
            (Some(domain), _) => page.fact(
                "trust domain",
                format!("{domain} (the token's own; the bundle names none)"),
            ),
            (None, _) => page.fact("judged by", "the agent, with the bundles it holds"),
        }
        page.fact("judged at", self.at.words(now));
    }
}

pub(crate) async fn run(args: &JwtValidateArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let token = inputs::token(&args.token, "JWT-SVID")?;
    let now = args.at.unwrap_or(Moment(shell.now()));
    let verdict = match (&args.bundle, &args.socket) {
        (Some(bundle), _) => by_bundle(&token, bundle, args, now, shell)?,
        (None, Some(socket)) => by_agent(&token, socket, args, now).await?,
        (None, None) => return Err(Fault::unanswered("name --bundle or --socket")),
    };
    shell.show(&verdict)?;
    Ok(if verdict.accepted { Answer::Yes } else { Answer::No })
}

fn by_bundle(
    token: &str,
    file: &Path,
    args: &JwtValidateArgs,
    at: Moment,
    shell: &Shell,
) -> Result<Verdict, Fault> {
    let verdict = Verdict::refused(args, Judge::Bundle, at);
    let own = JwtSvid::read_unverified(token).ok().and_then(|says| says.id());
    let fallback = own.map(|id| id.trust_domain());
    // What is no token is refused by every bundle, whosever it is.
    let fallback = fallback.or_else(|| "unknown".parse().ok());
    let named = inputs::bundle(file, args.trust_domain.as_ref(), fallback)?;
    if named.bundle.jwt_keys().is_empty() {
        shell.say(format_args!(
            "note: {} holds no jwt-svid key, so no token passes; `signet bundle export` writes a bundle with \
             the keys of its trust domain",
            file.display()
        ));
    }
    let verdict = Verdict {
        trust_domain: Some(named.bundle.trust_domain().to_string()),
        trust_domain_from: Some(named.named_by),
        ..verdict
    };
    let bundles = BundleSet::of(Arc::new(named.bundle));
    Ok(match JwtSvid::validate(token, &args.audience, &bundles, at.0) {
        Err(error) => verdict.because(error.as_str(), error.to_string()),
        Ok(found) => Verdict {
            audiences: found.audience,
            kid: found.kid,
            expires_at: Some(Moment(found.expires_at)),
            ..verdict
        }
        .accepted(&found.id, args.id.as_ref()),
    })
}

async fn by_agent(token: &str, socket: &Path, args: &JwtValidateArgs, at: Moment) -> Result<Verdict, Fault> {
    let verdict = Verdict::refused(args, Judge::Agent, at);
    let found = match WorkloadApi::at(socket)
        .validate_jwt(token, &args.audience)
        .await?
    {
        Judged::Refused(why) => return Ok(verdict.because("refused", why)),
        Judged::Good(found) => found,
    };
    let id: SpiffeId = found.spiffe_id.parse().map_err(|e| {
        Fault::Unanswered(format!(
            "{}: the agent's answer names {:?}, which is no SPIFFE ID: it {e}",
            socket.display(),
            found.spiffe_id
        ))
    })?;
    // The agent verified it, so the token's own words are true.
    let says = JwtSvid::read_unverified(token).map_err(Fault::unanswered)?;
    Ok(Verdict {
        audiences: audiences(&says),
        kid: text(&says.header, "kid"),
        expires_at: says.expires_at().map(Moment),
        ..verdict
    }
    .accepted(&id, args.id.as_ref()))
}
