//! Policies as Envoy's RBAC: one filter that denies, one that allows, both set by route.

use serde_json::{Map, Value, json};
use signet_tests::envoy::parts::{self, of_type, typed};

use super::generate::{Fields, Policy, Rule, Set};

/// A listener that answers 200 to what the set named in `x-set` lets pass.
pub(super) fn listener(name: &str, sets: &[Set], tls: Option<&Value>) -> Value {
    let routes: Vec<Value> = sets
        .iter()
        .enumerate()
        .map(|(number, set)| route(number, set))
        .collect();
    let filter = |name: &str| typed(name, "filters.http.rbac.v3.RBAC", json!({}));
    let routes = json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]});
    let more = json!({
        "codec_type": "HTTP1",
        // What Istio's BASE is.
        "normalize_path": true,
        "use_remote_address": true,
    });
    let http = parts::http(name, &routes, vec![filter("deny"), filter("allow")], more);
    parts::listener(name, &[http], tls)
}

fn route(number: usize, set: &Set) -> Value {
    let of = |allow: bool| -> Vec<&Policy> { set.0.iter().filter(|policy| policy.allow == allow).collect() };
    let by_route = |action: &str, policies: &[&Policy]| {
        let mut rbac = json!({});
        if !policies.is_empty() {
            let rules = policies.iter().flat_map(|policy| &policy.rules).enumerate();
            let named: Map<String, Value> = rules
                .map(|(number, rule)| (format!("rule-{number}"), policy(rule)))
                .collect();
            rbac = json!({"rules": {"action": action, "policies": named}});
        }
        of_type("filters.http.rbac.v3.RBACPerRoute", json!({"rbac": rbac}))
    };
    json!({
        "match": {"prefix": "/", "headers": [{"name": "x-set", "string_match": {"exact": number.to_string()}}]},
        "direct_response": {"status": 200},
        "typed_per_filter_config": {
            "deny": by_route("DENY", &of(false)),
            "allow": by_route("ALLOW", &of(true)),
        },
    })
}

/// One rule: who asks, and what for.
fn policy(rule: &Rule) -> Value {
    let mut principals = entries(&rule.from, "or_ids", "and_ids", "not_id", &principal);
    let mut permissions = entries(&rule.to, "or_rules", "and_rules", "not_rule", &permission);
    for (key, values, not) in &rule.when {
        let of_source = matches!(
            *key,
            "source.ip" | "remote.ip" | "source.namespace" | "source.principal"
        );
        let (into, or, negation): (_, _, _) = if of_source {
            (&mut principals, "or_ids", "not_id")
        } else {
            (&mut permissions, "or_rules", "not_rule")
        };
        let one = |value: &String| {
            if of_source {
                principal(key, value)
            } else {
                permission(key, value)
            }
        };
        if !values.is_empty() {
            into.push(any_of(or, &values.iter().map(one).collect::<Vec<_>>()));
        }
        if !not.is_empty() {
            into.push(json!({negation: any_of(or, &not.iter().map(one).collect::<Vec<_>>())}));
        }
    }
    let all = |name: &str, inner: &str, parts: Vec<Value>| match parts.len() {
        0 => json!({"any": true}),
        _ => json!({name: {inner: parts}}),
    };
    json!({
        "principals": [all("and_ids", "ids", principals)],
        "permissions": [all("and_rules", "rules", permissions)],
    })
}

/// Entries of `from` or `to`: any of them, each with all of its fields.
fn entries(
    all: &[Fields],
    or: &str,
    and: &str,
    negation: &str,
    one: &dyn Fn(&str, &str) -> Value,
) -> Vec<Value> {
    if all.is_empty() {
        return Vec::new();
    }
    let each = all.iter().map(|fields| {
        let parts: Vec<Value> = fields
            .iter()
            .map(|(field, values)| match plain(field) {
                Some(plain) => {
                    json!({negation: any_of(or, &values.iter().map(|value| one(plain, value)).collect::<Vec<_>>())})
                }
                None => any_of(or, &values.iter().map(|value| one(field, value)).collect::<Vec<_>>()),
            })
            .collect();
        json!({and: {inner(and): parts}})
    });
    vec![any_of(or, &each.collect::<Vec<_>>())]
}

fn any_of(or: &str, parts: &[Value]) -> Value {
    json!({or: {inner(or): parts}})
}

fn inner(list: &str) -> &'static str {
    if list.ends_with("ids") { "ids" } else { "rules" }
}

