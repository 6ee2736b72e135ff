//! What a proxy would answer to a question: mutual TLS, path, CUSTOM, token, DENY, ALLOW, in its order.

use signet_certs::{SpiffeId, UnixTime};
use signet_policy::decision::{Denial, PolicyName};
use signet_policy::model::{Mode, Place};
use signet_policy::path::PathFault;
use signet_policy::tokens::TokenDenial;
use signet_policy::{Connection, Gate, InForce, Mesh, Normalization, Request, RequestPath};

use super::question::Question;

mod carried;
#[cfg(test)]
mod tests;
mod token;

pub use carried::carried;

/// Why a tunnel through a proxy is refused, as proxies have it.
const CONNECT: &str = "method_connect";

/// What is common to all questions.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Trust domains, root namespace, providers.
    pub mesh: &'a Mesh,
    /// Our own trust domain.
    pub own: &'a signet_certs::TrustDomain,
    /// What is done to paths.
    pub normalization: Normalization,
    /// The time, for tokens.
    pub now: UnixTime,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruled {
    /// The answer itself.
    pub outcome: Outcome,
    /// The identity that policies saw.
    pub peer: Option<SpiffeId>,
    /// What was found out about the token, for people.
    pub token: Option<String>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes.
    Allowed {
        /// The ALLOW rule; nothing where no ALLOW policy is in force.
        by: Option<Decider>,
        /// Providers that are asked first, and have to say yes.
        asks: Vec<String>,
    },
    /// It does not.
    Refused(Refusal),
}

/// Why something does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// At which step.
    pub step: Step,
    /// A stable word, as in metrics and access records.
    pub reason: &'static str,
    /// A sentence.
    pub sentence: String,
    /// The policy, and what it has to do with it.
    pub by: Option<Decider>,
}

/// A policy, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decider {
    /// The policy.
    pub policy: PolicyName,
    /// The rule, from 0.
    pub rule: Option<usize>,
    /// The field in the rule.
    pub field: Option<Place>,
}

/// The steps of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Mutual TLS.
    MutualTls,
    /// The method.
    Method,
    /// The path.
    Path,
    /// The token.
    Token,
    /// Who may.
    Policy,
}

impl Outcome {
    /// Whether it passes.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// What the caller sees.
    #[must_use]
    pub fn on_the_wire(&self, http: bool) -> &'static str {
        match self {
            Self::Allowed { .. } if http => "the upstream's answer",
            Self::Allowed { .. } => "the connection",
            Self::Refused(refusal) => match refusal.step {
                Step::MutualTls => "connection reset",
                Step::Method if refusal.reason == CONNECT => "405",
                Step::Method | Step::Path => "400",
                Step::Token => "401",
                Step::Policy if http => "403",
                Step::Policy => "connection reset",
            },
        }
    }
}

impl Judge<'_> {
    /// The answer to `question` of a workload for which `rules` are in force.
    #[must_use]
    pub fn rule(&self, rules: &InForce, question: &Question) -> Ruled {
        let ruling = rules.peers.ruling(question.port);
        let presented = question.caller.id(self.own);
        // A port without TLS of ours never learns who calls.
        let peer = presented.filter(|_| ruling.mode != Mode::Disable);
        let mut token = None;
        let outcome = if peer.is_none() && ruling.mode == Mode::Strict {
            Outcome::Refused(Refusal {
                step: Step::MutualTls,
                reason: "plaintext_strict",
                sentence: "the port takes mutual TLS only, and the caller has none".to_owned(),
                by: ruling.by.clone().map(Decider::of),
            })
        } else {
            self.decide(rules, question, (peer.as_ref(), &mut token))
        };
        Ruled { outcome, peer, token }
    }

    fn decide(
        &self,
        rules: &InForce,
        question: &Question,
        (peer, said): (Option<&SpiffeId>, &mut Option<String>),
    ) -> Outcome {
        let connection = connection(question, peer);
        let Some(http) = &question.http else {
            return outcome(rules, &connection, None);
        };
        if let Some(refusal) = Refusal::of_method(&http.method) {
            return Outcome::Refused(refusal);
        }
        let path = match RequestPath::new(&http.path, self.normalization) {
            Ok(path) => path,
            Err(fault) => return Outcome::Refused(Refusal::of_path(fault)),
        };
        let headers: Vec<(&str, &str)> = http.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        let mut request = Request {
            method: &http.method,
            authority: &http.host,
            path: &path,
            headers: &Slice(&headers),
            identity: None,
        };
        // CUSTOM comes before the token.
        if let Gate::Shut(denial) = rules.program.gate(&connection, Some(&request)) {
            return Outcome::Refused(Refusal::of(&denial));
        }
        match self.token(&rules.tokens, http, &question.token) {
            Ok((identity, words)) => {
                *said = words;
                request.identity = identity.as_ref();
                outcome(rules, &connection, Some(&request))
            }
            Err(refusal) => Outcome::Refused(*refusal),
        }
    }

    /// Shows `look` what policies see of a question that gets as far as to them.
    pub fn see<R>(
        &self,
        rules: &InForce,
        question: &Question,
        look: impl FnOnce(&Connection<'_>, Option<&Request<'_>>) -> R,
    ) -> Option<R> {
        let peer = self.rule(rules, question).peer;
        let connection = connection(question, peer.as_ref());
        let Some(http) = &question.http else {
            return Some(look(&connection, None));
        };
        let path = RequestPath::new(&http.path, self.normalization).ok()?;
        let headers: Vec<(&str, &str)> = http.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        let identity = self.token(&rules.tokens, http, &question.token).ok();
        let identity = identity.and_then(|(identity, _)| identity);
        let request = Request {
            method: &http.method,
            authority: &http.host,
            path: &path,
            headers: &Slice(&headers),
            identity: identity.as_ref(),
        };
        Some(look(&connection, Some(&request)))
    }
}

