//! Listeners without HTTP (§8, §15): no rule is ignored; what cannot be enforced counts on the safe side.

use crate::support::{Ask, Verdict, ask, explain, judge, named, policy, program};

fn allowed(action: &str, rules: &str, ask: &Ask) -> bool {
    judge(&policy(action, rules), ask).is_allowed()
}

const HTTP_FIELDS: &[&str] = &[
    "to: [{operation: {hosts: [h]}}]",
    "to: [{operation: {notHosts: [h]}}]",
    "to: [{operation: {methods: [GET]}}]",
    "to: [{operation: {notMethods: [GET]}}]",
    "to: [{operation: {paths: [/]}}]",
    "to: [{operation: {notPaths: [/]}}]",
    "from: [{source: {requestPrincipals: ['*']}}]",
    "from: [{source: {notRequestPrincipals: ['*']}}]",
    "when: [{key: 'request.headers[x]', values: [y]}]",
    "when: [{key: 'request.headers[x]', notValues: [y]}]",
    "when: [{key: request.auth.principal, values: ['*']}]",
    "when: [{key: request.auth.audiences, notValues: [a]}]",
    "when: [{key: request.auth.presenter, values: [a]}]",
    "when: [{key: 'request.auth.claims[a]', notValues: [b]}]",
];

#[test]
fn an_allow_rule_with_http_fields_matches_no_connection_and_a_deny_rule_with_them_every_one() {
    for fields in HTTP_FIELDS {
        let rules = format!("[{{{fields}}}]");
        assert!(!allowed("ALLOW", &rules, &ask().tcp()), "{fields}");
        assert!(!allowed("DENY", &rules, &ask().tcp()), "{fields}");
        if fields.contains("equestPrincipals") || fields.contains("request.auth") {
            // CUSTOM may not use these at all.
            continue;
        }
        let asks = judge(&policy("CUSTOM, provider: {name: grpc}", &rules), &ask().tcp());
        assert_eq!(asks, Verdict::Asks(vec!["grpc".to_owned()]), "{fields}");
    }
}

#[test]
fn the_whole_allow_rule_goes_even_if_another_entry_could_match() {
    let rules = "[{to: [{operation: {paths: [/]}}, {operation: {ports: ['8080']}}]}]";
    assert!(!allowed("ALLOW", rules, &ask().tcp()));
    assert!(allowed("ALLOW", rules, &ask().path("/x")));
    let beside = "[{to: [{operation: {paths: [/]}}]}, {to: [{operation: {ports: ['8080']}}]}]";
    assert!(allowed("ALLOW", beside, &ask().tcp()));
}

#[test]
fn the_l4_fields_of_a_deny_rule_still_count() {
    for rules in [
        "[{from: [{source: {namespaces: [ops]}}], to: [{operation: {methods: [GET]}}]}]",
        "[{to: [{operation: {methods: [GET], ports: ['9090']}}]}]",
        "[{from: [{source: {requestPrincipals: ['*'], ipBlocks: [192.0.2.1]}}]}]",
        "[{from: [{source: {namespaces: [ops]}}], when: [{key: 'request.headers[x]', values: [y]}]}]",
    ] {
        assert!(allowed("DENY", rules, &ask().tcp()), "{rules}");
    }
    for rules in [
        "[{from: [{source: {namespaces: [web]}}], to: [{operation: {methods: [GET]}}]}]",
        "[{to: [{operation: {methods: [GET], ports: ['8080']}}]}]",
        "[{to: [{operation: {methods: [GET]}}, {operation: {ports: ['9090']}}]}]",
    ] {
        assert!(!allowed("DENY", rules, &ask().tcp()), "{rules}");
    }
}

#[test]
fn trust_domains_sni_and_client_addresses_are_enforced_without_http() {
    let mut ask = ask().tcp();
    ask.sni = Some("s".to_owned());
    for rules in [
        "[{from: [{source: {trustDomains: [td]}}]}]",
        "[{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]",
        "[{when: [{key: connection.sni, values: [s]}]}]",
        "[{when: [{key: source.serviceAccount, values: [web/front]}]}]",
    ] {
        assert!(allowed("ALLOW", rules, &ask), "{rules}");
        assert!(!allowed("DENY", rules, &ask), "{rules}");
    }
}

#[test]
fn what_cannot_be_enforced_is_reported_at_load() {
    let text = named(
        "shop",
        "a",
        "ALLOW",
        "[{}, {to: [{operation: {paths: [/], ports: ['80', '81']}}]}]",
    ) + &named(
        "shop",
        "d",
        "DENY",
        "[{from: [{source: {namespaces: [x]}}], when: [{key: 'experimental.envoy.filters.a[b]', values: [c]}]}]",
    );
    let program = program(&text);
    let found: Vec<_> = program
        .unenforceable()
        .iter()
        .map(|one| {
            let field = format!("{} rules[{}].{}", one.policy, one.rule, one.field);
            (field, one.everywhere, one.never_matches, one.ports.clone())
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                "AuthorizationPolicy shop/a rules[1].to[0].operation.paths".to_owned(),
                false,
                true,
                vec![80, 81]
            ),
            (
                "AuthorizationPolicy shop/d rules[0].when[0].values".to_owned(),
                true,
                false,
                vec![]
            ),
        ]
    );
}

#[test]
fn the_trace_says_that_a_rule_cannot_be_enforced() {
    let text = policy("ALLOW", "[{to: [{operation: {paths: [/]}}]}]");
    let trace = explain(&text, &ask().tcp()).to_string();
    assert!(
        trace
            .contains("rules[0].to[0].operation.paths: cannot be enforced here, so the rule matches nothing"),
        "{trace}"
    );
}
