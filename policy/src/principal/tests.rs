use super::*;

fn local(own: &str, aliases: &[&str]) -> LocalDomains {
    LocalDomains::new(
        own.parse().unwrap(),
        aliases.iter().map(|alias| alias.parse().unwrap()),
    )
}

fn expanded(domains: &LocalDomains, value: &str) -> Vec<String> {
    let all = domains.expand_principal(&Pattern::new(value));
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn a_principal_of_ours_means_every_domain_of_ours() {
    let domains = local("new-td", &["old-td"]);
    for value in ["new-td/ns/a/sa/b", "old-td/ns/a/sa/b", "cluster.local/ns/a/sa/b"] {
        assert_eq!(
            expanded(&domains, value),
            ["new-td/ns/a/sa/b", "old-td/ns/a/sa/b"],
            "{value}"
        );
    }
    assert_eq!(
        expanded(&domains, "cluster.local/ns/a/sa/*"),
        ["new-td/ns/a/sa/*", "old-td/ns/a/sa/*"]
    );
}

#[test]
fn the_pointer_is_not_kept_unless_it_is_a_domain_of_ours() {
    assert_eq!(
        expanded(&local("td", &[]), "cluster.local/ns/a/sa/b"),
        ["td/ns/a/sa/b"]
    );
    assert_eq!(
        expanded(&local("td", &["cluster.local"]), "cluster.local/ns/a/sa/b"),
        ["td/ns/a/sa/b", "cluster.local/ns/a/sa/b"]
    );
}

#[test]
fn what_names_no_domain_of_ours_stays_as_it_is() {
    let domains = local("td", &["old"]);
    for value in [
        "partner/ns/a/sa/b",
        "*/ns/a/sa/b",
        "*",
        "cluster.local/ns/a/*",
        "td/ns/a",
        "*/sa/b",
        "spiffe://td/ns/a/sa/b",
    ] {
        assert_eq!(expanded(&domains, value), [value]);
    }
}

#[test]
fn a_starred_domain_is_kept_where_it_fits_and_replaced_where_not() {
    let domains = local("new-td", &["old-td", "else"]);
    assert_eq!(
        expanded(&domains, "*-td/ns/a/sa/b"),
        ["*-td/ns/a/sa/b", "else/ns/a/sa/b"]
    );
    assert_eq!(expanded(&domains, "*-x/ns/a/sa/b"), ["*-x/ns/a/sa/b"]);
}

#[test]
fn trust_domains_expand_on_exact_membership_without_the_pointer() {
    let domains = local("td", &["old"]);
    let all = |value: &str| {
        let all = domains.expand_domain(&Pattern::new(value));
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(all("old"), ["td", "old"]);
    assert_eq!(all("cluster.local"), ["cluster.local"]);
    assert_eq!(all("ol*"), ["ol*"]);
}

#[test]
fn a_request_principal_splits_at_the_last_slash() {
    for (value, issuer, subject, expected) in [
        ("https://idp/realm/bob", "https://idp/realm", "bob", true),
        ("https://idp/realm/bob", "https://idp", "realm/bob", false),
        ("*", "i", "s", true),
        ("*", "i", "", false),
        ("*", "", "s", false),
        ("*/bob", "any", "bob", true),
        ("*/bob", "any", "rob", false),
        ("*.idp/bob", "a.idp", "bob", true),
        ("*.idp/bob", "a.idp", "rob", false),
        ("idp/*", "idp", "x", true),
        ("idp/*", "idp", "", false),
        ("idp/b*", "idp", "bob", true),
        ("idp/b*", "idp2", "bob", false),
        ("*ob", "any", "bob", true),
        ("idp*", "idp2", "x", true),
        ("idp*", "idp2", "", false),
        ("idp", "idp", "", true),
        ("idp", "idp", "x", false),
        ("*/*", "any", "*", true),
        ("*/*", "any", "bob", false),
    ] {
        let rule = RequestPrincipal::new(value);
        assert_eq!(
            rule.matches(issuer, subject),
            expected,
            "{value} {issuer} {subject}"
        );
        if expected {
            let joined = format!("{issuer}/{subject}");
            assert!(
                rule.joined().matches(joined.as_bytes(), Fold::Exact),
                "{value} {joined}"
            );
        }
    }
}

#[test]
fn accounts_are_names_and_nothing_else() {
    assert_eq!(Account::new("b", "a").unwrap().in_path(), "a/sa/b");
    assert_eq!(Account::new("c/b.d", "a").unwrap().in_path(), "c/sa/b.d");
    for text in [
        "*",
        "a/*",
        "a/b/c",
        "spiffe://td/ns/a/sa/b",
        "A",
        &"a".repeat(321),
    ] {
        assert!(Account::new(text, "ns").is_err(), "{text}");
    }
}

#[test]
fn a_trust_domain_pattern_has_one_star_at_an_end() {
    for text in ["td", "*", "*.td", "td*"] {
        assert!(trust_domain_pattern(text).is_ok(), "{text}");
    }
    for text in ["*td*", "t*d", "td/x", "**"] {
        assert!(trust_domain_pattern(text).is_err(), "{text}");
    }
}