/// Headers behind a reference, as the engine takes them.
struct Slice<'a>(&'a [(&'a str, &'a str)]);

impl signet_policy::Headers for Slice<'_> {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        self.0.each(name, visit);
    }
}

fn connection<'a>(question: &'a Question, peer: Option<&'a SpiffeId>) -> Connection<'a> {
    Connection {
        peer,
        source: question.addresses.source,
        remote: question.addresses.remote,
        destination: question.addresses.destination,
        port: question.port,
        sni: question.sni.as_deref(),
    }
}

fn outcome(rules: &InForce, connection: &Connection<'_>, request: Option<&Request<'_>>) -> Outcome {
    let (cleared, asks) = match rules.program.gate(connection, request) {
        Gate::Open(cleared) => (cleared, Vec::new()),
        Gate::Ask(question) => (
            question.granted(),
            question.providers().map(str::to_owned).collect(),
        ),
        Gate::Shut(denial) => return Outcome::Refused(Refusal::of(&denial)),
    };
    match cleared.decide(connection, request) {
        Ok(permit) => Outcome::Allowed {
            by: permit.by().map(|by| Decider {
                policy: by.policy.clone(),
                rule: Some(by.rule),
                field: None,
            }),
            asks,
        },
        Err(denial) => Outcome::Refused(Refusal::of(&denial)),
    }
}

impl Decider {
    /// A policy as a whole.
    #[must_use]
    pub fn of(policy: PolicyName) -> Self {
        Self {
            policy,
            rule: None,
            field: None,
        }
    }

    /// The path in its object, as in `spec.rules[0].to[0].operation.paths`.
    #[must_use]
    pub fn path(&self) -> String {
        match (self.rule, self.field) {
            (Some(rule), Some(field)) => format!("spec.rules[{rule}].{field}"),
            (Some(rule), None) => format!("spec.rules[{rule}]"),
            (None, _) => "spec".to_owned(),
        }
    }
}

impl Refusal {
    fn of(denial: &Denial<'_>) -> Self {
        use signet_policy::decision::Nearest;
        let by = match *denial {
            Denial::Denied { by, field } => Some((by.policy, Some(by.rule), field)),
            Denial::Custom { by, .. } => Some((by.policy, Some(by.rule), None)),
            Denial::Faulty { policy } => Some((policy, None, None)),
            Denial::NotAllowed { nearest, .. } => match nearest {
                Nearest::Rule { by, field } => Some((by.policy, Some(by.rule), Some(field))),
                Nearest::NoRule { policy } => policy.map(|policy| (policy, None, None)),
                Nearest::Attribute(_) | Nearest::Far => None,
            },
        };
        Self {
            step: Step::Policy,
            reason: denial.as_str(),
            sentence: denial.to_string(),
            by: by.map(|(policy, rule, field)| Decider {
                policy: policy.clone(),
                rule,
                field,
            }),
        }
    }

    /// Methods that no proxy serves, whatever policies say.
    fn of_method(method: &str) -> Option<Self> {
        let (reason, sentence) = if method == "CONNECT" {
            (CONNECT, "CONNECT asks for a tunnel, which is not served")
        } else if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            ("method_malformed", "the method is not in capital letters")
        } else {
            return None;
        };
        Some(Self {
            step: Step::Method,
            reason,
            sentence: sentence.to_owned(),
            by: None,
        })
    }

    fn of_path(fault: PathFault) -> Self {
        Self {
            step: Step::Path,
            reason: fault.as_str(),
            sentence: fault.to_string(),
            by: None,
        }
    }

    fn of_token(denial: TokenDenial<'_>, why: Option<String>) -> Self {
        let by = match denial {
            TokenDenial::Faulty(name) => Some(Decider::of(name.clone())),
            TokenDenial::Invalid | TokenDenial::Ambiguous => None,
        };
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        Self {
            step: Step::Token,
            reason: denial.as_str(),
            sentence: format!("{denial}{why}"),
            by,
        }
    }
}
