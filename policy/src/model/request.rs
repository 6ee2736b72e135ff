//! `RequestAuthentication`: parsed whole or not at all.

use std::time::Duration;

use crate::cursor::{Cursor, Faults, Object};
use crate::fault::{BadValue, Conflict, Excerpt, Shape};
use crate::model::authorization::is_header_name;
use crate::model::meta::Meta;
use crate::model::selector::Attachment;

/// Most rules of one object.
const MAX_RULES: usize = 4096;
/// Longest address of a key set.
const MAX_URI: usize = 2048;
/// Most claims that are split on spaces.
const MAX_SPLIT: usize = 64;
/// How long a key set may take, unless the rule says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) const SPEC: &[&str] = &["selector", "targetRef", "targetRefs", "jwtRules"];
pub(crate) const RULE: &[&str] = &[
    "issuer",
    "audiences",
    "jwksUri",
    "jwks",
    "fromHeaders",
    "fromParams",
    "fromCookies",
    "outputPayloadToHeader",
    "forwardOriginalToken",
    "outputClaimToHeaders",
    "timeout",
    "spaceDelimitedClaims",
];

/// Which tokens are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// What Kubernetes knows of it.
    pub meta: Meta,
    /// What it applies to.
    pub attachment: Attachment,
    /// One per issuer, or more.
    pub rules: Vec<JwtRule>,
}

/// Tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    /// What `iss` must be; nothing only where keys have an address.
    pub issuer: Option<String>,
    /// One of them must be in `aud`; with none of them `aud` is not looked at.
    pub audiences: Vec<String>,
    /// Where the keys are.
    pub keys: KeySource,
    /// Where the token is looked for.
    pub locations: Locations,
    /// What the upstream learns of the token.
    pub outputs: Outputs,
    /// How long fetching keys may take.
    pub timeout: Duration,
    /// Claims that are lists in one text, besides `scope` and `permission`.
    pub space_delimited: Vec<String>,
}

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In the object: a JSON Web Key Set.
    Inline(String),
    /// Under this address.
    Uri(String),
    /// Under the address that the issuer publishes.
    Discovery,
}

/// Where the token is looked for, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations {
    /// Headers, each with the text before the token.
    pub headers: Vec<(String, String)>,
    /// Query parameters.
    pub params: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
}

impl Default for Locations {
    fn default() -> Self {
        Self {
            headers: vec![("authorization".to_owned(), "Bearer ".to_owned())],
            params: vec!["access_token".to_owned()],
            cookies: Vec::new(),
        }
    }
}

/// What the upstream learns of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// The header for the verified payload, base64url.
    pub payload: Option<String>,
    /// Headers for single claims, each with the claim's names from the outside in.
    pub claims: Vec<(String, Vec<String>)>,
    /// Whether the token itself goes on.
    pub forward: bool,
}

impl Outputs {
    /// The headers that only whoever verified the token may set.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let claims = self.claims.iter().map(|(header, _)| header);
        self.payload.iter().chain(claims).map(String::as_str)
    }
}

/// Reads a `spec`, which may be absent.
pub(crate) fn read(
    meta: Meta,
    spec: Option<&Cursor<'_>>,
    faults: &mut Faults,
) -> Option<RequestAuthentication> {
    let Some(spec) = spec else {
        return Some(RequestAuthentication {
            meta,
            attachment: Attachment::Everything,
            rules: Vec::new(),
        });
    };
    let spec = spec.object(SPEC, faults)?;
    let attachment = Attachment::read(&spec, Some(&meta.namespace), faults);
    let rules = match spec.get("jwtRules") {
        Some(list) => all(&list.list(MAX_RULES, faults)?, faults, rule),
        None => Some(Vec::new()),
    };
    Some(RequestAuthentication {
        meta,
        attachment: attachment?,
        rules: rules?,
    })
}

fn all<T>(
    items: &[Cursor<'_>],
    faults: &mut Faults,
    read: impl Fn(&Cursor<'_>, &mut Faults) -> Option<T>,
) -> Option<Vec<T>> {
    let values: Vec<T> = items.iter().filter_map(|item| read(item, faults)).collect();
    (values.len() == items.len()).then_some(values)
}

fn rule(at: &Cursor<'_>, faults: &mut Faults) -> Option<JwtRule> {
    let rule = at.object(RULE, faults)?;
    let issuer = optional(&rule, "issuer", faults, |at, faults| {
        at.text(faults).map(str::to_owned)
    });
    let keys = keys(&rule, faults);
    if let (Some(None), Some(KeySource::Inline(_) | KeySource::Discovery)) = (&issuer, &keys) {
        at.fault(faults, Conflict::NoIssuer);
    }
    let audiences = texts(&rule, "audiences", faults);
    let locations = locations(&rule, faults);
    let outputs = outputs(&rule, faults);
    let timeout = optional(&rule, "timeout", faults, |at, faults| at.parse(faults, duration));
    let split = texts(&rule, "spaceDelimitedClaims", faults);
    if let Some(found) = split.as_ref().map(Vec::len).filter(|found| *found > MAX_SPLIT) {
        let (unit, most) = ("entries", MAX_SPLIT);
        rule.get("spaceDelimitedClaims")?
            .fault(faults, Shape::TooMany { found, unit, most });
    }
    Some(JwtRule {
        issuer: issuer?,
        audiences: audiences?,
        keys: keys?,
        locations: locations?,
        outputs: outputs?,
        timeout: timeout?.unwrap_or(DEFAULT_TIMEOUT),
        space_delimited: split?,
    })
}

/// A field that may be absent. Nothing at the outer level if it is faulty.
#[expect(
    clippy::option_option,
    reason = "outside: could it be read; inside: is it there"
)]
fn optional<'n, T>(
    object: &Object<'n>,
    name: &str,
    faults: &mut Faults,
    read: impl FnOnce(&Cursor<'n>, &mut Faults) -> Option<T>,
) -> Option<Option<T>> {
    match object.get(name) {
        Some(at) => read(&at, faults).map(Some),
        None => Some(None),
    }
}

