//! Evaluation order (§6): who is asked, who denies, what observes, and what a decision says about itself.

use signet_policy::Gate;

use crate::support::{Verdict, ask, explain, judge, mesh, named, policy, program, sound, workload};

const CUSTOM: &str = "CUSTOM, provider: {name: grpc}";

fn denial(text: &str, ask: &crate::support::Ask) -> (&'static str, String) {
    match judge(text, ask) {
        Verdict::Denied(word, sentence) => (word, sentence),
        other => panic!("{other:?}"),
    }
}

#[test]
fn custom_is_asked_before_deny_and_only_where_it_matches() {
    let text = named("shop", "c", CUSTOM, "[{to: [{operation: {paths: [/admin]}}]}]")
        + &named("shop", "d", "DENY", "[{}]");
    assert_eq!(
        judge(&text, &ask().path("/admin")),
        Verdict::Asks(vec!["grpc".to_owned()])
    );
    assert_eq!(denial(&text, &ask()).0, "denied");
}

#[test]
fn every_provider_that_matches_is_asked_once() {
    let text = named("shop", "a", CUSTOM, "[{}, {}]")
        + &named("shop", "b", "CUSTOM, provider: {name: grpc2}", "[{}]")
        + &named("root", "c", CUSTOM, "[{}]");
    let both = ["grpc", "grpc2"].map(str::to_owned).to_vec();
    let Verdict::Asks(mut asked) = judge(&text, &ask()) else {
        panic!("not asked");
    };
    asked.sort();
    assert_eq!(asked, both);
}

#[test]
fn what_the_provider_says_decides() {
    let program = program(&(named("shop", "c", CUSTOM, "[{}]") + &named("shop", "a", "ALLOW", "[{}]")));
    ask().with(|connection, request| {
        let Gate::Ask(question) = program.gate(connection, request) else {
            panic!("not asked");
        };
        let denial = question.refused("grpc").unwrap();
        assert_eq!(denial.as_str(), "provider_refused");
        assert_eq!(
            denial.to_string(),
            "AuthorizationPolicy shop/c rules[0] asks provider grpc, which did not allow it"
        );
        assert_eq!(question.refused("nobody"), None);
        assert!(question.granted().decide(connection, request).is_ok());
    });
}

#[test]
fn a_provider_that_cannot_be_asked_denies() {
    let unknown = policy("CUSTOM, provider: {name: nobody}", "[{}]");
    assert_eq!(denial(&unknown, &ask()).0, "provider_unknown");
    let http = policy(
        "CUSTOM, provider: {name: http}",
        "[{to: [{operation: {paths: [/x]}}]}]",
    );
    assert_eq!(
        judge(&http, &ask().path("/x")),
        Verdict::Asks(vec!["http".to_owned()])
    );
    assert!(judge(&http, &ask()).is_allowed());
    assert_eq!(denial(&http, &ask().tcp()).0, "provider_http_only");
}

#[test]
fn deny_beats_allow_and_names_its_field() {
    let text = named("shop", "a", "ALLOW", "[{}]")
        + &named("shop", "d", "DENY", "[{}, {to: [{operation: {methods: [GET]}}]}]");
    assert_eq!(
        denial(&text, &ask()),
        (
            "denied",
            "AuthorizationPolicy shop/d rules[0] denies it".to_owned()
        )
    );
    let text = named(
        "shop",
        "d",
        "DENY",
        "[{from: [{source: {namespaces: [ops]}}, {source: {namespaces: [web]}}]}]",
    );
    assert_eq!(
        denial(&text, &ask()).1,
        "AuthorizationPolicy shop/d rules[0] denies it by from[1].source.namespaces"
    );
}

