//! Attributes and `when` keys (§5), and requests with tokens (§11).

use serde_json::json;

use crate::support::{Ask, ask, explain, faults, judge, matches, policy, token};

fn when(key: &str, value: &str) -> String {
    format!("{{when: [{{key: '{key}', values: ['{value}']}}]}}")
}

#[test]
fn every_key_compares_its_attribute() {
    let mut full = ask().header("X-Team", "blue").claims(json!({
        "iss": "https://idp", "sub": "bob", "aud": ["a", "b"], "azp": "app",
        "groups": ["admin", "dev"], "realm": {"roles": ["r1"], "name": "n"}, "scope": "read write",
    }));
    full.sni = Some("sni.example".to_owned());
    full.remote = Some("192.0.2.1".to_owned());
    for (key, yes, no) in [
        ("source.ip", "10.0.0.0/8", "192.0.2.1"),
        ("remote.ip", "192.0.2.1", "10.1.2.3"),
        ("source.namespace", "web", "shop"),
        ("source.serviceAccount", "web/front", "front"),
        ("source.trustDomain", "td", "partner"),
        ("source.principal", "td/ns/web/sa/front", "td/ns/web/sa/x"),
        ("request.headers[x-team]", "bl*", "red"),
        ("request.headers[:authority]", "CART.shop", "x"),
        ("request.headers[host]", "cart.shop", "x"),
        ("request.headers[:method]", "GET", "get"),
        ("request.auth.principal", "https://idp/bob", "https://idp/rob"),
        ("request.auth.audiences", "b", "c"),
        ("request.auth.presenter", "app", "b"),
        ("request.auth.claims[groups]", "dev", "ops"),
        ("request.auth.claims[realm][roles]", "r1", "r2"),
        ("request.auth.claims[realm][name]", "*", "x"),
        ("request.auth.claims[scope]", "read", "read write"),
        ("destination.ip", "10.9.0.0/16", "10.1.2.3"),
        ("destination.port", "8080", "80"),
        ("connection.sni", "sni.*", "other"),
    ] {
        assert!(matches(&when(key, yes), &full), "{key} {yes}");
        assert!(!matches(&when(key, no), &full), "{key} {no}");
    }
}

#[test]
fn a_header_of_several_lines_lets_pass_only_joined_and_holds_back_by_each() {
    let twice = ask().header("X-A", "one").header("x-a", "two");
    let passes = |action: &str, field: &str, value: &str| {
        let rules = format!("[{{when: [{{key: 'request.headers[x-a]', {field}: ['{value}']}}]}}]");
        judge(&policy(action, &rules), &twice).is_allowed()
    };
    for (value, joined, any) in [
        ("one", false, true),
        ("two", false, true),
        ("one,two", true, true),
        ("two,one", false, false),
        ("one*", true, true),
        ("two*", false, true),
        ("*o", true, true),
        ("*ne", false, true),
        ("*", true, true),
        ("three", false, false),
    ] {
        assert_eq!(passes("ALLOW", "values", value), joined, "{value}");
        assert_eq!(passes("ALLOW", "notValues", value), !any, "{value}");
        assert_eq!(passes("DENY", "values", value), !any, "{value}");
        assert_eq!(passes("DENY", "notValues", value), joined, "{value}");
    }
}

#[test]
fn a_denial_says_how_many_lines_of_a_header_were_read_as_one() {
    let text = policy(
        "ALLOW",
        "[{when: [{key: 'request.headers[x-a]', values: [one]}]}]",
    );
    let twice = ask().header("x-a", "one").header("x-a", "two");
    let (trace, one) = (
        explain(&text, &twice).to_string(),
        explain(&text, &ask().header("x-a", "two")).to_string(),
    );
    assert!(trace.contains("of 2 lines, joined by commas"), "{trace}");
    assert!(!trace.contains("two"), "headers may be secrets: {trace}");
    assert!(!one.contains("lines"), "{one}");
}

