//! Where a request carries tokens: headers, query parameters, cookies. All of them are looked through: how many there
//! can be is bounded with the head.

use std::borrow::Cow;

use http::header::COOKIE;
use http::request::Parts;
use signet_policy::model::request::Locations;
use signet_policy::tokens::TokenRules;

use super::MAX_TOKENS;

/// What `Authorization` begins with, in any case (RFC 9110 §11.1).
const BEARER: &str = "Bearer ";

/// A token where a rule looks for one. What is there may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate<'r> {
    /// The number of the rule.
    pub(super) rule: usize,
    pub(super) place: Place<'r>,
    pub(super) token: Cow<'r, str>,
}

/// A place, by its name in the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'r> {
    Header(&'r str),
    Param(&'r str),
    Cookie(&'r str),
}

/// Every token that stands where a rule looks, once for a place; of one place no more than tell that there are too
/// many.
pub(super) fn find<'r>(rules: &'r TokenRules, request: &'r Parts) -> Vec<Candidate<'r>> {
    let mut found = Vec::new();
    for (rule, one) in rules.rules().iter().enumerate() {
        look(rule, &one.locations, request, &mut found);
    }
    // A RequestAuthentication that cannot be read refuses tokens where they usually are, too, and where it looked.
    if let Some(places) = rules.refused_at() {
        look(usize::MAX, places, request, &mut found);
    }
    found
}

fn look<'r>(rule: usize, locations: &'r Locations, request: &'r Parts, found: &mut Vec<Candidate<'r>>) {
    let first = found.len();
    let mut add = |place, token| {
        let of_rule = found.get(first..).unwrap_or_default();
        let here = || of_rule.iter().filter(|known| known.place == place);
        if here().count() <= MAX_TOKENS && here().all(|known| known.token != token) {
            found.push(Candidate { rule, place, token });
        }
    };
    in_headers(locations, request, &mut add);
    in_query(locations, request, &mut add);
    in_cookies(locations, request, &mut add);
}

fn in_headers<'r>(
    locations: &'r Locations,
    request: &'r Parts,
    add: &mut dyn FnMut(Place<'r>, Cow<'r, str>),
) {
    for (name, prefix) in &locations.headers {
        for value in request.headers.get_all(name.as_str()) {
            // What is not ASCII is no token, and is judged as one that is not good.
            let value = String::from_utf8_lossy(value.as_bytes());
            if let Some(token) = without_prefix(value, name, prefix) {
                add(Place::Header(name), token);
            }
        }
    }
}

/// What follows `prefix`; nothing for a value that begins otherwise, which is no token but something else.
fn without_prefix<'v>(value: Cow<'v, str>, name: &str, prefix: &str) -> Option<Cow<'v, str>> {
    let beginning = value.get(..prefix.len())?;
    let any_case = name == "authorization" && prefix == BEARER;
    if beginning != prefix && !(any_case && beginning.eq_ignore_ascii_case(prefix)) {
        return None;
    }
    Some(match value {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(prefix.len()..)?.trim_matches(' ')),
        Cow::Owned(text) => Cow::Owned(text.get(prefix.len()..)?.trim_matches(' ').to_owned()),
    })
}

fn in_query<'r>(locations: &'r Locations, request: &'r Parts, add: &mut dyn FnMut(Place<'r>, Cow<'r, str>)) {
    let query = request.uri.query().unwrap_or_default();
    if query.is_empty() || locations.params.is_empty() {
        return;
    }
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decoded(key);
        if let Some(param) = locations.params.iter().find(|param| **param == key) {
            add(Place::Param(param), decoded(value));
        }
    }
}

/// Percent-encoding undone (URL Standard, `application/x-www-form-urlencoded`).
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        let encoded = digit(0)
            .zip(digit(1))
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match (first, encoded) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = tail;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn in_cookies<'r>(
    locations: &'r Locations,
    request: &'r Parts,
    add: &mut dyn FnMut(Place<'r>, Cow<'r, str>),
) {
    if locations.cookies.is_empty() {
        return;
    }
    for header in request.headers.get_all(COOKIE) {
        for (name, value) in cookies(header.as_bytes()) {
            if let Some(cookie) = locations.cookies.iter().find(|cookie| cookie.as_bytes() == name) {
                // What is no text is no token, and is judged as one that is not good.
                add(Place::Cookie(cookie), String::from_utf8_lossy(value));
            }
        }
    }
}

/// The cookies of one header (RFC 6265 §4.2.1), values without their quotes. Bytes, since a value may be anything.
fn cookies(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|byte| *byte == b';').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair.get(..at)?, pair.get(at + 1..)?.trim_ascii());
        let inner = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        Some((name.trim_ascii(), inner.unwrap_or(value)))
    })
}