#[test]
fn a_denial_for_want_of_an_allow_names_the_nearest_rule_and_field() {
    let text = named("shop", "a", "ALLOW", "[{from: [{source: {namespaces: [ops]}}]}]")
        + &named(
            "shop",
            "b",
            "ALLOW",
            "[{from: [{source: {namespaces: [web]}}], to: [{operation: {methods: [POST]}}]}]",
        );
    assert_eq!(
        denial(&text, &ask()),
        (
            "not_allowed",
            "none of 2 ALLOW policies matches: nearest is AuthorizationPolicy shop/b rules[0], \
             which to[0].operation.methods excludes"
                .to_owned()
        )
    );
    assert_eq!(
        denial(&policy("ALLOW", "[]"), &ask()).1,
        "none of 1 ALLOW policies matches: AuthorizationPolicy shop/p has no rule that could"
    );
}

#[test]
fn among_many_rules_a_stranger_is_told_what_no_rule_admits() {
    let rules: Vec<String> = (0..100)
        .map(|n| format!("{{from: [{{source: {{principals: [td/ns/n{n}/sa/a]}}}}]}}"))
        .collect();
    let text = policy("ALLOW", &format!("[{}]", rules.join(", ")));
    assert_eq!(
        denial(&text, &ask()).1,
        "none of 1 ALLOW policies matches: no rule admits the principal"
    );
}

#[test]
fn a_denial_names_a_policy_however_many_rules_there_are() {
    // As many as are tried one by one, more that are filed, and more that demand different things.
    let rule = |n: usize| match n % 2 {
        0 => format!("{{from: [{{source: {{principals: [td/ns/n{n}/sa/a]}}}}]}}"),
        _ => format!("{{to: [{{operation: {{ports: ['{n}']}}}}]}}"),
    };
    let none: fn(usize) -> usize = |_| 0;
    for (count, which) in [(0, none), (1, none), (100, |n| 2 * n), (100, |n| n)] {
        let rules: Vec<String> = (0..count).map(|n| rule(which(n))).collect();
        let rules = format!("[{}]", rules.join(", "));
        let broad = named("root", "a", "ALLOW", "[]") + &named("shop", "z", "ALLOW", &rules);
        let text = broad + &named("shop", "y", "DENY", "[{to: [{operation: {paths: [/none]}}]}]");
        let narrow = |name: &str, app: &str| {
            let object = named("shop", name, "ALLOW", &rules);
            object.replace(
                "spec: {",
                &format!("spec: {{selector: {{matchLabels: {{app: {app}}}}}, "),
            )
        };
        for (text, expected) in [
            (text.clone(), "shop/z"),
            (
                text.clone() + &narrow("w", "cart") + &narrow("v", "other"),
                "shop/w",
            ),
            (text + &narrow("w", "cart") + &narrow("u", "cart"), "shop/u"),
        ] {
            let program = program(&text);
            let policy = ask().with(|connection, request| match program.gate(connection, request) {
                Gate::Open(cleared) => {
                    let denial = cleared.decide(connection, request).unwrap_err();
                    denial.policy().map(ToString::to_string)
                }
                other => panic!("{other:?}"),
            });
            let policy = policy.unwrap();
            if count == 1 {
                // The nearest rule is of some policy that has it.
                assert!(policy.starts_with("AuthorizationPolicy shop/"), "{policy}");
            } else {
                assert_eq!(policy, format!("AuthorizationPolicy {expected}"), "{count} rules");
            }
        }
    }
}

#[test]
fn a_permit_names_its_rule() {
    let text = policy(
        "ALLOW",
        "[{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {paths: [/]}}]}]",
    );
    let by = Some(("AuthorizationPolicy shop/p".to_owned(), 1));
    assert_eq!(judge(&text, &ask()), Verdict::Allowed(by));
}