#[test]
fn a_header_that_is_there_is_present_even_when_it_is_empty() {
    assert!(matches(&when("request.headers[x]", "*"), &ask().header("x", "")));
    assert!(!matches(&when("request.headers[x]", "*"), &ask()));
}

#[test]
fn claims_are_texts_or_lists_of_texts() {
    let with = |claims| ask().claims(claims);
    let rule = |value| when("request.auth.claims[c]", value);
    assert!(matches(&rule("a"), &with(json!({"c": "a"}))));
    assert!(matches(&rule("a"), &with(json!({"c": ["b", "a"]}))));
    for claims in [
        json!({"c": 1}),
        json!({"c": true}),
        json!({"c": {"a": "a"}}),
        json!({}),
        json!({"c": [1]}),
    ] {
        assert!(!matches(&rule("*"), &with(claims.clone())), "{claims}");
    }
    assert!(!matches(&rule("*"), &ask()));
    assert!(matches(
        &when("request.auth.claims[words]", "b"),
        &with(json!({"words": "a b"}))
    ));
    assert!(!matches(
        &when("request.auth.claims[other]", "b"),
        &with(json!({"other": "a b"}))
    ));
    assert!(matches(
        &when("request.auth.claims[permission]", "p"),
        &with(json!({"permission": "o p"}))
    ));
}

#[test]
fn request_principals_need_issuer_and_subject() {
    let rule = |value: &str| format!("{{from: [{{source: {{requestPrincipals: ['{value}']}}}}]}}");
    let bob = ask().claims(token());
    for (value, expected) in [
        ("*", true),
        ("https://idp/realm/bob", true),
        ("https://idp/realm/*", true),
        ("*/bob", true),
        ("https://idp/bob", false),
        ("bob", false),
    ] {
        assert_eq!(matches(&rule(value), &bob), expected, "{value}");
    }
    assert!(!matches(&rule("*"), &ask()));
    assert!(!matches(&rule("*"), &ask().claims(json!({"iss": "i"}))));
    let missing = "{from: [{source: {notRequestPrincipals: ['*']}}]}";
    assert!(matches(missing, &ask()));
    assert!(!matches(missing, &bob));
}

#[test]
fn filter_metadata_is_never_there_so_it_cannot_let_pass_or_hold_back() {
    let rules = format!("[{}]", when("experimental.envoy.filters.a.b[c]", "v"));
    let judged = |action: &str, ask: &Ask| judge(&policy(action, &rules), ask).is_allowed();
    for ask in [ask(), ask().tcp()] {
        assert!(!judged("ALLOW", &ask));
        assert!(!judged("DENY", &ask));
    }
}

#[test]
fn unknown_old_and_malformed_keys_are_refused() {
    for (key, expected) in [
        ("source.labels[app]", "is not a known key"),
        ("destination.labels[app]", "is gone"),
        ("destination.namespace", "is gone"),
        ("destination.name", "is gone"),
        ("destination.user", "is gone"),
        ("request.headers", "must have its name in brackets"),
        ("request.headers[]", "must have its name in brackets"),
        ("request.headers[a][b]", "must have its name in brackets"),
        ("request.headers[a", "must have its name in brackets"),
        ("request.headers[a b]", "is not a header name"),
        ("request.headers[:path]", "pseudo header"),
        ("request.auth.claims", "must have its name in brackets"),
        ("request.auth.claims[a]x[b]", "must have its name in brackets"),
        ("experimental.envoy.filters.a", "must have its name in brackets"),
        ("request.auth.claim[a]", "is not a known key"),
        ("Source.ip", "is not a known key"),
    ] {
        let found = faults(&policy("ALLOW", &format!("[{}]", when(key, "v"))));
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        assert!(found[0].contains(expected), "{key}: {found:?}");
        assert!(found[0].contains("spec.rules[0].when[0].key"), "{found:?}");
    }
}
