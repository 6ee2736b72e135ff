//! What to change so that the answer is another one, and what is easily misread in it.

use std::fmt::Write as _;

use signet_policy::model::{Action, Mode, Object};
use signet_policy::program::{Reason, Says, Vote};

use super::super::judge::{Outcome, Refusal, Step};
use super::super::question::{Caller, Token};
use super::Case;

/// Words for people.
#[derive(Debug, Default)]
pub struct Advice {
    /// What is easily misread.
    pub notes: Vec<String>,
    /// What to change.
    pub change: Vec<String>,
    /// A policy that would let it pass.
    pub policy: Option<String>,
}

/// Advice on an answer.
#[must_use]
pub fn of(case: Case<'_>, votes: &[Vote]) -> Advice {
    let mut advice = Advice::default();
    advice.notes(case);
    match &case.ruled.outcome {
        Outcome::Allowed { asks, .. } => advice.allowed(case, asks),
        Outcome::Refused(refusal) => match refusal.step {
            Step::MutualTls => advice.strict(),
            Step::Method => advice.change.push(
                "write methods in capital letters, and ask for no tunnel; this comes before any policy".to_owned(),
            ),
            Step::Path => advice.change.push(
                "send a path that begins with a slash and means the same to every server; proxies refuse what \
                 two servers could read in two ways"
                    .to_owned(),
            ),
            Step::Token => advice.token(case),
            Step::Policy => advice.policy(case, refusal, votes),
        },
    }
    advice
}

impl Advice {
    fn notes(&mut self, case: Case<'_>) {
        let faulty = case.set.outstanding().count();
        if faulty > 0 {
            self.notes.push(format!(
                "{faulty} documents cannot be read and count as the strictest they could be; a proxy that has \
                 their last good versions enforces these: signet policy check names the faults"
            ));
        }
        let mode = case.in_force.peers.mode(case.question.port);
        let named = case.question.caller != Caller::Plaintext;
        if named && mode != Mode::Strict && case.ruled.outcome.passes() {
            self.notes.push(format!(
                "the port is {}: a caller without mutual TLS reaches policies too, with no identity; ask with \
                 --from none",
                mode.as_str()
            ));
        }
    }

    fn allowed(&mut self, case: Case<'_>, asks: &[String]) {
        if let [first, ..] = asks {
            self.notes.push(format!(
                "provider {first} has the first word; it was taken to say yes, and in doubt a proxy takes it to \
                 say no"
            ));
        }
        if let Outcome::Allowed { by: None, .. } = case.ruled.outcome {
            self.change.push(format!(
                "to let nothing pass that no rule allows, give namespace {} an AuthorizationPolicy with an empty \
                 spec (spec: {{}})",
                case.workload.namespace
            ));
        }
    }

    fn strict(&mut self) {
        self.change.push(
            "give the caller an identity and mutual TLS: a proxy beside it, with its service account"
                .to_owned(),
        );
        self.change.push(
            "or set PERMISSIVE for this port (portLevelMtls) while callers move; until they have, policies see \
                 nobody there, and every rule that excludes identities lets them by"
                .to_owned(),
        );
    }

    fn token(&mut self, case: Case<'_>) {
        if case.in_force.tokens.is_empty() {
            self.change.push(
                "no RequestAuthentication reaches the workload, so no token counts; add one".to_owned(),
            );
            return;
        }
        if let Some(name) = case.in_force.tokens.refused_by() {
            self.change
                .push(format!("correct {name}: signet policy check names its faults"));
            return;
        }
        let rules = case.in_force.tokens.rules();
        for rule in rules {
            let issuer = rule.issuer.as_deref().unwrap_or("any issuer");
            let audiences = match rule.audiences.as_slice() {
                [] => "for any audience".to_owned(),
                some => format!("for one of the audiences {}", some.join(", ")),
            };
            self.change
                .push(format!("tokens of {issuer} are taken, {audiences}"));
        }
        if let Token::None = case.question.token {
            return;
        }
        self.change.push(
            "a request without any token goes on without identity; only an AuthorizationPolicy demands one"
                .to_owned(),
        );
    }

