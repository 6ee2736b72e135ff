//! An explanation as it is shown.

use serde::Serialize;
use signet_policy::decision::{PolicyName, RuleRef};
use signet_policy::program::{Miss, Says, Vote};

use super::super::documents::Place;
use super::super::judge::{Decider, Outcome};
use super::super::question::{Caller, Question, Token};
use super::{Case, advice, means};

/// The answer to one question.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// Whether it passes; with `asks_first`, if these say yes.
    pub allowed: bool,
    /// What the caller sees.
    pub on_the_wire: &'static str,
    /// Which step decided.
    pub step: &'static str,
    /// A stable word: `allowed`, `no_allow_policy`, or the reason of the refusal.
    pub reason: &'static str,
    /// The same as the proxy's access record has it.
    pub access_reason: String,
    /// The same as a sentence.
    pub sentence: String,
    /// The rule that decided, or that came nearest.
    pub decided_by: Option<Deciding>,
    /// What was asked.
    pub question: Asked,
    /// What the port asks of its callers.
    pub mutual_tls: MutualTls,
    /// Providers of CUSTOM policies that are asked first.
    pub asks_first: Vec<String>,
    /// Whether the policies below were asked; if not, an earlier step decided, and they would say this.
    pub policies_asked: bool,
    /// What every policy that reaches the workload says, in the order in which they are asked.
    pub votes: Vec<Voted>,
    /// What dry runs and AUDIT would have said.
    pub shadow: Vec<String>,
    /// Policies that do not reach the workload.
    pub elsewhere: Vec<Elsewhere>,
    /// Fields that cannot be enforced on this connection.
    pub unenforceable: Vec<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// What to change.
    pub change: Vec<String>,
    /// A policy that would let it pass, if that is what is missing.
    pub policy: Option<String>,
}

/// A rule and where it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Deciding {
    /// The policy.
    pub policy: String,
    /// The field in it.
    pub field: String,
    /// Where that stands.
    #[serde(flatten)]
    pub place: Option<Place>,
}

/// What was asked. Values of headers and claims are left out.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The identity that policies saw.
    pub from: Option<String>,
    /// The workload.
    pub to: String,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Its port, if it matters.
    pub port: Option<u16>,
    /// Address of the caller.
    pub source_ip: std::net::IpAddr,
    /// The request; nothing for a connection without HTTP.
    pub http: Option<AskedHttp>,
}

/// The request.
#[derive(Clone, Debug, Serialize)]
pub struct AskedHttp {
    /// The method.
    pub method: String,
    /// The path as it was sent.
    pub path: String,
    /// The path as policies and the upstream see it.
    pub normalized_path: Option<String>,
    /// The host.
    pub host: String,
    /// Names of the other headers.
    pub headers: Vec<String>,
    /// What is known of its token.
    pub token: Option<String>,
}

/// What a port asks of its callers.
#[derive(Clone, Debug, Serialize)]
pub struct MutualTls {
    /// The mode.
    pub mode: &'static str,
    /// The object that says so; nothing for the default.
    pub by: Option<String>,
    /// Where that stands.
    pub place: Option<Place>,
    /// What it means for this caller.
    pub means: &'static str,
}

/// What one policy says.
#[derive(Clone, Debug, Serialize)]
pub struct Voted {
    /// The policy.
    pub policy: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// Its action.
    pub action: &'static str,
    /// It decides nothing.
    pub dry_run: bool,
    /// `matches`, `does_not_match` or `unreadable`.
    pub says: &'static str,
    /// The rule that matches, from 0.
    pub rule: Option<usize>,
    /// Why the others do not, or what it counts as.
    pub because: Vec<String>,
}

/// A policy that does not reach the workload.
#[derive(Clone, Debug, Serialize)]
pub struct Elsewhere {
    /// The policy.
    pub policy: String,
    /// Why not.
    pub because: String,
}

