//! Questions made up of the literals of policies: for every value of every field one that has it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use signet_certs::{SpiffeId, TrustDomain};
use signet_policy::PolicySet;
use signet_policy::matcher::Pattern;
use signet_policy::model::term::PathValue;
use signet_policy::model::{Attribute, Object, Rule, Term, Values};
use signet_policy::principal::RequestPrincipal;

use super::question::{Addresses, Caller, Http, Question, Token};

/// Stands where a pattern leaves it open.
const FILLER: &str = "x";
/// The port of a question that no rule gives one to.
pub(super) const PORT: u16 = 8080;
/// In the first segment of a principal this means our own trust domain.
const POINTER: &str = "cluster.local/";

/// What questions are made with.
#[derive(Clone, Debug)]
pub struct Maker {
    own: TrustDomain,
    /// Issuers of which tokens are taken, each with an audience that is.
    issuers: BTreeSet<(String, Option<String>)>,
}

/// A question, being made.
#[derive(Clone, Default)]
struct Draft {
    principal: Option<String>,
    domain: Option<String>,
    namespace: Option<String>,
    account: Option<String>,
    addresses: Addresses,
    sni: Option<String>,
    port: Option<u16>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    headers: Vec<(String, String)>,
    claims: Map<String, Value>,
    http: bool,
}

impl Maker {
    /// Takes issuers from `sets`.
    #[must_use]
    pub fn new(own: &TrustDomain, sets: &[&PolicySet]) -> Self {
        let mut issuers = BTreeSet::new();
        for object in sets.iter().flat_map(|set| set.objects()) {
            if let Object::Request(request) = &**object {
                for rule in &request.rules {
                    let issuer = rule
                        .issuer
                        .clone()
                        .unwrap_or_else(|| "https://issuer.example".to_owned());
                    issuers.insert((issuer, rule.audiences.first().cloned()));
                }
            }
        }
        let own = own.clone();
        Self { own, issuers }
    }

    /// A good token of every issuer.
    #[must_use]
    pub fn tokens(&self) -> Vec<Map<String, Value>> {
        let token = |(issuer, audience): &(String, Option<String>)| {
            let mut claims = Map::new();
            claims.insert("iss".to_owned(), issuer.clone().into());
            claims.insert("sub".to_owned(), FILLER.into());
            if let Some(audience) = audience {
                claims.insert("aud".to_owned(), audience.clone().into());
            }
            claims
        };
        self.issuers.iter().map(token).collect()
    }

    /// Somebody of our trust domain whom no rule names.
    #[must_use]
    pub fn stranger(&self) -> Caller {
        self.caller("ns/somewhere/sa/somebody")
    }

    fn caller(&self, path: &str) -> Caller {
        let id = format!("spiffe://{}/{path}", self.own).parse();
        id.map_or(Caller::Plaintext, Caller::Id)
    }

    /// Questions that a rule is about: for each of its sources and operations one that it matches, as far as
    /// one can be made, and one for each further value, those that are excluded included.
    #[must_use]
    pub fn of_rule(&self, rule: &Rule) -> Vec<Question> {
        let none = Vec::new();
        let or_none = |part: &'_ [Vec<Term>]| -> Vec<usize> { (0..part.len().max(1)).collect() };
        let mut questions = Vec::new();
        for source in or_none(&rule.from) {
            for operation in or_none(&rule.to) {
                let from = rule.from.get(source).unwrap_or(&none);
                let to = rule.to.get(operation).unwrap_or(&none);
                let terms: Vec<&Term> = from.iter().chain(to).chain(&rule.when).collect();
                self.of_terms(&terms, &mut questions);
            }
        }
        questions
    }

    fn of_terms(&self, terms: &[&Term], questions: &mut Vec<Question>) {
        let mut base = Draft {
            http: terms.iter().any(|term| term.attribute.is_http()),
            ..Draft::default()
        };
        for term in terms.iter().filter(|term| !term.negated) {
            self.set(&mut base, term, 0);
        }
        questions.push(self.finish(base.clone()));
        for term in terms {
            let first = usize::from(!term.negated);
            for value in first..count(&term.values) {
                let mut draft = base.clone();
                self.set(&mut draft, term, value);
                questions.push(self.finish(draft));
            }
        }
        if !base.http {
            base.http = true;
            questions.push(self.finish(base));
        }
    }

