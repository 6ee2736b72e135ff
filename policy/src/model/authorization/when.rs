//! `when`: the keys and what they take.

use super::Reading;
use super::terms::values;
use crate::cursor::{Cursor, Faults};
use crate::fault::{BadValue, Conflict, Excerpt};
use crate::model::term::{Attribute, Part, Place, Term};

/// Deepest claim that is looked for.
const MAX_CLAIM_DEPTH: usize = 16;

/// The terms of one condition: its values, its forbidden values, or both.
pub(super) fn terms(
    at: &Cursor<'_>,
    entry: usize,
    reading: Reading<'_>,
    faults: &mut Faults,
) -> Option<Vec<Term>> {
    let condition = at.object(&["key", "values", "notValues"], faults)?;
    let key = condition.require("key", faults)?;
    let attribute = key.parse(faults, attribute)?;
    if reading.custom && attribute.is_identity() {
        key.fault(faults, Conflict::CustomIdentity);
        return None;
    }
    let mut terms = Vec::new();
    for (field, negated) in [("values", false), ("notValues", true)] {
        if let Some(list) = condition.get(field) {
            terms.push(Term {
                attribute: attribute.clone(),
                negated,
                values: values(&attribute, &list, reading, faults)?,
                place: Place {
                    part: Part::When,
                    entry,
                    field,
                },
            });
        }
    }
    if terms.is_empty() {
        at.fault(faults, Conflict::NoValues);
        return None;
    }
    Some(terms)
}

fn attribute(key: &str) -> Result<Attribute, BadValue> {
    Ok(match key {
        "source.ip" => Attribute::SourceIp,
        "remote.ip" => Attribute::RemoteIp,
        "source.namespace" => Attribute::Namespace,
        "source.serviceAccount" => Attribute::ServiceAccount,
        "source.trustDomain" => Attribute::TrustDomain,
        "source.principal" => Attribute::Principal,
        "request.auth.principal" => Attribute::RequestPrincipal,
        "request.auth.audiences" => Attribute::Audiences,
        "request.auth.presenter" => Attribute::Presenter,
        "destination.ip" => Attribute::DestinationIp,
        "destination.port" => Attribute::DestinationPort,
        "connection.sni" => Attribute::Sni,
        "destination.namespace" | "destination.name" | "destination.user" => {
            return Err(BadValue::OldKey(Excerpt::of(key)));
        }
        _ => return bracketed(key),
    })
}

fn bracketed(key: &str) -> Result<Attribute, BadValue> {
    let bad = || BadValue::KeyForm(Excerpt::of(key));
    if key.starts_with("destination.labels") {
        return Err(BadValue::OldKey(Excerpt::of(key)));
    }
    if let Some(rest) = key.strip_prefix("request.headers") {
        let [name] = brackets(rest).ok_or_else(bad)?[..] else {
            return Err(bad());
        };
        return header(name);
    }
    if let Some(rest) = key.strip_prefix("request.auth.claims") {
        let names = brackets(rest).ok_or_else(bad)?;
        return Ok(Attribute::Claim(names.into_iter().map(Into::into).collect()));
    }
    if let Some(rest) = key.strip_prefix("experimental.envoy.filters.") {
        return match rest.split_once('[') {
            Some((filter, name)) if !filter.is_empty() && name.len() > 1 && name.ends_with(']') => {
                Ok(Attribute::FilterMetadata(rest.into()))
            }
            _ => Err(bad()),
        };
    }
    Err(BadValue::Key(Excerpt::of(key)))
}

/// The names in `[a][b]`, each not empty and without brackets; nothing for any other text.
fn brackets(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<&str> = inner.split("][").collect();
    let sound = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    (names.len() <= MAX_CLAIM_DEPTH && names.iter().all(sound)).then_some(names)
}

/// The authority and the method may be named as pseudo headers; the host header is the authority.
fn header(name: &str) -> Result<Attribute, BadValue> {
    match name.to_ascii_lowercase().as_str() {
        ":authority" | "host" => Ok(Attribute::Host),
        ":method" => Ok(Attribute::Method),
        pseudo if pseudo.starts_with(':') => Err(BadValue::PseudoHeader(Excerpt::of(name))),
        lower if is_header_name(lower) => Ok(Attribute::Header(lower.into())),
        _ => Err(BadValue::Header(Excerpt::of(name))),
    }
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_header_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= 256 && name.bytes().all(token)
}
