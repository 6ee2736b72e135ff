//! The evaluator that the engine is compared with: it reads the objects as written, value by value, with no
//! index, no compiled form and none of the engine's code.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::support::{Ask, Http};

const DOMAINS: [&str; 2] = ["td", "old"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Naive {
    Allowed,
    Asks(BTreeSet<String>),
    Denied,
}

/// A field of a rule: what it compares, whether it is negated, and with what.
struct Field<'v> {
    attribute: String,
    negated: bool,
    values: Vec<&'v str>,
}

/// Judges for `shop/cart`, whose labels are `app: cart`.
pub(crate) fn judge(objects: &[Value], ask: &Ask) -> Naive {
    let concern: Vec<&Value> = objects.iter().filter(|object| in_scope(object)).collect();
    let of = |action: &'static str| {
        let objects = concern.iter().filter(move |object| action_of(object) == action);
        objects.filter(|object| !is_dry_run(object))
    };
    let mut asked = BTreeSet::new();
    for custom in of("CUSTOM").filter(|object| policy_matches(object, ask)) {
        let provider = custom["spec"]["provider"]["name"].as_str().unwrap();
        match provider {
            "grpc" | "grpc2" => {}
            "http" if ask.http.is_some() => {}
            _ => return Naive::Denied,
        }
        asked.insert(provider.to_owned());
    }
    if !asked.is_empty() {
        return Naive::Asks(asked);
    }
    if of("DENY").any(|object| policy_matches(object, ask)) {
        return Naive::Denied;
    }
    if of("ALLOW").count() == 0 || of("ALLOW").any(|object| policy_matches(object, ask)) {
        return Naive::Allowed;
    }
    Naive::Denied
}

pub(crate) fn rule_matches(object: &Value, rule: usize, ask: &Ask) -> bool {
    matches_rule(object, &object["spec"]["rules"][rule], ask)
}

fn in_scope(object: &Value) -> bool {
    let namespace = object["metadata"]["namespace"].as_str().unwrap();
    let labels = &object["spec"]["selector"]["matchLabels"];
    let selected = labels.as_object().is_none_or(|labels| {
        labels
            .iter()
            .all(|(name, value)| name == "app" && value == "cart")
    });
    (namespace == "shop" || namespace == "root") && selected
}

fn action_of(object: &Value) -> &str {
    object["spec"]["action"].as_str().unwrap_or("ALLOW")
}

fn is_dry_run(object: &Value) -> bool {
    object["metadata"]["annotations"]["istio.io/dry-run"] == "true"
}

fn policy_matches(object: &Value, ask: &Ask) -> bool {
    let rules = object["spec"]["rules"].as_array();
    rules.is_some_and(|rules| rules.iter().any(|rule| matches_rule(object, rule, ask)))
}

fn matches_rule(object: &Value, rule: &Value, ask: &Ask) -> bool {
    let allow = action_of(object) == "ALLOW";
    let namespace = object["metadata"]["namespace"].as_str().unwrap();
    let alternatives = |part: &str, inner: &str| -> Vec<Vec<Field<'_>>> {
        match rule[part].as_array() {
            None => vec![Vec::new()],
            Some(entries) => entries.iter().map(|entry| fields(&entry[inner])).collect(),
        }
    };
    let (from, to) = (alternatives("from", "source"), alternatives("to", "operation"));
    let when: Vec<Field<'_>> = rule["when"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(condition)
        .collect();
    let all = from.iter().chain(&to).flatten().chain(&when);
    if allow && all.into_iter().any(|field| !is_there(field, ask)) {
        return false;
    }
    from.iter().any(|source| {
        let explicit = source
            .iter()
            .chain(&when)
            .any(|field| field.attribute == "source.trustDomain" && !field.negated);
        let holds = |field: &Field<'_>| {
            !is_there(field, ask) || {
                let foreign = !domain(ask).is_some_and(|domain| DOMAINS.contains(&domain));
                let by_name =
                    field.attribute == "source.namespace" || field.attribute == "source.serviceAccount";
                let blind = by_name && foreign && !explicit && !(allow && field.negated);
                let any = field
                    .values
                    .iter()
                    .any(|value| value_matches((field, allow), value, namespace, ask));
                (any && !blind) != field.negated
            }
        };
        source.iter().all(holds)
            && to.iter().any(|operation| operation.iter().all(holds))
            && when.iter().all(holds)
    })
}