    /// Gives the draft what the term's value of this number matches.
    fn set(&self, draft: &mut Draft, term: &Term, at: usize) {
        let text = text(&term.values, at);
        match (&term.attribute, text) {
            (Attribute::Principal, Some(_)) => {
                if let Values::Patterns(values) = &term.values {
                    draft.principal = values.get(at).and_then(|value| self.principal(value));
                }
            }
            (Attribute::Namespace, text) => draft.namespace = text,
            (Attribute::ServiceAccount, text) => draft.account = text,
            (Attribute::TrustDomain, text) => draft.domain = text,
            (Attribute::Sni, text) => draft.sni = text,
            (Attribute::Host, text) => draft.host = text,
            // Of methods capital letters alone are served.
            (Attribute::Method, text) => draft.method = text.map(|text| text.replace(FILLER, "X")),
            (Attribute::Path, text) => draft.path = text,
            // One value of each: repeated headers are compared joined, which is nobody's literal.
            (Attribute::Header(name), Some(text)) => {
                draft.headers.retain(|(own, _)| **own != **name);
                draft.headers.push((name.to_string(), text));
            }
            (Attribute::Audiences, Some(text)) => self.claim(draft, &["aud"], text.into()),
            (Attribute::Presenter, Some(text)) => self.claim(draft, &["azp"], text.into()),
            (Attribute::Claim(names), Some(text)) => {
                let names: Vec<&str> = names.iter().map(|name| &**name).collect();
                self.claim(draft, &names, text.into());
            }
            (Attribute::RequestPrincipal, _) => self.request_principal(draft, &term.values, at),
            _ => number(draft, term, at),
        }
    }

    /// An identity that a value of `principals` matches.
    fn principal(&self, value: &Pattern) -> Option<String> {
        let own = self.own.as_str();
        let tails = ["", FILLER, "/x", "sa/x", "/sa/x", "ns/x/sa/x", "/ns/x/sa/x"];
        let heads = ["", own, "/ns/x", "/ns/x/sa/x", "/ns/x/sa/", "/ns/"];
        let candidates: Vec<String> = match value {
            Pattern::Exact(text) => vec![text.to_string()],
            Pattern::Prefix(text) => tails.iter().map(|tail| format!("{text}{tail}")).collect(),
            Pattern::Suffix(text) => heads
                .iter()
                .map(|head| match *head {
                    "" => text.to_string(),
                    head if head == own => format!("{own}{text}"),
                    head => format!("{own}{head}{text}"),
                })
                .collect(),
            Pattern::Present => vec![format!("{own}/ns/x/sa/x")],
        };
        candidates.into_iter().find_map(|text| {
            let text = match text.strip_prefix(POINTER) {
                Some(rest) => format!("{own}/{rest}"),
                None => text,
            };
            format!("spiffe://{text}").parse::<SpiffeId>().ok().map(|_| text)
        })
    }

    fn request_principal(&self, draft: &mut Draft, values: &Values, at: usize) {
        let Values::RequestPrincipals(values) = values else {
            return;
        };
        let Some(value) = values.get(at) else {
            return;
        };
        if let Some((issuer, subject)) = self.issuer_and_subject(value) {
            self.claim(draft, &["iss"], issuer.into());
            self.claim(draft, &["sub"], subject.into());
        }
    }

    fn issuer_and_subject(&self, value: &RequestPrincipal) -> Option<(String, String)> {
        let filled = value.to_string().replace('*', FILLER);
        let split = filled.rsplit_once('/');
        let written = split.map(|(issuer, subject)| (issuer.to_owned(), subject.to_owned()));
        let bare = value.to_string().replace('*', "");
        let known = self.issuers.iter().flat_map(|(issuer, _)| {
            [FILLER.to_owned(), bare.clone(), format!("{FILLER}{bare}")]
                .into_iter()
                .chain(filled.rsplit('/').next().map(str::to_owned))
                .map(|subject| (issuer.clone(), subject))
        });
        let guesses = [
            (filled.clone(), FILLER.to_owned()),
            (FILLER.to_owned(), filled.clone()),
        ];
        let mut candidates = known.chain(written).chain(guesses);
        candidates.find(|(issuer, subject)| value.matches(issuer, subject))
    }

