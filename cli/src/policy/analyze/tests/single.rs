//! What the table of mistakes does not say of single codes.

use super::*;

/// Labels of an Istio guard nobody: only a proxy in the pods does, as the template or a pod of it shows.
#[test]
fn a_namespace_that_is_labelled_for_an_istio_is_guarded_only_by_a_proxy_in_its_pods() {
    let bare = policy("{}") + &cart(HTTP).replace("signet-proxy", "helper");
    for label in [
        "istio-injection: enabled",
        "istio.io/rev: stable",
        "istio.io/dataplane-mode: ambient",
    ] {
        let labelled = bare.clone() + &namespace(&format!("labels: {{{label}}}"));
        assert!(codes(&labelled).contains(&Code::NotEnrolled), "{label}");
        let injected = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart-0, namespace: shop, labels: {app: cart, hash: a}}\n\
                        spec: {serviceAccountName: cart, containers: [{name: istio-proxy, image: p}]}\n---\n";
        let guarded = codes(&(labelled + injected));
        assert!(!guarded.contains(&Code::NotEnrolled), "{label}: {guarded:?}");
    }
}

#[test]
fn a_pod_that_is_taken_out_of_ambient_mode_is_not_in_it() {
    let ambient = policy(&to("ALLOW", "methods: [GET]"))
        + &namespace("labels: {istio.io/dataplane-mode: ambient}")
        + &cart(HTTP).replace("signet-proxy", "helper");
    assert!(codes(&ambient).contains(&Code::HttpInAmbient));
    let out = ambient.replace("{app: cart}", "{app: cart, istio.io/dataplane-mode: none}");
    assert!(!codes(&out).contains(&Code::HttpInAmbient));
    let tcp = ambient.replace("methods: [GET]", "ports: [\"8080\"]");
    assert!(!codes(&tcp).contains(&Code::HttpInAmbient));
}

#[test]
fn cluster_local_is_a_literal_in_patterns_and_in_trust_domains() {
    for (source, literal) in [
        ("principals: [\"cluster.local/ns/a/*\"]", true),
        ("notPrincipals: [\"cluster.local/*\"]", true),
        ("trustDomains: [cluster.local]", true),
        ("principals: [\"cluster.local/ns/a/sa/*\"]", false),
        ("principals: [\"*/ns/a/sa/b\", \"cluster.*\"]", false),
        ("principals: [\"mesh.example/ns/a/*\"]", false),
        ("trustDomains: [mesh.example, far.example]", false),
    ] {
        let text = policy(&from(source));
        let found = codes_in("mesh.example", &text).contains(&Code::LiteralDomain);
        assert_eq!(found, literal, "{source}");
        assert!(
            !codes(&text).contains(&Code::LiteralDomain),
            "{source} where it is ours"
        );
    }
    let far = policy(&from("principals: [\"far.example/ns/a/*\"]"));
    assert!(codes(&far).contains(&Code::ForeignDomain));
}

#[test]
fn a_key_set_is_of_use_only_with_a_key_that_verifies() {
    let set = |keys: &str| {
        tokens(&format!(
            "{{issuer: a, audiences: [b], jwks: '{{\"keys\":[{keys}]}}'}}"
        ))
    };
    let oct = "{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}";
    assert!(codes(&set("")).contains(&Code::NoUsableKey));
    assert!(codes(&set(oct)).contains(&Code::NoUsableKey));
    assert!(!codes(&set(&format!("{oct},{PUBLIC}}}"))).contains(&Code::NoUsableKey));
}

#[test]
fn keys_are_not_looked_for_on_this_machine() {
    for address in [
        "https://localhost/k",
        "https://127.0.0.1:8443/k",
        "https://[::1]/k",
        "https://169.254.169.254/k",
    ] {
        let rule = format!("{{issuer: a, audiences: [b], jwksUri: \"{address}\"}}");
        assert!(codes(&tokens(&rule)).contains(&Code::KeysInClear), "{address}");
    }
}

#[test]
fn a_deny_of_whoever_has_no_identity_closes_the_gap() {
    let deny = "{action: DENY, rules: [{from: [{source: {namespaces: [dev]}}]}]}";
    let nobody = "{action: DENY, rules: [{from: [{source: {notPrincipals: [\"*\"]}}]}]}";
    let closed = policy(deny) + &policy(nobody).replace("name: p", "name: q");
    assert!(!codes(&closed).contains(&Code::PlaintextPasses));
}

#[test]
fn a_demand_for_tokens_takes_no_allow_back() {
    let allow = policy(&to("ALLOW", "methods: [GET]"));
    let demand = policy("{action: DENY, rules: [{from: [{source: {notRequestPrincipals: [\"*\"]}}]}]}");
    let both = allow + &demand.replace("name: p", "name: q") + &strict();
    let with = both.clone() + &tokens("{issuer: a, audiences: [b], jwksUri: \"https://a.example\"}");
    assert!(!codes(&with).contains(&Code::AllowUnderDeny));
    assert!(codes(&both).contains(&Code::AllowUnderDeny), "nobody has a token");
}

#[test]
fn what_is_right_has_no_findings() {
    let all = policy("{}")
        + &strict()
        + &policy(&from("principals: [cluster.local/ns/shop/sa/cart]")).replace("name: p", "name: q")
        + &namespace("labels: {}")
        + &cart(HTTP)
        + &service("ports: [{port: 80, targetPort: 8080, name: http}]");
    assert_eq!(codes(&all), []);
}