fn texts(object: &Object<'_>, name: &str, faults: &mut Faults) -> Option<Vec<String>> {
    let texts = optional(object, name, faults, |at, faults| {
        at.parse_all(faults, |text| Ok::<_, BadValue>(text.to_owned()))
    })?;
    Some(texts.unwrap_or_default())
}

fn keys(rule: &Object<'_>, faults: &mut Faults) -> Option<KeySource> {
    match (rule.get("jwks"), rule.get("jwksUri")) {
        (Some(_), Some(both)) => {
            both.fault(faults, Conflict::TwoKeySources);
            None
        }
        (Some(inline), None) => Some(KeySource::Inline(inline.parse(faults, jwks)?)),
        (None, Some(at)) => Some(KeySource::Uri(at.parse(faults, url)?)),
        (None, None) => Some(KeySource::Discovery),
    }
}

/// A key set with public keys. What the keys are good for is found out where they are used.
fn jwks(text: &str) -> Result<String, BadValue> {
    let set: serde_json::Value = serde_json::from_str(text).map_err(|_| BadValue::Jwks("it is no JSON"))?;
    let keys = set
        .get("keys")
        .and_then(|keys| keys.as_array())
        .ok_or(BadValue::Jwks("it has no list under \"keys\""))?;
    if keys
        .iter()
        .any(|key| key.get("kty").is_none_or(|kty| !kty.is_string()))
    {
        return Err(BadValue::Jwks("a key has no type"));
    }
    Ok(text.to_owned())
}

fn url(text: &str) -> Result<String, BadValue> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let sound = host.is_some_and(|host| !host.is_empty() && !host.starts_with(':') && !host.contains('@'));
    if sound && text.len() <= MAX_URI && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(BadValue::Url(Excerpt::of(text)))
    }
}

fn locations(rule: &Object<'_>, faults: &mut Faults) -> Option<Locations> {
    let headers = optional(rule, "fromHeaders", faults, |at, faults| {
        all(&at.filled_list(MAX_SPLIT, faults)?, faults, |item, faults| {
            let header = item.object(&["name", "prefix"], faults)?;
            let name = header.require("name", faults)?.parse(faults, header_name);
            let prefix = optional(&header, "prefix", faults, |at, faults| match at.node().text() {
                Some("") => Some(""),
                _ => at.text(faults),
            })?;
            Some((name?, prefix.unwrap_or_default().to_owned()))
        })
    });
    let params = texts(rule, "fromParams", faults);
    let cookies = texts(rule, "fromCookies", faults);
    let (headers, params, cookies) = (headers?.unwrap_or_default(), params?, cookies?);
    if headers.is_empty() && params.is_empty() && cookies.is_empty() {
        return Some(Locations::default());
    }
    Some(Locations {
        headers,
        params,
        cookies,
    })
}

fn outputs(rule: &Object<'_>, faults: &mut Faults) -> Option<Outputs> {
    let payload = optional(rule, "outputPayloadToHeader", faults, |at, faults| {
        at.parse(faults, header_name)
    });
    let forward = optional(rule, "forwardOriginalToken", faults, |at, faults| {
        at.truth(faults)
    });
    let claims = optional(rule, "outputClaimToHeaders", faults, |at, faults| {
        all(&at.filled_list(MAX_SPLIT, faults)?, faults, |item, faults| {
            let output = item.object(&["header", "claim"], faults)?;
            let header = output.require("header", faults)?.parse(faults, header_name);
            let claim = output.require("claim", faults)?.text(faults)?;
            Some((header?, claim.split('.').map(str::to_owned).collect()))
        })
    });
    Some(Outputs {
        payload: payload?,
        claims: claims?.unwrap_or_default(),
        forward: forward?.unwrap_or(false),
    })
}

fn header_name(text: &str) -> Result<String, BadValue> {
    let lower = text.to_ascii_lowercase();
    if is_header_name(&lower) {
        Ok(lower)
    } else {
        Err(BadValue::Header(Excerpt::of(text)))
    }
}

/// `1h`, `1m30s`, `1.5s`, `250ms`: numbers with units, at least a millisecond in all.
fn duration(text: &str) -> Result<Duration, BadValue> {
    let bad = || BadValue::Duration(Excerpt::of(text));
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let (unit, tail) = ["ms", "h", "m", "s"]
            .iter()
            .find_map(|unit| Some((*unit, tail.strip_prefix(unit)?)))
            .ok_or_else(bad)?;
        let seconds = match unit {
            "ms" => 0.001,
            "h" => 3600.0,
            "m" => 60.0,
            _ => 1.0,
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    if total < Duration::from_millis(1) || total > Duration::from_secs(24 * 3600) {
        return Err(bad());
    }
    Ok(total)
}
