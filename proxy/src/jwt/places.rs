//! Where a request carries tokens: headers, query parameters, cookies.

use std::borrow::Cow;

use http::header::COOKIE;
use http::request::Parts;
use signet_policy::model::request::Locations;
use signet_policy::tokens::TokenRules;

/// What `Authorization` begins with, in any case (RFC 9110 §11.1).
const BEARER: &str = "Bearer ";
/// Most query parameters, and most cookies, that are looked at.
const MAX_PAIRS: usize = 512;

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

/// Everything that stands where a rule looks.
pub(super) fn find<'r>(rules: &'r TokenRules, request: &'r Parts) -> Vec<Candidate<'r>> {
    let mut found = Vec::new();
    for (rule, one) in rules.rules().iter().enumerate() {
        let mut add = |place, token| found.push(Candidate { rule, place, token });
        in_headers(&one.locations, request, &mut add);
        in_query(&one.locations, request, &mut add);
        in_cookies(&one.locations, request, &mut add);
    }
    // A RequestAuthentication that cannot be read refuses tokens where they usually are, too.
    if rules.refused_by().is_some() {
        let mut add = |place, token| {
            let rule = usize::MAX;
            found.push(Candidate { rule, place, token });
        };
        in_headers(&DEFAULT, request, &mut add);
        in_query(&DEFAULT, request, &mut add);
    }
    found
}

static DEFAULT: std::sync::LazyLock<Locations> = std::sync::LazyLock::new(Locations::default);

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
    for pair in query.split('&').take(MAX_PAIRS) {
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
        let text = std::str::from_utf8(header.as_bytes()).unwrap_or_default();
        for (name, value) in cookies(text).take(MAX_PAIRS) {
            if let Some(cookie) = locations.cookies.iter().find(|cookie| *cookie == name) {
                add(Place::Cookie(cookie), Cow::Borrowed(value));
            }
        }
    }
}

/// The cookies of one header (RFC 6265 §4.2.1), values without their quotes.
pub(super) fn cookies(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some((name.trim(), inner.unwrap_or(value)))
    })
}
