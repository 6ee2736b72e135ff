//! Structure and emptiness (§2), scope of the default-deny (§2, §6).

use crate::support::{Verdict, ask, faults, judge, matches, named, policy};

const HEAD: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n";

#[test]
fn an_allow_policy_without_rules_denies_everything_in_scope() {
    for spec in [
        "",
        "spec:\n",
        "spec: {}\n",
        "spec: {action: ALLOW}\n",
        "spec: {rules: []}\n",
    ] {
        let verdict = judge(&format!("{HEAD}{spec}"), &ask());
        assert!(
            matches!(verdict, Verdict::Denied("not_allowed", _)),
            "{spec}: {verdict:?}"
        );
        assert!(!judge(&format!("{HEAD}{spec}"), &ask().tcp()).is_allowed());
    }
}

#[test]
fn without_any_allow_policy_everything_passes() {
    assert_eq!(judge("", &ask()), Verdict::Allowed(None));
    let elsewhere = named("bank", "p", "ALLOW", "[]");
    assert_eq!(judge(&elsewhere, &ask()), Verdict::Allowed(None));
}

#[test]
fn one_empty_rule_matches_everything() {
    assert!(matches("{}", &ask()));
    assert!(matches("{}", &ask().tcp().plaintext()));
    let asks = judge(&policy("CUSTOM, provider: {name: grpc}", "[{}]"), &ask().tcp());
    assert_eq!(asks, Verdict::Asks(vec!["grpc".to_owned()]));
}

#[test]
fn restricting_policies_without_rules_are_refused() {
    for action in ["DENY", "CUSTOM, provider: {name: grpc}"] {
        for rules in ["[]", ""] {
            let rules = if rules.is_empty() {
                String::new()
            } else {
                format!(", rules: {rules}")
            };
            let found = faults(&format!("{HEAD}spec: {{action: {action}{rules}}}\n"));
            assert_eq!(found.len(), 1, "{action} {rules}: {found:?}");
            assert!(found[0].contains("without rules would do nothing"), "{found:?}");
        }
    }
}

#[test]
fn values_are_any_fields_all_entries_any_conditions_all() {
    let rule = "{from: [{source: {principals: [td/ns/web/sa/front, x], namespaces: [web]}}, \
                {source: {namespaces: [ops]}}], to: [{operation: {methods: [GET, PUT], paths: [/a]}}, \
                {operation: {ports: ['9090']}}], when: [{key: source.ip, values: [10.0.0.0/8]}, \
                {key: 'request.headers[x]', values: ['y*'], notValues: ['*z']}]}";
    let good = ask().path("/a").header("x", "y");
    assert!(matches(rule, &good));
    assert!(matches(rule, &good.clone().method("PUT")));
    assert!(matches(rule, &good.clone().peer("td/ns/ops/sa/any")));
    assert!(matches(rule, &good.clone().path("/b").port(9090)));
    for bad in [
        good.clone().peer("td/ns/web/sa/other"),
        good.clone().method("POST"),
        good.clone().path("/b"),
        good.clone().source_ip("11.0.0.1"),
        ask().path("/a"),
        ask().path("/a").header("x", "yz"),
        good.plaintext(),
    ] {
        assert!(!matches(rule, &bad), "{bad:?}");
    }
}

#[test]
fn a_negated_field_holds_when_none_of_its_values_matches() {
    let rule = "{to: [{operation: {notPaths: [/a, /b/*], notMethods: [DELETE]}}]}";
    assert!(matches(rule, &ask().path("/c")));
    for bad in [
        ask().path("/a"),
        ask().path("/b/x"),
        ask().path("/c").method("DELETE"),
    ] {
        assert!(!matches(rule, &bad), "{bad:?}");
    }
}

#[test]
fn values_and_not_values_of_a_condition_are_both_asked_for() {
    let rule = "{when: [{key: source.namespace, values: ['web*'], notValues: [webx]}]}";
    assert!(matches(rule, &ask()));
    assert!(!matches(rule, &ask().peer("td/ns/webx/sa/a")));
    assert!(!matches(rule, &ask().peer("td/ns/ops/sa/a")));
}

#[test]
fn policies_add_up_and_deny_comes_first() {
    let two = named("shop", "a", "ALLOW", "[{to: [{operation: {paths: [/a]}}]}]")
        + &named("root", "b", "ALLOW", "[{to: [{operation: {paths: [/b]}}]}]");
    assert!(judge(&two, &ask().path("/a")).is_allowed());
    assert!(judge(&two, &ask().path("/b")).is_allowed());
    assert!(!judge(&two, &ask().path("/c")).is_allowed());
    let narrow_allow = two + &named("root", "c", "DENY", "[{from: [{source: {namespaces: [web]}}]}]");
    assert!(!judge(&narrow_allow, &ask().path("/a")).is_allowed());
}