    /// Sets a claim, in a token that is otherwise one of a known issuer.
    fn claim(&self, draft: &mut Draft, names: &[&str], value: Value) {
        if draft.claims.is_empty() {
            draft.claims = self.tokens().into_iter().next().unwrap_or_else(|| {
                let unknown = json!({"iss": "https://issuer.example", "sub": FILLER});
                unknown.as_object().cloned().unwrap_or_default()
            });
        }
        let [first, rest @ ..] = names else {
            return;
        };
        let nested = rest
            .iter()
            .rev()
            .fold(value, |inner, name| json!({ *name: inner }));
        match (draft.claims.get_mut(*first), nested) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (_, nested) => {
                draft.claims.insert((*first).to_owned(), nested);
            }
        }
        draft.http = true;
    }

    fn finish(&self, draft: Draft) -> Question {
        let http = draft.http;
        let caller = draft.caller(self);
        Question {
            caller,
            port: draft.port.unwrap_or(PORT),
            addresses: draft.addresses,
            sni: draft.sni,
            http: http.then(|| Http {
                method: draft.method.unwrap_or_else(|| "GET".to_owned()),
                path: draft.path.unwrap_or_else(|| "/".to_owned()),
                host: draft.host.unwrap_or_else(|| "workload.example".to_owned()),
                headers: draft.headers,
            }),
            token: if draft.claims.is_empty() {
                Token::None
            } else {
                Token::Claims(draft.claims)
            },
        }
    }
}

impl Draft {
    fn caller(&self, maker: &Maker) -> Caller {
        if let Some(principal) = &self.principal {
            let id = format!("spiffe://{principal}").parse();
            return id.map_or_else(|_| maker.stranger(), Caller::Id);
        }
        if self.domain.is_none() && self.namespace.is_none() && self.account.is_none() {
            return maker.stranger();
        }
        let domain = self.domain.as_deref().unwrap_or(maker.own.as_str());
        let (mut namespace, mut account) = (self.namespace.as_deref().unwrap_or(FILLER), FILLER);
        if let Some((named, name)) = self
            .account
            .as_deref()
            .and_then(|account| account.split_once('/'))
        {
            (namespace, account) = (named, name);
        }
        let id = format!("spiffe://{domain}/ns/{namespace}/sa/{account}").parse();
        id.map_or_else(|_| maker.stranger(), Caller::Id)
    }
}

fn number(draft: &mut Draft, term: &Term, at: usize) {
    match (&term.attribute, &term.values) {
        (Attribute::DestinationPort, Values::Ports(ports)) => draft.port = ports.get(at).copied(),
        (attribute, Values::Blocks(blocks)) => {
            let text = blocks.get(at).map(ToString::to_string).unwrap_or_default();
            let address = text
                .split('/')
                .next()
                .and_then(|text| text.parse::<IpAddr>().ok());
            let Some(address) = address else {
                return;
            };
            match attribute {
                Attribute::SourceIp => draft.addresses.source = address,
                Attribute::RemoteIp => draft.addresses.remote = address,
                _ => draft.addresses.destination = address,
            }
        }
        _ => {}
    }
}

fn count(values: &Values) -> usize {
    match values {
        Values::Patterns(values) => values.len(),
        Values::Globs(values) => values.len(),
        Values::Accounts(values) => values.len(),
        Values::RequestPrincipals(values) => values.len(),
        Values::Paths(values) => values.len(),
        Values::Blocks(values) => values.len(),
        Values::Ports(values) => values.len(),
    }
}

/// A text that the value of this number matches.
fn text(values: &Values, at: usize) -> Option<String> {
    match values {
        Values::Patterns(values) => values.get(at).map(witness),
        Values::Globs(values) => values.get(at).map(|glob| glob.as_str().replace('*', FILLER)),
        Values::Accounts(values) => values.get(at).map(ToString::to_string),
        Values::Paths(values) => values.get(at).map(|value| match value {
            PathValue::Pattern(pattern) => match pattern {
                Pattern::Suffix(text) if text.starts_with('/') => text.to_string(),
                Pattern::Suffix(text) => format!("/{text}"),
                Pattern::Present => "/x".to_owned(),
                other => witness(other),
            },
            PathValue::Template(template) => {
                template.to_string().replace("{**}", "x/y").replace("{*}", FILLER)
            }
        }),
        Values::RequestPrincipals(_) | Values::Blocks(_) | Values::Ports(_) => None,
    }
}

fn witness(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(text) => text.to_string(),
        Pattern::Prefix(text) => format!("{text}{FILLER}"),
        Pattern::Suffix(text) => format!("{FILLER}{text}"),
        Pattern::Present => FILLER.to_owned(),
    }
}

#[cfg(test)]
mod tests;
