//! Identity and trust domains (§4), and what becomes of identity rules without mutual TLS (§10).

use crate::support::{Ask, ask, judge, matches, policy};

fn source(fields: &str) -> String {
    format!("{{from: [{{source: {{{fields}}}}}]}}")
}

fn allowed(action: &str, rule: &str, ask: &Ask) -> bool {
    judge(&policy(action, &format!("[{rule}]")), ask).is_allowed()
}

#[test]
fn principals_of_ours_mean_all_our_domains_and_cluster_local_points_at_them() {
    for value in [
        "td/ns/web/sa/front",
        "old/ns/web/sa/front",
        "cluster.local/ns/web/sa/front",
    ] {
        let rule = source(&format!("principals: [{value}]"));
        for (domain, expected) in [
            ("td", true),
            ("old", true),
            ("cluster.local", false),
            ("partner", false),
        ] {
            let peer = ask().peer(&format!("{domain}/ns/web/sa/front"));
            assert_eq!(matches(&rule, &peer), expected, "{value} {domain}");
        }
    }
    let foreign = source("principals: [partner/ns/web/sa/front]");
    assert!(matches(&foreign, &ask().peer("partner/ns/web/sa/front")));
    assert!(!matches(&foreign, &ask()));
}

#[test]
fn trust_domains_expand_by_name_only() {
    for (value, domain, expected) in [
        ("td", "old", true),
        ("old", "td", true),
        ("cluster.local", "td", false),
        ("partner", "partner", true),
        ("*", "partner", true),
        ("part*", "partner", true),
        ("*ner", "partner", true),
        ("t*", "old", false),
    ] {
        let rule = source(&format!("trustDomains: ['{value}']"));
        let peer = ask().peer(&format!("{domain}/ns/web/sa/front"));
        assert_eq!(matches(&rule, &peer), expected, "{value} {domain}");
    }
}

#[test]
fn namespaces_and_accounts_mean_our_domains_unless_trust_domains_stand_beside_them() {
    let ours = ask().peer("old/ns/web/sa/front");
    let foreign = ask().peer("partner/ns/web/sa/front");
    for field in ["namespaces: [web]", "serviceAccounts: [web/front]"] {
        assert!(matches(&source(field), &ours), "{field}");
        assert!(!matches(&source(field), &foreign), "{field}");
        let beside = source(&format!("{field}, trustDomains: [partner]"));
        assert!(matches(&beside, &foreign), "{field}");
        assert!(!matches(&beside, &ours), "{field}");
        assert!(
            !matches(&source(&format!("{field}, notTrustDomains: [x]")), &foreign),
            "{field}"
        );
    }
    for (key, value) in [
        ("source.namespace", "web"),
        ("source.serviceAccount", "web/front"),
    ] {
        let alone = format!("{{when: [{{key: {key}, values: [{value}]}}]}}");
        assert!(matches(&alone, &ours), "{key}");
        assert!(!matches(&alone, &foreign), "{key}");
        let beside = format!(
            "{{when: [{{key: {key}, values: [{value}]}}, {{key: source.trustDomain, values: [partner]}}]}}"
        );
        assert!(matches(&beside, &foreign), "{key}");
        let by_source = format!(
            "{{from: [{{source: {{trustDomains: [partner]}}}}], when: [{{key: {key}, values: [{value}]}}]}}"
        );
        assert!(matches(&by_source, &foreign), "{key}");
    }
}

#[test]
fn an_explicit_domain_in_one_source_does_not_open_another() {
    let rule = "{from: [{source: {trustDomains: [partner]}}, {source: {ipBlocks: [10.0.0.0/8]}}], \
                when: [{key: source.namespace, values: [web]}]}";
    assert!(matches(rule, &ask().peer("partner/ns/web/sa/a")));
    assert!(matches(rule, &ask().peer("td/ns/web/sa/a")));
    assert!(!matches(rule, &ask().peer("other/ns/web/sa/a")));
}

#[test]
fn a_foreign_peer_gains_nothing_from_names_that_must_not_match() {
    let foreign = ask().peer("partner/ns/web/sa/front");
    for field in ["notNamespaces: [web]", "notServiceAccounts: [web/front]"] {
        assert!(!allowed("ALLOW", &source(field), &foreign), "{field}");
        assert!(!allowed("DENY", &source(field), &foreign), "{field}");
        let beside = source(&format!("{field}, trustDomains: [partner]"));
        assert!(!allowed("ALLOW", &beside, &foreign), "{field}");
        assert!(allowed("DENY", &beside, &foreign), "{field}");
        let ours = ask().peer("td/ns/web/sa/front");
        assert!(!matches(&source(field), &ours), "{field}");
        let others = ask().peer("partner/ns/ops/sa/other");
        assert!(matches(&source(field), &others), "{field}");
    }
}

#[test]
fn without_an_identity_positive_fields_never_match_and_negated_ones_always_do() {
    let plaintext = ask().plaintext();
    for (field, negated, value) in [
        ("principals", "notPrincipals", "'*'"),
        ("namespaces", "notNamespaces", "web"),
        ("serviceAccounts", "notServiceAccounts", "web/front"),
        ("trustDomains", "notTrustDomains", "'*'"),
    ] {
        assert!(
            !matches(&source(&format!("{field}: [{value}]")), &plaintext),
            "{field}"
        );
        assert!(
            matches(&source(&format!("{negated}: [{value}]")), &plaintext),
            "{negated}"
        );
    }
    for key in ["source.principal", "source.namespace", "source.trustDomain"] {
        assert!(
            !matches(&format!("{{when: [{{key: {key}, values: ['*']}}]}}"), &plaintext),
            "{key}"
        );
        assert!(
            matches(
                &format!("{{when: [{{key: {key}, notValues: ['*']}}]}}"),
                &plaintext
            ),
            "{key}"
        );
    }
}

#[test]
fn any_identity_can_be_demanded() {
    let rule = source("principals: ['*']");
    assert!(matches(&rule, &ask().peer("anybody")));
    assert!(!matches(&rule, &ask().plaintext()));
}