fn texts(values: &Value) -> Vec<&str> {
    values
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_str().unwrap())
        .collect()
}

fn fields(object: &Value) -> Vec<Field<'_>> {
    let object = object.as_object().unwrap();
    object
        .iter()
        .map(|(name, values)| {
            let negated = name.starts_with("not");
            let bare = name.trim_start_matches("not").to_lowercase();
            let attribute = match bare.as_str() {
                "principals" => "source.principal",
                "requestprincipals" => "request.auth.principal",
                "namespaces" => "source.namespace",
                "ipblocks" => "source.ip",
                "remoteipblocks" => "remote.ip",
                "serviceaccounts" => "source.serviceAccount",
                "trustdomains" => "source.trustDomain",
                "hosts" => "host",
                "ports" => "destination.port",
                "methods" => "method",
                "paths" => "path",
                other => panic!("{other}"),
            };
            Field {
                attribute: attribute.to_owned(),
                negated,
                values: texts(values),
            }
        })
        .collect()
}

fn condition(condition: &Value) -> Vec<Field<'_>> {
    let mut found = Vec::new();
    for (name, negated) in [("values", false), ("notValues", true)] {
        if condition[name].is_array() {
            found.push(Field {
                attribute: condition["key"].as_str().unwrap().to_owned(),
                negated,
                values: texts(&condition[name]),
            });
        }
    }
    found
}

/// Whether the attribute can be compared at all.
fn is_there(field: &Field<'_>, ask: &Ask) -> bool {
    let http =
        field.attribute.starts_with("request.") || ["host", "method", "path"].contains(&&*field.attribute);
    !field.attribute.starts_with("experimental.") && (!http || ask.http.is_some())
}

fn domain(ask: &Ask) -> Option<&str> {
    ask.peer.as_ref()?.strip_prefix("spiffe://")?.split('/').next()
}