impl Explained {
    /// The whole answer.
    #[must_use]
    pub fn of(case: Case<'_>, notes: Vec<String>) -> Self {
        let Case {
            question,
            ruled,
            in_force,
            judge,
            ..
        } = case;
        let (step, reason, sentence, by) = verdict(&ruled.outcome);
        let trace = judge.see(in_force, question, |connection, request| {
            in_force.program.explain(connection, request)
        });
        let asks_first = match &ruled.outcome {
            Outcome::Allowed { asks, .. } => asks.clone(),
            Outcome::Refused(_) => Vec::new(),
        };
        let votes = trace.map(|trace| trace.votes).unwrap_or_default();
        let advice = advice::of(case, &votes);
        Self {
            allowed: ruled.outcome.passes(),
            on_the_wire: ruled.outcome.on_the_wire(question.http.is_some()),
            step,
            reason,
            access_reason: access_reason(reason),
            sentence,
            decided_by: by.map(|by| deciding(case, by)),
            question: asked(case),
            mutual_tls: mutual_tls(case),
            asks_first,
            policies_asked: step == "policy",
            votes: votes.iter().map(|vote| voted(case, vote)).collect(),
            shadow: shadow(case),
            elsewhere: elsewhere(case),
            unenforceable: unenforceable(case),
            notes: notes.into_iter().chain(advice.notes).collect(),
            change: advice.change,
            policy: advice.policy,
        }
    }
}

fn verdict(outcome: &Outcome) -> (&'static str, &'static str, String, Option<&Decider>) {
    match outcome {
        Outcome::Allowed { by: Some(by), .. } => {
            let rule = by.rule.unwrap_or_default();
            let sentence = format!("{} rules[{rule}] allows it", by.policy);
            ("policy", "allowed", sentence, Some(by))
        }
        Outcome::Allowed { by: None, .. } => {
            let sentence = "no ALLOW policy reaches the workload, so whatever is not denied passes";
            ("policy", "no_allow_policy", sentence.to_owned(), None)
        }
        Outcome::Refused(refusal) => {
            use super::super::judge::Step;
            let step = match refusal.step {
                Step::MutualTls => "mutual_tls",
                Step::Method => "method",
                Step::Path => "path",
                Step::Token => "token",
                Step::Policy => "policy",
            };
            (
                step,
                refusal.reason,
                refusal.sentence.clone(),
                refusal.by.as_ref(),
            )
        }
    }
}

/// The word of the proxy's access record.
fn access_reason(reason: &str) -> String {
    match reason {
        "allowed" | "no_allow_policy" => "ok".to_owned(),
        "plaintext_strict" => "tls_plaintext_refused".to_owned(),
        "faulty_policy" => "policy_faulty".to_owned(),
        "method_connect" => "request_unsupported".to_owned(),
        head if head.starts_with("path_") || head.starts_with("method_") => "request_bad".to_owned(),
        token if token.starts_with("token_") => token.to_owned(),
        policy => format!("policy_{policy}"),
    }
}

/// Where a policy stands, or a field of it.
pub(super) fn place(case: Case<'_>, policy: &PolicyName, field: &str) -> Option<Place> {
    match policy {
        PolicyName::Object(key) => case.documents.place(key, field),
        PolicyName::Document { origin, line } => Some(Place {
            file: origin.to_string(),
            line: Some(*line),
        }),
    }
}

fn deciding(case: Case<'_>, by: &Decider) -> Deciding {
    let field = by.path();
    Deciding {
        policy: by.policy.to_string(),
        place: place(case, &by.policy, &field),
        field,
    }
}