    fn policy(&mut self, case: Case<'_>, refusal: &Refusal, votes: &[Vote]) {
        let by = refusal.by.as_ref();
        match refusal.reason {
            "denied" => {
                let field = by.and_then(|by| by.field).map(|field| field.field);
                match (field, &case.question.token) {
                    (Some("notRequestPrincipals"), Token::None) => self.token(case),
                    (Some("notPrincipals" | "notNamespaces" | "notServiceAccounts"), _) => self.change.push(
                        "call as one of those whom the rule leaves out; plaintext counts as nobody".to_owned(),
                    ),
                    _ => {}
                }
                if let Some(by) = by {
                    self.change.push(format!("narrow {} {} so that it does not match this", by.policy, by.path()));
                }
                self.change.push("an ALLOW policy cannot help: DENY comes first, whatever allows".to_owned());
            }
            "faulty_policy" => {
                if let Some(by) = by {
                    self.change.push(format!("correct {}: signet policy check names its faults", by.policy));
                }
            }
            "provider_unknown" => self.change.push(
                "configure the provider at the proxies, or name one that is; here, describe it with --provider \
                 NAME=grpc"
                    .to_owned(),
            ),
            "provider_http_only" => self.change.push(
                "limit the CUSTOM policy to ports that carry HTTP, or use a provider that speaks gRPC".to_owned(),
            ),
            _ => self.not_allowed(case, votes),
        }
    }

    fn not_allowed(&mut self, case: Case<'_>, votes: &[Vote]) {
        self.traps(case, votes);
        if case.question.http.is_none() && votes.iter().any(lacks_http) {
            self.change.push(
                "the rules speak of HTTP and this is a TCP connection: name the port http-… (or set appProtocol) \
                 if it carries HTTP, or write rules of ports and callers only"
                    .to_owned(),
            );
        }
        let Some(peer) = &case.ruled.peer else {
            self.change.push(match case.in_force.peers.mode(case.question.port) {
                Mode::Disable => "the port is DISABLE, so policies never see who calls: set STRICT or PERMISSIVE",
                _ => "the caller has no identity; give it one (a proxy beside it), then allow that identity",
            }
            .to_owned());
            return;
        };
        let principal = peer.as_str().trim_start_matches("spiffe://");
        self.change.push(format!(
            "add a rule for {principal} to an ALLOW policy of the workload, or this policy; ALLOW policies add up"
        ));
        self.policy = Some(suggestion(case, principal));
    }

    /// Why a rule that looks right does not match.
    fn traps(&mut self, case: Case<'_>, votes: &[Vote]) {
        let misses = votes.iter().flat_map(|vote| match &vote.says {
            Says::DoesNotMatch(misses, _) => misses.as_slice(),
            _ => &[],
        });
        let mut add = |line: String| {
            if !self.change.contains(&line) {
                self.change.push(line);
            }
        };
        for miss in misses {
            let Reason::Differs {
                attribute,
                several,
                presented,
                wanted,
                ..
            } = &miss.reason
            else {
                continue;
            };
            let field = miss.field;
            if let Some(several) = several.filter(|several| !several.each) {
                add(format!(
                    "{field}: the {attribute} stands {} times, and what lets pass is compared with all of it, joined by \
                     commas; send it once",
                    several.lines
                ));
            }
            if attribute == "principal" && wanted.contains("spiffe://") {
                add(format!("{field}: principals are written without spiffe://"));
            }
            if let (Some(presented), "host") = (presented, attribute.as_str())
                && presented
                    .split(':')
                    .next()
                    .is_some_and(|host| wanted.split(", ").any(|one| one == host))
            {
                add(format!(
                    "{field}: hosts are compared with their port; add {wanted}:*"
                ));
            }
            if attribute == "method" && wanted.chars().any(|c| c.is_ascii_lowercase()) {
                add(format!("{field}: methods are compared as sent, in upper case"));
            }
            if attribute.starts_with("request principal") || attribute.starts_with("claim") {
                add(match (&case.question.token, case.in_force.tokens.is_empty()) {
                    (_, true) => format!(
                        "{field}: no RequestAuthentication reaches the workload, so no request has a {attribute}"
                    ),
                    (Token::None, false) => format!("{field}: send a token; this request has none"),
                    _ => format!("{field}: the token is good and says something else"),
                });
            }
        }
    }
}

