//! Value matching (§3): fields of sources and operations.

use crate::support::{ask, matches};

fn source(field: &str, value: &str) -> String {
    format!("{{from: [{{source: {{{field}: ['{value}']}}}}]}}")
}

fn operation(field: &str, value: &str) -> String {
    format!("{{to: [{{operation: {{{field}: ['{value}']}}}}]}}")
}

#[test]
fn principals_are_ids_without_the_scheme() {
    for (value, peer, expected) in [
        ("td/ns/web/sa/front", "td/ns/web/sa/front", true),
        ("td/ns/web/sa/front", "td/ns/web/sa/frontx", false),
        ("td/ns/web/sa/Front", "td/ns/web/sa/front", false),
        ("td/ns/web/*", "td/ns/web/sa/front", true),
        ("td/ns/web/*", "tdx/ns/web/sa/front", false),
        ("*/sa/front", "partner/ns/any/sa/front", true),
        ("*ront", "td/ns/web/sa/front", true),
        ("*", "partner/anything", true),
        ("*/ns/web/sa/*", "td/ns/web/sa/front", false),
        ("spiffe://td/ns/web/sa/front", "td/ns/web/sa/front", false),
        ("spiffe://*", "td/ns/web/sa/front", false),
        ("td.ns/web", "tdxns/web", false),
    ] {
        let rule = source("principals", value);
        assert_eq!(matches(&rule, &ask().peer(peer)), expected, "{value} {peer}");
    }
}

#[test]
fn namespaces_are_a_segment_in_which_every_star_counts() {
    for (value, peer, expected) in [
        ("web", "td/ns/web/sa/x", true),
        ("web", "td/ns/webx/sa/x", false),
        ("w*b", "td/ns/web/sa/x", true),
        ("w*b", "td/ns/web-x/sa/b", false),
        ("*e*", "td/ns/web/sa/x", true),
        ("*", "td/ns/web/sa/x", true),
        ("*", "td/other/web", false),
        ("w.b", "td/ns/web/sa/x", false),
        ("we*", "td/ns/web/sa/x", true),
        ("web", "td/x/ns/web/sa/x", false),
        ("web", "td/ns/web", false),
    ] {
        let rule = source("namespaces", value);
        assert_eq!(matches(&rule, &ask().peer(peer)), expected, "{value} {peer}");
    }
}

#[test]
fn service_accounts_are_whole_names_in_the_policys_namespace_unless_they_name_one() {
    for (value, peer, expected) in [
        ("front", "td/ns/shop/sa/front", true),
        ("front", "td/ns/web/sa/front", false),
        ("web/front", "td/ns/web/sa/front", true),
        ("web/front", "td/ns/web/sa/front/more", true),
        ("web/front", "td/ns/web/sa/front-x", false),
        ("web/fr.nt", "td/ns/web/sa/front", false),
        ("web/fr.nt", "td/ns/web/sa/fr.nt", true),
    ] {
        let rule = source("serviceAccounts", value);
        assert_eq!(matches(&rule, &ask().peer(peer)), expected, "{value} {peer}");
    }
}

#[test]
fn address_blocks_hold_addresses_of_their_family() {
    for (value, ip, expected) in [
        ("10.1.2.3", "10.1.2.3", true),
        ("10.1.0.0/16", "10.1.255.255", true),
        ("10.1.0.0/16", "10.2.0.0", false),
        ("10.1.0.0/16", "::ffff:10.1.2.3", true),
        ("::ffff:10.1.2.3", "10.1.2.3", true),
        ("fd00::/8", "fd00::1", true),
        ("::/0", "10.1.2.3", false),
    ] {
        assert_eq!(
            matches(&source("ipBlocks", value), &ask().source_ip(ip)),
            expected,
            "{value} {ip}"
        );
    }
}

#[test]
fn remote_blocks_see_the_client_and_blocks_see_the_peer() {
    let mut ask = ask().source_ip("10.0.0.1");
    ask.remote = Some("192.0.2.7".to_owned());
    assert!(matches(&source("remoteIpBlocks", "192.0.2.0/24"), &ask));
    assert!(!matches(&source("remoteIpBlocks", "10.0.0.0/8"), &ask));
    assert!(matches(&source("ipBlocks", "10.0.0.0/8"), &ask));
    assert!(matches(&source("notRemoteIpBlocks", "10.0.0.0/8"), &ask));
}

#[test]
fn hosts_are_the_authority_with_its_port_in_any_case() {
    for (value, host, expected) in [
        ("example.com", "EXAMPLE.com", true),
        ("example.com", "example.com:8080", false),
        ("example.com:*", "example.com:8080", true),
        ("*.Example.com", "a.example.COM", true),
        ("*.example.com", "example.com", false),
        ("*", "anything", true),
    ] {
        assert_eq!(
            matches(&operation("hosts", value), &ask().host(host)),
            expected,
            "{value} {host}"
        );
    }
}

#[test]
fn methods_and_ports_are_compared_as_they_are() {
    for (value, method, expected) in [("GET", "GET", true), ("GET", "get", false), ("P*", "PUT", true)] {
        assert_eq!(
            matches(&operation("methods", value), &ask().method(method)),
            expected,
            "{value}"
        );
    }
    assert!(matches(&operation("ports", "8080"), &ask().port(8080)));
    assert!(!matches(&operation("ports", "8080"), &ask().port(80)));
    assert!(matches(&operation("notPorts", "80"), &ask().port(8080)));
}

#[test]
fn paths_are_string_rules_or_templates_over_the_normalised_path() {
    for (value, path, expected) in [
        ("/api/v1/*", "/api/v1/x", true),
        ("/api/v1/*", "/api/v1", false),
        ("/api/v1/*", "/api/v1/../v2/x", false),
        ("/admin", "/x/%2e%2e/admin", true),
        ("/admin", "/admin?x=1", true),
        ("/admin", "/admin#x", true),
        ("/admin", "/Admin", false),
        ("*.html", "/a/b.html", true),
        ("*", "/", true),
        ("/shop.Cart/Get", "/shop.Cart/Get", true),
        ("/a/{*}/c", "/a/b/c", true),
        ("/a/{*}/c", "/a/*/c", true),
        ("/a/{*}/c", "/a/b/d/c", false),
        ("/a/{**}", "/a/b/c", true),
        ("/a/{**}", "/a", false),
        ("/a/{**}/c", "/a/b/b/c", true),
    ] {
        assert_eq!(
            matches(&operation("paths", value), &ask().path(path)),
            expected,
            "{value} {path}"
        );
    }
}
