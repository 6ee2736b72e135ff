//! RequestAuthentication (§1, §11): what is read and which rules a workload has.

use std::time::Duration;

use signet_policy::model::request::KeySource;
use signet_policy::tokens::TokenRules;

use crate::support::{faults, mesh, sound, workload};

fn request(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn rules(text: &str) -> TokenRules {
    sound(text).in_force(&workload(), &mesh()).tokens
}

#[test]
fn every_field_is_read() {
    let text = request(
        "shop",
        "a",
        "jwtRules: [{issuer: i, audiences: [a, b], jwksUri: 'https://idp/keys', \
         fromHeaders: [{name: X-Token, prefix: 'T '}, {name: y}], fromParams: [p], fromCookies: [c], \
         outputPayloadToHeader: X-Payload, forwardOriginalToken: true, \
         outputClaimToHeaders: [{header: X-Sub, claim: realm.sub}], timeout: 1.5s, spaceDelimitedClaims: [w]}]",
    );
    let rules = rules(&text);
    let rule = &rules.rules()[0];
    assert_eq!(rule.issuer.as_deref(), Some("i"));
    assert_eq!(rule.audiences, ["a", "b"]);
    assert_eq!(rule.keys, KeySource::Uri("https://idp/keys".to_owned()));
    let headers = [("x-token", "T "), ("y", "")].map(|(name, prefix)| (name.to_owned(), prefix.to_owned()));
    assert_eq!(rule.locations.headers, headers);
    assert_eq!(
        (rule.locations.params.len(), rule.locations.cookies.len()),
        (1, 1)
    );
    assert_eq!(rule.outputs.payload.as_deref(), Some("x-payload"));
    assert_eq!(
        rule.outputs.claims,
        [("x-sub".to_owned(), vec!["realm".to_owned(), "sub".to_owned()])]
    );
    assert!(rule.outputs.forward);
    assert_eq!(rule.timeout, Duration::from_millis(1500));
    assert_eq!(rule.space_delimited, ["w"]);
}

#[test]
fn what_is_left_out_has_the_references_default() {
    let rules = rules(&request("shop", "a", "jwtRules: [{issuer: i}]"));
    let rule = &rules.rules()[0];
    assert_eq!(rule.keys, KeySource::Discovery);
    assert_eq!(
        rule.locations.headers,
        [("authorization".to_owned(), "Bearer ".to_owned())]
    );
    assert_eq!(rule.locations.params, ["access_token"]);
    assert!(rule.locations.cookies.is_empty() && rule.audiences.is_empty());
    assert!(!rule.outputs.forward);
    assert_eq!(rule.timeout, Duration::from_secs(5));
}

#[test]
fn any_place_of_its_own_replaces_the_default_places() {
    let text = request("shop", "a", "jwtRules: [{issuer: i, fromCookies: [c]}]");
    let rules = rules(&text);
    let locations = &rules.rules()[0].locations;
    assert!(locations.headers.is_empty() && locations.params.is_empty());
}

#[test]
fn rules_of_all_objects_in_scope_are_joined_and_sorted_by_issuer() {
    let text = request("shop", "a", "jwtRules: [{issuer: z}, {issuer: b}]")
        + &request("root", "b", "jwtRules: [{issuer: b, audiences: [x]}]")
        + &request("bank", "c", "jwtRules: [{issuer: a}]")
        + &request(
            "shop",
            "d",
            "selector: {matchLabels: {app: other}}, jwtRules: [{issuer: a}]",
        );
    let rules = rules(&text);
    let issuers: Vec<_> = rules
        .rules()
        .iter()
        .map(|rule| rule.issuer.as_deref().unwrap())
        .collect();
    assert_eq!(issuers, ["b", "b", "z"]);
    assert!(sound("").in_force(&workload(), &mesh()).tokens.is_empty());
}

#[test]
fn what_cannot_be_used_is_refused() {
    for (rule, expected) in [
        ("audiences: [a]", "a rule without issuer needs jwksUri"),
        ("issuer: ''", "issuer: is empty"),
        ("issuer: i, audiences: ['']", "audiences[0]: is empty"),
        (
            "issuer: i, jwks: '{\"keys\":[]}', jwksUri: 'https://x'",
            "exclude one another",
        ),
        ("issuer: i, jwks: 'nope'", "not a JSON Web Key Set: it is no JSON"),
        ("issuer: i, jwks: '{}'", "has no list under"),
        ("issuer: i, jwks: '{\"keys\":[{}]}'", "a key has no type"),
        ("issuer: i, jwksUri: 'ftp://x'", "is not an http or https URL"),
        ("issuer: i, jwksUri: 'https://'", "is not an http or https URL"),
        (
            "issuer: i, jwksUri: 'https://user@host/'",
            "is not an http or https URL",
        ),
        ("issuer: i, timeout: 5", "must be text, not a number"),
        ("issuer: i, timeout: '5'", "is not a duration"),
        ("issuer: i, timeout: 0s", "is not a duration"),
        ("issuer: i, fromHeaders: [{prefix: x}]", "name: missing"),
        ("issuer: i, fromHeaders: [{name: 'a b'}]", "is not a header name"),
        (
            "issuer: i, forwardOriginalToken: 'yes'",
            "must be true or false, not text",
        ),
        ("issuer: i, outputClaimToHeaders: [{header: h}]", "claim: missing"),
        ("issuer: i, fromHeader: []", "did you mean fromHeaders?"),
        ("issuer: i, jwks_uri: x", "unknown field"),
    ] {
        let found = faults(&request("shop", "a", &format!("jwtRules: [{{{rule}}}]")));
        assert_eq!(found.len(), 1, "{rule}: {found:?}");
        assert!(found[0].contains(expected), "{rule}: {found:?}");
    }
    let split: Vec<String> = (0..65).map(|n| format!("c{n}")).collect();
    let text = format!(
        "jwtRules: [{{issuer: i, spaceDelimitedClaims: [{}]}}]",
        split.join(", ")
    );
    assert!(faults(&request("shop", "a", &text))[0].contains("at most 64"));
    let uri = format!("jwtRules: [{{jwksUri: 'https://h/{}'}}]", "x".repeat(2048));
    assert!(faults(&request("shop", "a", &uri))[0].contains("is not an http or https URL"));
}

#[test]
fn a_fault_in_a_key_set_repeats_none_of_it() {
    let text = request("shop", "a", "jwtRules: [{issuer: i, jwks: '{\"d\":\"SECRET\"}'}]");
    assert!(!faults(&text)[0].contains("SECRET"));
}
