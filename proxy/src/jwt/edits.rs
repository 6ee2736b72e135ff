//! What becomes of a request's headers: those that only we may set are taken from the client, those of the rule
//! are set, and the token goes on or not.

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use signet_policy::RequestIdentity;
use signet_policy::tokens::TokenRules;

use super::cache::Verified;
use super::judge::Verdict;
use super::places::{Candidate, Place};
use crate::http::headers::{aliases, is_fixed};

/// What to do, in this order: remove, cut cookies, set. Values can be claims, so there is no `Debug`.
#[derive(Clone, Default)]
pub struct Edits {
    remove: Vec<HeaderName>,
    cookies: Vec<String>,
    set: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.cookies.is_empty() && self.set.is_empty()
    }

    /// Does it.
    pub fn apply(self, headers: &mut HeaderMap) {
        for name in self.remove {
            aliases::take(headers, &name);
        }
        if !self.cookies.is_empty() {
            cut_cookies(headers, &self.cookies);
        }
        for (name, value) in self.set {
            headers.insert(name, value);
        }
    }

    /// A client's own versions of what rules say of tokens are removed, whether there is a token or not.
    pub(crate) fn without_outputs(rules: &TokenRules) -> Self {
        Self {
            remove: rules.reserved().filter_map(writable).collect(),
            ..Self::default()
        }
    }

    /// The application learns what the rule says of the token.
    pub(super) fn learn(&mut self, rules: &TokenRules, rule: usize, verified: &Verified) {
        let Some(outputs) = rules.rules().get(rule).map(|rule| &rule.outputs) else {
            return;
        };
        let mut set = |name: &str, value: Option<HeaderValue>| {
            if let Some(pair) = writable(name).zip(value) {
                self.set.push(pair);
            }
        };
        if let Some(name) = &outputs.payload {
            set(name, HeaderValue::from_str(&verified.payload).ok());
        }
        for (name, claim) in &outputs.claims {
            set(name, text(&verified.identity, claim));
        }
    }

    /// Tokens stay here, unless a rule that holds one good says that it goes on. Those in the query go on.
    pub(super) fn drop_tokens(
        &mut self,
        rules: &TokenRules,
        candidates: &[Candidate<'_>],
        verdicts: &[Verdict],
    ) {
        let forwards = |rule: usize| rules.rules().get(rule).is_some_and(|rule| rule.outputs.forward);
        let judged = || candidates.iter().zip(verdicts);
        let goes_on = |place: Place<'_>| {
            judged().any(|(candidate, verdict)| {
                matches!(verdict, Verdict::Good(..)) && candidate.place == place && forwards(candidate.rule)
            })
        };
        for (candidate, _) in judged() {
            if forwards(candidate.rule) || goes_on(candidate.place) {
                continue;
            }
            match candidate.place {
                Place::Header(name) => self.remove.extend(writable(name)),
                Place::Cookie(name) => self.cookies.push(name.to_owned()),
                Place::Param(_) => {}
            }
        }
    }
}

fn writable(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    (!is_fixed(name.as_str())).then_some(name)
}

/// A claim that is a text, a whole number or a truth; others have no form of a header.
fn text(identity: &RequestIdentity, names: &[String]) -> Option<HeaderValue> {
    let (first, rest) = names.split_first()?;
    let outer = identity.claims().get(first)?;
    let claim = rest.iter().try_fold(outer, |value, name| value.get(name))?;
    match claim {
        Value::String(text) => HeaderValue::from_bytes(text.as_bytes()).ok(),
        Value::Number(number) if !number.is_f64() => HeaderValue::from_str(&number.to_string()).ok(),
        Value::Bool(truth) => Some(HeaderValue::from_static(if *truth { "true" } else { "false" })),
        _ => None,
    }
}

/// Takes cookies of these names out of all `Cookie` headers.
fn cut_cookies(headers: &mut HeaderMap, names: &[String]) {
    let before: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for value in before {
        // Bytes, since a value may be anything.
        let stays = |pair: &&[u8]| {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            names.iter().all(|cut| cut.as_bytes() != name.trim_ascii())
        };
        let pairs = value.as_bytes().split(|byte| *byte == b';').filter(stays);
        let kept: Vec<&[u8]> = pairs.map(<[u8]>::trim_ascii).collect();
        let kept = kept.join(&b"; "[..]);
        if let Some(value) = HeaderValue::from_bytes(&kept).ok().filter(|_| !kept.is_empty()) {
            headers.append(COOKIE, value);
        }
    }
}