fn value_matches((field, allow): (&Field<'_>, bool), value: &str, namespace: &str, ask: &Ask) -> bool {
    let principal = ask.peer.as_ref().map(|id| id.trim_start_matches("spiffe://"));
    let segments: Vec<&str> = principal.into_iter().flat_map(|id| id.split('/')).collect();
    let http = ask.http.as_ref();
    let own_namespace = match segments[..] {
        [_, "ns", namespace, _, ..] => Some(namespace),
        _ => None,
    };
    match field.attribute.as_str() {
        "source.principal" => {
            principal.is_some_and(|id| principals(value).iter().any(|value| string_rule(value, id)))
        }
        "source.namespace" => own_namespace.is_some_and(|name| glob(value, name)),
        "source.serviceAccount" => {
            let (ns, name) = value.split_once('/').unwrap_or((namespace, value));
            matches!(segments[..], [_, "ns", a, "sa", b, ..] if a == ns && b == name)
        }
        "source.trustDomain" => {
            let expanded = if DOMAINS.contains(&value) {
                DOMAINS.to_vec()
            } else {
                vec![value]
            };
            domain(ask).is_some_and(|domain| expanded.iter().any(|value| string_rule(value, domain)))
        }
        "source.ip" => in_block(value, &ask.source),
        "remote.ip" => in_block(value, ask.remote.as_ref().unwrap_or(&ask.source)),
        "destination.ip" => in_block(value, &ask.destination),
        "destination.port" => value.parse() == Ok(ask.port),
        "connection.sni" => ask.sni.as_ref().is_some_and(|sni| string_rule(value, sni)),
        "host" => string_rule(&value.to_lowercase(), &http.unwrap().host.to_lowercase()),
        "method" => string_rule(value, &http.unwrap().method),
        "path" => path_matches(value, &http.unwrap().path),
        other => {
            // A match lets pass: then only the whole header counts, never one line of it.
            let whole = allow != field.negated;
            request_matches((other, whole), value, http.unwrap())
        }
    }
}

fn request_matches((attribute, whole): (&str, bool), value: &str, http: &Http) -> bool {
    if let Some(name) = attribute.strip_prefix("request.headers[") {
        let name = name.trim_end_matches(']');
        let values: Vec<&str> = http
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        let alone = !whole && values.iter().any(|one| string_rule(value, one));
        return !values.is_empty() && (value == "*" || alone || string_rule(value, &values.join(",")));
    }
    let Some(claims) = &http.claims else {
        return false;
    };
    if attribute == "request.auth.principal" {
        let (Some(issuer), Some(subject)) = (claims["iss"].as_str(), claims["sub"].as_str()) else {
            return false;
        };
        return request_principal(value, issuer, subject);
    }
    let names: Vec<&str> = match attribute {
        "request.auth.audiences" => vec!["aud"],
        "request.auth.presenter" => vec!["azp"],
        _ => attribute
            .trim_start_matches("request.auth.claims[")
            .trim_end_matches(']')
            .split("][")
            .collect(),
    };
    let claim = names.iter().fold(claims, |claim, name| &claim[*name]);
    let texts: Vec<&str> = match claim {
        Value::String(text) if names == ["scope"] => text.split(' ').collect(),
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    texts.iter().any(|text| string_rule(value, text))
}

fn request_principal(value: &str, issuer: &str, subject: &str) -> bool {
    if value == "*" {
        return !issuer.is_empty() && !subject.is_empty();
    }
    let Some(slash) = value.rfind('/') else {
        return if let Some(end) = value.strip_prefix('*') {
            !issuer.is_empty() && subject.ends_with(end)
        } else if let Some(start) = value.strip_suffix('*') {
            issuer.starts_with(start) && !subject.is_empty()
        } else {
            issuer == value && subject.is_empty()
        };
    };
    let (left, right) = (&value[..slash], &value[slash + 1..]);
    if value.starts_with('*') {
        string_rule(left, issuer) && subject == right
    } else if value.ends_with('*') {
        issuer == left && string_rule(right, subject)
    } else {
        issuer == left && subject == right
    }
}

fn string_rule(value: &str, text: &str) -> bool {
    if value == "*" {
        !text.is_empty()
    } else if let Some(end) = value.strip_prefix('*') {
        text.ends_with(end)
    } else if let Some(start) = value.strip_suffix('*') {
        text.starts_with(start)
    } else {
        text == value
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).any(|at| glob(&pattern[1..], &text[at..])),
        Some(c) => text.starts_with(c) && glob(&pattern[1..], &text[1..]),
    }
}

fn principals(value: &str) -> Vec<String> {
    let segments: Vec<&str> = value.split('/').collect();
    let first = segments[0];
    let ours = |own: &str| string_rule(first, own);
    if segments.len() != 5
        || first == "*"
        || (first != "cluster.local" && !DOMAINS.iter().any(|own| ours(own)))
    {
        return vec![value.to_owned()];
    }
    let replaced = |own: &&str| match first.strip_prefix('*') {
        Some(end) if own.ends_with(end) => value.to_owned(),
        _ => format!("{own}{}", &value[first.len()..]),
    };
    DOMAINS.iter().map(replaced).collect()
}

fn bits(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(four) => format!("4:{:032b}", u32::from(four)),
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => bits(four.into()),
            None => format!("6:{:0128b}", u128::from(six)),
        },
    }
}

fn in_block(block: &str, ip: &str) -> bool {
    let (address, length) = block.split_once('/').unwrap_or((block, "128"));
    let mut length: usize = length.parse().unwrap();
    let (address, ip): (IpAddr, IpAddr) = (address.parse().unwrap(), ip.parse().unwrap());
    if let IpAddr::V6(six) = address
        && six.to_ipv4_mapped().is_some()
    {
        length -= 96;
    }
    let (block, ip) = (bits(address), bits(ip));
    let end = block.len().min(2 + length);
    ip.len() == block.len() && ip[..end] == block[..end]
}

fn path_matches(value: &str, path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap();
    if !value.contains("{*}") && !value.contains("{**}") {
        return string_rule(value, path);
    }
    template(value, path)
}

fn template(template: &str, path: &str) -> bool {
    if let Some(rest) = template.strip_prefix("{**}") {
        return (0..=path.len()).any(|at| self::template(rest, &path[at..]));
    }
    if let Some(rest) = template.strip_prefix("{*}") {
        let end = path.find('/').unwrap_or(path.len());
        return end > 0 && self::template(rest, &path[end..]);
    }
    match template.chars().next() {
        None => path.is_empty(),
        Some(c) => path.starts_with(c) && self::template(&template[1..], &path[1..]),
    }
}
