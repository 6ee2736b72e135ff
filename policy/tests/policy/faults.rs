//! What is refused, where, and with which hint (§1, §2; I4).

use crate::support::{faults, policy};

const HEAD: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n";

fn one(text: &str) -> String {
    let found = faults(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    found[0].clone()
}

#[test]
fn every_fault_names_its_line_its_field_and_a_hint() {
    let text = format!(
        "{HEAD}spec:\n  rules:\n  - from:\n    - source:\n        ipBlocks:\n        - 10.0.0.0/8\n        \
         - 10.0.0.0/33\n"
    );
    assert_eq!(
        one(&text),
        "line 10: spec.rules[0].from[0].source.ipBlocks[1]: \"10.0.0.0/33\" is neither an IP address nor a CIDR \
         block; write 10.1.2.3, 10.1.0.0/16, fd00::1 or fd00::/8"
    );
}

#[test]
fn lines_count_from_the_top_of_the_file() {
    let text = format!("# a comment\n---\n{HEAD}spec: {{}}\n---\n{HEAD}spec:\n  action: deny\n");
    assert_eq!(
        one(&text),
        "line 12: spec.action: \"deny\" is not an action; write ALLOW, DENY, AUDIT or CUSTOM"
    );
}

#[test]
fn unknown_fields_are_refused_with_what_was_probably_meant() {
    for (text, expected) in [
        (
            format!("{HEAD}spec: {{acton: DENY}}\n"),
            "spec.acton: unknown field; did you mean action?",
        ),
        (
            format!("{HEAD}sepc: {{}}\n"),
            "sepc: unknown field; did you mean spec?",
        ),
        (
            policy("ALLOW", "[{form: []}]"),
            "spec.rules[0].form: unknown field; did you mean from?",
        ),
        (
            policy("ALLOW", "[{from: [{source: {principal: [a]}}]}]"),
            "source.principal: unknown field; did you mean principals?",
        ),
        (
            policy("ALLOW", "[{to: [{operation: {Paths: [a]}}]}]"),
            "operation.Paths: unknown field; did you mean paths?",
        ),
        (
            policy("ALLOW", "[{to: [{operation: {methods: [GET]}, xyzzy: 1}]}]"),
            "xyzzy: unknown field; remove it, or move it to where it belongs",
        ),
        (
            format!("{}spec: {{}}\n", HEAD.replace("namespace:", "namspace:")),
            "metadata.namspace: unknown field; did you mean namespace?",
        ),
        (
            format!("{HEAD}spec: {{selector: {{matchExpressions: []}}}}\n"),
            "spec.selector.matchExpressions: unknown field",
        ),
    ] {
        let found = one(&text);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn every_fault_of_an_object_is_listed() {
    let rules =
        "[{from: [{source: {ipBlocks: [a, b]}}], to: [{operation: {ports: ['70000'], paths: ['']}}]}]";
    assert_eq!(faults(&policy("ALLOW", rules)).len(), 4);
}

#[test]
fn values_that_cannot_be_used_are_refused() {
    for (rule, expected) in [
        ("from: [{source: {ipBlocks: [10.0.0]}}]", "neither an IP address"),
        (
            "from: [{source: {serviceAccounts: ['*']}}]",
            "is not a service account",
        ),
        (
            "from: [{source: {serviceAccounts: [a/b/c]}}]",
            "is not a service account",
        ),
        (
            "from: [{source: {trustDomains: ['a*b']}}]",
            "is not a trust domain pattern",
        ),
        (
            "from: [{source: {trustDomains: [a/b]}}]",
            "is not a trust domain pattern",
        ),
        (
            "from: [{source: {serviceAccounts: [a], principals: [b]}}]",
            "cannot stand beside",
        ),
        (
            "from: [{source: {notServiceAccounts: [a], notNamespaces: [b]}}]",
            "cannot stand beside",
        ),
        ("to: [{operation: {ports: ['65536']}}]", "is not a port"),
        ("to: [{operation: {ports: ['+80']}}]", "is not a port"),
        ("to: [{operation: {ports: ['http']}}]", "is not a port"),
        (
            "to: [{operation: {ports: [80]}}]",
            "must be text, not a number; put it in quotes",
        ),
        (
            "to: [{operation: {paths: ['/a/{*}b']}}]",
            "is not a path template",
        ),
        (
            "to: [{operation: {paths: ['/{**}/{*}']}}]",
            "no operator may follow",
        ),
        ("to: [{operation: {methods: GET}}]", "must be a list, not text"),
        ("when: [{key: source.ip, values: [x]}]", "neither an IP address"),
        ("when: [{key: destination.port, values: [x]}]", "is not a port"),
        ("when: [{key: source.ip}]", "needs values or notValues"),
        ("when: [{values: [x]}]", "key: missing"),
    ] {
        let found = one(&policy("ALLOW", &format!("[{{{rule}}}]")));
        assert!(found.contains(expected), "{rule}: {found}");
    }
}

#[test]
fn what_is_written_and_says_nothing_is_refused() {
    for (rule, expected) in [
        ("{from: []}", "from: is empty"),
        ("{to: []}", "to: is empty"),
        ("{when: []}", "when: is empty"),
        ("{from: [{source: {}}]}", "source: is empty"),
        ("{to: [{operation: {}}]}", "operation: is empty"),
        ("{from: [{}]}", "source: missing"),
        ("{from: [null]}", "from[0]: has no value"),
        ("{from: [{source: {principals: []}}]}", "principals: is empty"),
        (
            "{from: [{source: {principals: ['']}}]}",
            "principals[0]: is empty",
        ),
        (
            "{from: [{source: {principals: [null]}}]}",
            "principals[0]: has no value",
        ),
        (
            "{to: [{operation: {methods: [GET], paths: }}]}",
            "paths: has no value",
        ),
        (
            "{when: [{key: source.ip, values: [], notValues: [1.1.1.1]}]}",
            "values: is empty",
        ),
        ("null", "rules[0]: has no value"),
    ] {
        let found = one(&policy("ALLOW", &format!("[{rule}]")));
        assert!(found.contains(expected), "{rule}: {found}");
    }
}

#[test]
fn bounds_of_the_reference_hold() {
    let accounts = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("a{n}")).collect();
        policy(
            "ALLOW",
            &format!(
                "[{{from: [{{source: {{serviceAccounts: [{}]}}}}]}}]",
                names.join(", ")
            ),
        )
    };
    assert!(faults(&accounts(16)).is_empty());
    assert!(one(&accounts(17)).contains("has 17 entries, at most 16 are allowed"));
    let rules = |count: usize| policy("ALLOW", &format!("[{}]", vec!["{}"; count].join(", ")));
    assert!(faults(&rules(512)).is_empty());
    assert!(one(&rules(513)).contains("has 513 entries, at most 512"));
    let from = vec!["{source: {namespaces: [a]}}"; 513].join(", ");
    assert!(one(&policy("ALLOW", &format!("[{{from: [{from}]}}]"))).contains("at most 512"));
    let refs = vec!["{kind: Service, group: '', name: a}"; 17].join(", ");
    assert!(one(&format!("{HEAD}spec: {{targetRefs: [{refs}]}}\n")).contains("at most 16"));
}

#[test]
fn custom_cannot_use_identities_and_needs_its_provider() {
    for field in [
        "principals: [a]",
        "notPrincipals: [a]",
        "namespaces: [a]",
        "serviceAccounts: [a]",
        "trustDomains: [a]",
        "requestPrincipals: [a]",
    ] {
        let text = policy(
            "CUSTOM, provider: {name: grpc}",
            &format!("[{{from: [{{source: {{{field}}}}}]}}]"),
        );
        assert!(
            one(&text).contains("runs before identities are judged"),
            "{field}"
        );
    }
    for key in [
        "source.principal",
        "source.namespace",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.claims[a]",
    ] {
        let rules = format!("[{{when: [{{key: '{key}', values: [a]}}]}}]");
        let text = policy("CUSTOM, provider: {name: grpc}", &rules);
        assert!(one(&text).contains("runs before identities are judged"), "{key}");
    }
    assert!(one(&policy("CUSTOM", "[{}]")).contains("CUSTOM needs a provider"));
    assert!(one(&policy("DENY, provider: {name: grpc}", "[{}]")).contains("provider is for CUSTOM only"));
    assert!(one(&policy("CUSTOM, provider: {}", "[{}]")).contains("provider.name: missing"));
}

#[test]
fn attachments_are_a_selector_or_references_into_the_own_namespace() {
    let spec = |spec: &str| format!("{HEAD}spec: {{{spec}}}\n");
    let service = "{kind: Service, group: '', name: a}";
    for sound in [
        "selector: {}".to_owned(),
        "selector: {matchLabels: {}}".to_owned(),
        "selector: {matchLabels: {app.kubernetes.io/name: a, empty: ''}}".to_owned(),
        format!("targetRefs: [{service}]"),
        "targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: a}".to_owned(),
        "targetRefs: [{kind: Service, name: a, namespace: shop}]".to_owned(),
    ] {
        assert!(faults(&spec(&sound)).is_empty(), "{sound}");
    }
    for (bad, expected) in [
        (
            format!("selector: {{}}, targetRefs: [{service}]"),
            "exclude one another",
        ),
        (
            format!("targetRef: {service}, targetRefs: [{service}]"),
            "exclude one another",
        ),
        (
            "targetRefs: [{kind: Service, name: a, namespace: bank}]".to_owned(),
            "own namespace only",
        ),
        ("targetRefs: []".to_owned(), "is empty"),
        (
            "targetRefs: [{kind: Pod, name: a}]".to_owned(),
            "is not a kind that policies attach to",
        ),
        (
            "targetRefs: [{kind: Gateway, name: a}]".to_owned(),
            "is not a kind that policies attach to",
        ),
        (
            "selector: {matchLabels: {app: 'a*'}}".to_owned(),
            "labels are compared whole",
        ),
        (
            "selector: {matchLabels: {'a*': b}}".to_owned(),
            "labels are compared whole",
        ),
        (
            "selector: {matchLabels: {app: 1}}".to_owned(),
            "must be text, not a number",
        ),
        ("selector: null".to_owned(), "has no value"),
    ] {
        let found = one(&spec(&bad));
        assert!(found.contains(expected), "{bad}: {found}");
    }
}

#[test]
fn the_frame_of_an_object_is_checked() {
    for (from, to, expected) in [
        (
            "security.istio.io/v1\n",
            "security.istio.io/v2\n",
            "\"security.istio.io/v2\" is not a known version",
        ),
        (
            "security.istio.io/v1\n",
            "security.istio.oi/v1\n",
            "is not a known version",
        ),
        (
            "AuthorizationPolicy",
            "AuthorisationPolicy",
            "is not a known kind",
        ),
        ("name: p, ", "", "metadata.name: missing"),
        ("name: p, ", "name: P!, ", "is not a Kubernetes name"),
        (
            "name: p, ",
            "name: p, creationTimestamp: yesterday, ",
            "is not a time in UTC",
        ),
        (
            "name: p, ",
            "name: p, annotations: {istio.io/dry-run: maybe}, ",
            "is neither true nor false",
        ),
    ] {
        let text = format!("{}spec: {{}}\n", HEAD.replace(from, to));
        let found = one(&text);
        assert!(found.contains(expected), "{text}: {found}");
    }
    assert!(faults(&HEAD.replace("istio.io/v1\n", "istio.io/v1beta1\n")).is_empty());
    assert!(faults(&HEAD.replace("name: p, ", "name: p, creationTimestamp: null, ")).is_empty());
}

#[test]
fn json_and_lists_are_read_like_yaml() {
    let object = r#"{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy",
        "metadata":{"name":"p","namespace":"shop"},"spec":{"action":"NO"}}"#;
    assert!(one(object).starts_with("line 2: spec.action:"), "{}", one(object));
    let list = format!(r#"{{"apiVersion":"v1","kind":"List","items":[{object},{object}]}}"#);
    assert_eq!(faults(&list).len(), 2);
}

#[test]
fn what_is_no_yaml_is_refused_with_its_line() {
    let found = one(&format!("{HEAD}spec: {{action: ALLOW\n---\n{HEAD}\n"));
    assert!(
        found.contains("not readable as YAML") && found.starts_with("line "),
        "{found}"
    );
    assert!(one(&format!("{HEAD}{HEAD}")).contains("not readable as YAML"));
}

#[test]
fn a_fault_repeats_no_more_than_an_excerpt() {
    let long = "x".repeat(10_000);
    let found = one(&policy(&long, "[]"));
    assert!(found.len() < 400 && found.contains('…'), "{found}");
    let found = one(&policy("\"A\\n\\e[31m\"", "[]"));
    assert!(!found.contains(['\n', '\u{1b}']), "{found}");
}