/// The field that a negated one negates.
fn plain(field: &str) -> Option<&'static str> {
    let all = [
        ("notPrincipals", "principals"),
        ("notNamespaces", "namespaces"),
        ("notServiceAccounts", "serviceAccounts"),
        ("notIpBlocks", "ipBlocks"),
        ("notRemoteIpBlocks", "remoteIpBlocks"),
        ("notPaths", "paths"),
        ("notMethods", "methods"),
        ("notHosts", "hosts"),
        ("notPorts", "ports"),
    ];
    all.iter()
        .find(|(negated, _)| *negated == field)
        .map(|(_, plain)| *plain)
}

fn principal(field: &str, value: &str) -> Value {
    let named = |matcher: Value| json!({"authenticated": {"principal_name": matcher}});
    match field {
        "ipBlocks" | "source.ip" => json!({"direct_remote_ip": block(value)}),
        "remoteIpBlocks" | "remote.ip" => json!({"remote_ip": block(value)}),
        "namespaces" | "source.namespace" => {
            let glob: Vec<String> = value.split('*').map(escaped).collect();
            let segment = if value == "*" {
                "[^/]+".into()
            } else {
                glob.join("[^/]*")
            };
            named(regex(&format!("spiffe://cluster\\.local/ns/{segment}/.*")))
        }
        "serviceAccounts" => {
            let (namespace, account) = value.split_once('/').unwrap_or(("data", value));
            named(regex(&format!(
                "spiffe://cluster\\.local/ns/{}/sa/{}",
                escaped(namespace),
                escaped(account)
            )))
        }
        _ => named(match string(value) {
            Text::Present => regex("spiffe://.+"),
            Text::Prefix(text) => json!({"prefix": format!("spiffe://{text}")}),
            Text::Suffix(text) => regex(&format!("spiffe://.*{}", escaped(text))),
            Text::Exact(text) => json!({"exact": format!("spiffe://{text}")}),
        }),
    }
}

fn permission(field: &str, value: &str) -> Value {
    match field {
        "ports" | "destination.port" => json!({"destination_port": value.parse::<u32>().unwrap()}),
        "destination.ip" => json!({"destination_ip": block(value)}),
        "methods" => header(":method", value, false),
        "hosts" => header(":authority", value, true),
        "request.headers[x-tier]" => header("x-tier", value, false),
        _ if value.contains('{') => json!({"uri_template": typed(
            "envoy.path.match.uri_template.uri_template_matcher",
            "path.match.uri_template.v3.UriTemplateMatchConfig",
            json!({"path_template": value.replace("{**}", "**").replace("{*}", "*")}),
        )}),
        _ => json!({"url_path": {"path": match string(value) {
            Text::Present => regex(".+"),
            Text::Prefix(text) => json!({"prefix": text}),
            Text::Suffix(text) => json!({"suffix": text}),
            Text::Exact(text) => json!({"exact": text}),
        }}}),
    }
}

fn header(name: &str, value: &str, any_case: bool) -> Value {
    let mut matcher = match string(value) {
        Text::Present => return json!({"header": {"name": name, "present_match": true}}),
        Text::Prefix(text) => json!({"prefix": text}),
        Text::Suffix(text) => json!({"suffix": text}),
        Text::Exact(text) => json!({"exact": text}),
    };
    if any_case {
        matcher["ignore_case"] = true.into();
    }
    json!({"header": {"name": name, "string_match": matcher}})
}

enum Text<'a> {
    Present,
    Prefix(&'a str),
    Suffix(&'a str),
    Exact(&'a str),
}

fn string(value: &str) -> Text<'_> {
    if value == "*" {
        Text::Present
    } else if let Some(rest) = value.strip_prefix('*') {
        Text::Suffix(rest)
    } else if let Some(rest) = value.strip_suffix('*') {
        Text::Prefix(rest)
    } else {
        Text::Exact(value)
    }
}

fn block(value: &str) -> Value {
    let (address, length) = match value.split_once('/') {
        Some((address, length)) => (address, length.parse().unwrap()),
        None if value.contains(':') => (value, 128),
        None => (value, 32),
    };
    json!({"address_prefix": address, "prefix_len": length})
}

fn regex(text: &str) -> Value {
    json!({"safe_regex": {"regex": text}})
}

/// Text in a regular expression.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| [(!c.is_ascii_alphanumeric()).then_some('\\'), Some(c)])
        .flatten()
        .collect()
}