fn asked(case: Case<'_>) -> Asked {
    let question = case.question;
    let normalized = |path: &str| {
        let path = signet_policy::RequestPath::new(path, case.judge.normalization).ok()?;
        Some(path.as_str().to_owned())
    };
    Asked {
        from: case.ruled.peer.as_ref().map(ToString::to_string),
        to: format!("{}/{}", case.workload.namespace, case.name),
        labels: case.workload.labels.clone(),
        port: (question.port > 0).then_some(question.port),
        source_ip: question.addresses.source,
        http: question.http.as_ref().map(|http| AskedHttp {
            method: http.method.clone(),
            path: http.path.clone(),
            normalized_path: normalized(&http.path),
            host: http.host.clone(),
            headers: http.headers.iter().map(|(name, _)| name.clone()).collect(),
            token: token(question, case.ruled.token.as_deref()),
        }),
    }
}

fn token(question: &Question, found: Option<&str>) -> Option<String> {
    match (&question.token, found) {
        (Token::None, _) => None,
        (_, Some(words)) => Some(words.to_owned()),
        (_, None) => Some("not taken".to_owned()),
    }
}

fn mutual_tls(case: Case<'_>) -> MutualTls {
    let ruling = case.in_force.peers.ruling(case.question.port);
    let mutual = case.question.caller != Caller::Plaintext;
    MutualTls {
        mode: ruling.mode.as_str(),
        by: ruling.by.as_ref().map(ToString::to_string),
        place: ruling.by.as_ref().and_then(|by| place(case, by, "spec")),
        means: means(ruling.mode, mutual),
    }
}

fn voted(case: Case<'_>, vote: &Vote) -> Voted {
    let (says, rule, because) = match &vote.says {
        Says::Matches(rule) => ("matches", Some(*rule), Vec::new()),
        Says::Unreadable(effect) => (
            "unreadable",
            None,
            vec![format!("cannot be read, counts as {}", effect.as_str())],
        ),
        Says::DoesNotMatch(misses, more) => ("does_not_match", None, because(misses, *more)),
    };
    let field = rule.map_or("".to_owned(), |rule| format!("spec.rules[{rule}]"));
    Voted {
        policy: vote.policy.to_string(),
        place: place(case, &vote.policy, &field),
        action: vote.action,
        dry_run: vote.dry_run,
        says,
        rule,
        because,
    }
}

fn because(misses: &[Miss], more: usize) -> Vec<String> {
    let mut lines: Vec<String> = misses.iter().map(ToString::to_string).collect();
    match (misses.len(), more) {
        (0, 0) => lines.push("it has no rules, so it matches nothing".to_owned()),
        (_, 0) => {}
        (_, more) => lines.push(format!("and {more} more rules")),
    }
    lines
}

fn shadow(case: Case<'_>) -> Vec<String> {
    let program = &case.in_force.program;
    let seen = case
        .judge
        .see(case.in_force, case.question, |connection, request| {
            lines(program.shadow(connection, request))
        });
    seen.unwrap_or_default()
}

fn lines(shadow: signet_policy::program::Shadow<'_>) -> Vec<String> {
    let say = |by: Option<RuleRef<'_>>, verb: &str| by.map(|by| format!("{by} {verb}"));
    let not_allowed = "the ALLOW policies in dry run would refuse it".to_owned();
    [
        say(shadow.audit, "audits it"),
        say(shadow.custom, "would ask its provider"),
        say(shadow.deny, "would deny it"),
        say(shadow.allow, "would allow it"),
        shadow.not_allowed.then_some(not_allowed),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn elsewhere(case: Case<'_>) -> Vec<Elsewhere> {
    let away = case.set.out_of_scope(case.workload, case.judge.mesh);
    away.map(|(object, why)| Elsewhere {
        policy: object.key().to_string(),
        because: why.to_string(),
    })
    .collect()
}

fn unenforceable(case: Case<'_>) -> Vec<String> {
    let tcp = case.question.http.is_none();
    let lost = case.in_force.program.unenforceable().iter();
    lost.filter(|lost| lost.everywhere || tcp)
        .map(|lost| {
            let effect = if lost.never_matches {
                "the whole rule matches nothing"
            } else {
                "the field counts as matched"
            };
            let rule = lost.rule;
            format!("{} rules[{rule}].{}: {effect}", lost.policy, lost.field)
        })
        .collect()
}