#[test]
fn dry_runs_and_audits_observe_and_decide_nothing() {
    let dry = |name: &str, action: &str, rules: &str| {
        named("shop", name, action, rules).replace(
            "metadata: {",
            "metadata: {annotations: {istio.io/dry-run: 'true'}, ",
        )
    };
    let text = dry("a", "ALLOW", "[{to: [{operation: {paths: [/a]}}]}]")
        + &dry("b", "DENY", "[{to: [{operation: {methods: [PUT]}}]}]")
        + &dry("c", CUSTOM, "[{}]")
        + &named("shop", "d", "AUDIT", "[{to: [{operation: {paths: [/a]}}]}]");
    let program = program(&text);
    assert!(program.has_shadow());
    for (ask, audit, allow, deny) in [
        (ask().path("/a"), true, true, false),
        (ask().path("/b"), false, false, false),
        (ask().path("/a").method("PUT"), true, true, true),
    ] {
        assert_eq!(crate::support::verdict(&program, &ask), Verdict::Allowed(None));
        ask.with(|connection, request| {
            let shadow = program.shadow(connection, request);
            assert_eq!(
                (
                    shadow.audit.is_some(),
                    shadow.allow.is_some(),
                    shadow.deny.is_some(),
                    shadow.custom.is_some()
                ),
                (audit, allow, deny, true)
            );
            assert_eq!(shadow.not_allowed, !allow);
        });
    }
}

#[test]
fn an_audit_in_dry_run_is_an_audit() {
    let text = policy("AUDIT", "[{}]").replace(
        "metadata: {",
        "metadata: {annotations: {istio.io/dry-run: 'true'}, ",
    );
    let program = program(&text);
    let audited = ask().with(|connection, request| program.shadow(connection, request).audit.is_some());
    assert!(audited);
    assert!(explain(&text, &ask()).to_string().contains("rules[0] matches"));
}

#[test]
fn audit_is_no_default_deny() {
    assert_eq!(judge(&policy("AUDIT", "[]"), &ask()), Verdict::Allowed(None));
    assert_eq!(judge(&policy("AUDIT", "[{}]"), &ask()), Verdict::Allowed(None));
}

#[test]
fn the_trace_has_every_policys_vote_with_what_was_presented_and_what_was_wanted() {
    let text = named(
        "shop",
        "allow",
        "ALLOW",
        "[{from: [{source: {namespaces: [ops, dev]}}]}, {to: [{operation: {notMethods: [GET]}}]}]",
    ) + &named("shop", "deny", "DENY", "[{to: [{operation: {ports: ['9090']}}]}]")
        + &named("root", "audit", "AUDIT", "[{}]");
    assert_eq!(
        explain(&text, &ask()).to_string(),
        "denied: none of 1 ALLOW policies matches: nearest is AuthorizationPolicy shop/allow rules[0], which \
         from[0].source.namespaces excludes\n\
         AUDIT AuthorizationPolicy root/audit: rules[0] matches\n\
         DENY AuthorizationPolicy shop/deny: does not match\n  \
         rules[0].to[0].operation.ports: the port is \"8080\", and must be one of 9090\n\
         ALLOW AuthorizationPolicy shop/allow: does not match\n  \
         rules[0].from[0].source.namespaces: the namespace is \"web\", and must be one of ops, dev\n  \
         rules[1].to[0].operation.notMethods: the method is \"GET\", and must be none of GET\n"
    );
}

#[test]
fn a_trace_shows_no_header_and_no_claim() {
    let text = policy(
        "ALLOW",
        "[{when: [{key: 'request.headers[authorization]', values: [x]}]}, \
         {when: [{key: 'request.auth.claims[c]', values: [x]}]}]",
    );
    let ask = ask()
        .header("authorization", "Bearer SECRET")
        .claims(serde_json::json!({"c": "SECRET"}));
    let trace = explain(&text, &ask).to_string();
    assert!(!trace.contains("SECRET"), "{trace}");
    assert!(
        trace.contains("the header authorization is absent or not shown"),
        "{trace}"
    );
}

#[test]
fn policies_that_do_not_concern_the_workload_are_told_apart_with_the_reason() {
    let set = sound(
        &(named("bank", "a", "ALLOW", "[]")
            + &policy("ALLOW", "[]").replace("spec: {", "spec: {selector: {matchLabels: {app: other}}, ")
            + &named("root", "c", "ALLOW", "[]")),
    );
    let found: Vec<String> = set
        .out_of_scope(&workload(), &mesh())
        .map(|(object, why)| format!("{object} {why}"))
        .collect();
    assert_eq!(
        found,
        [
            "AuthorizationPolicy bank/a is in another namespace",
            "AuthorizationPolicy shop/p selects other labels"
        ]
    );
}