fn lacks_http(vote: &Vote) -> bool {
    let lost = |misses: &[signet_policy::program::Miss]| {
        misses.iter().any(|miss| miss.reason == Reason::Unenforceable)
    };
    matches!(&vote.says, Says::DoesNotMatch(misses, _) if vote.action == "ALLOW" && lost(misses))
}

/// A policy that lets exactly this pass, in the form in which it can be applied.
fn suggestion(case: Case<'_>, principal: &str) -> String {
    let question = case.question;
    let name: String = [
        case.name,
        "allow",
        principal.rsplit('/').next().unwrap_or("caller"),
    ]
    .join("-")
    .chars()
    .map(|c| {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            c
        } else {
            '-'
        }
    })
    .collect();
    let name = unused(case, name);
    let mut text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  namespace: {}\n\
         spec:\n",
        case.workload.namespace
    );
    if let Some(labels) = selector(case) {
        text += "  selector:\n    matchLabels:\n";
        for (label, value) in labels {
            let _ = writeln!(text, "      {label}: {value:?}");
        }
    }
    let _ = write!(
        text,
        "  action: ALLOW\n  rules:\n  - from:\n    - source:\n        principals: [{principal:?}]\n"
    );
    let mut operation = Vec::new();
    if question.port > 0 {
        operation.push(format!("ports: [\"{}\"]", question.port));
    }
    if let Some(http) = &question.http {
        let path = signet_policy::RequestPath::new(&http.path, case.judge.normalization);
        let path = path.map(|path| path.as_str().to_owned()).unwrap_or_default();
        operation.push(format!("methods: [{:?}]", http.method));
        operation.push(format!("paths: [{path:?}]"));
    }
    if !operation.is_empty() {
        let _ = write!(text, "    to:\n    - operation:\n");
        operation.iter().for_each(|line| {
            let _ = writeln!(text, "        {line}");
        });
    }
    text
}

/// The name, with a number where an object has it, which the policy would otherwise replace.
fn unused(case: Case<'_>, name: String) -> String {
    let taken = |name: &str| {
        case.set.objects().any(|object| {
            let meta = object.meta();
            meta.namespace == case.workload.namespace && meta.name == name
        })
    };
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    std::iter::once(name.clone())
        .chain(numbered)
        .find(|name| !taken(name))
        .unwrap_or(name)
}

/// The labels of the ALLOW policy that is nearest in kind, so that a new one reaches no more than it; else all
/// labels of the workload.
fn selector(case: Case<'_>) -> Option<std::collections::BTreeMap<String, String>> {
    let reaches = |labels: &std::collections::BTreeMap<String, String>| {
        super::super::inventory::carries(&case.workload.labels, labels)
    };
    let selected = case.set.objects().find_map(|object| match &**object {
        Object::Authorization(policy)
            if policy.action == Action::Allow && policy.meta.namespace == case.workload.namespace =>
        {
            match &policy.attachment {
                signet_policy::model::Attachment::Labels(labels) if reaches(labels) => Some(labels.clone()),
                _ => None,
            }
        }
        _ => None,
    });
    selected.or_else(|| (!case.workload.labels.is_empty()).then(|| case.workload.labels.clone()))
}
