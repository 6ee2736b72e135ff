use crate::config::{Config, EndpointProfile, ForeignSource, Raw};
use signet_runtime::config::from_text;
use std::time::Duration;

fn check(text: &str) -> Result<Config, String> {
    let text = format!("state_directory: /x\ntrust_domain: own.test\n{text}");
    let raw: Raw = from_text(&text).map_err(|e| e.to_string())?;
    Config::check(raw).map_err(|e| e.to_string())
}

#[test]
fn tokens_live_five_minutes_and_at_most_an_hour_unless_told_otherwise() {
    let trust = check("").unwrap().trust;
    let ttl = trust.jwt.ttl;
    assert_eq!((ttl.default.as_secs(), ttl.max.as_secs()), (300, 3600));
    assert_eq!(trust.jwt.key_life, Duration::from_secs(7 * 86_400));
    assert!(trust.oidc.is_none() && trust.endpoint.is_none() && trust.federation.is_empty());
}

#[test]
fn lives_out_of_bounds_and_issuers_that_are_no_url_are_faults() {
    for (text, fault) in [
        ("jwt_svid: {ttl: 5s}", "jwt_svid.ttl: 5s is below the least, 10s"),
        (
            "jwt_svid: {ttl: 2h}",
            "jwt_svid.ttl: 2h is above jwt_svid.max_ttl, 1h",
        ),
        (
            "jwt_svid: {max_ttl: 25h}",
            "jwt_svid.max_ttl: 1d1h is above the most, 1d",
        ),
        (
            "jwt_svid: {key_life: 30m}",
            "jwt_svid.key_life: 30m is below 40m, twice the time",
        ),
        ("jwt_svid: {issuer: 'http://a.test'}", "is no issuer URL"),
        ("jwt_svid: {issuer: 'https://a.test/'}", "is no issuer URL"),
        ("jwt_svid: {issuer: 'https://a.test/?q'}", "is no issuer URL"),
        ("jwt_svid: {isuer: 'https://a.test'}", "isuer"),
        ("oidc_listen: '127.0.0.1:0'", "oidc_listen: needs jwt_svid.issuer"),
    ] {
        let faults = check(text).unwrap_err();
        assert!(faults.contains(fault), "{text}: {faults}");
    }
}

#[test]
fn an_endpoint_needs_its_profile_and_what_belongs_to_it() {
    let web =
        "bundle_endpoint: {listen: '0.0.0.0:8443', profile: https_web, certificate_file: /c, key_file: /k}";
    let endpoint = check(web).unwrap().trust.endpoint.unwrap();
    assert!(matches!(endpoint.profile, EndpointProfile::Web { .. }));
    let spiffe = "bundle_endpoint: {listen: '0.0.0.0:8443', profile: https_spiffe}";
    let endpoint = check(spiffe).unwrap().trust.endpoint.unwrap();
    assert_eq!(endpoint.profile, EndpointProfile::Spiffe);
    for (text, fault) in [
        ("{listen: '0.0.0.0:1'}", "a profile is never guessed"),
        (
            "{listen: '0.0.0.0:1', profile: web}",
            "is neither \"https_web\" nor \"https_spiffe\"",
        ),
        (
            "{listen: '0.0.0.0:1', profile: https_web}",
            "needs certificate_file and key_file",
        ),
        (
            "{listen: '0.0.0.0:1', profile: https_spiffe, key_file: /k}",
            "leave certificate_file",
        ),
        ("{profile: https_spiffe}", "name the address and port"),
    ] {
        let faults = check(&format!("bundle_endpoint: {text}")).unwrap_err();
        assert!(faults.contains(fault), "{text}: {faults}");
    }
}

#[test]
fn a_relationship_has_three_explicit_parameters_and_none_is_inferred() {
    let entry = |text: &str| check(&format!("federation: [{text}]"));
    let web = entry("{trust_domain: a.test, url: 'https://a.test/b', profile: https_web}").unwrap();
    assert!(matches!(
        web.trust.federation[0].source,
        ForeignSource::Web { .. }
    ));
    entry("{trust_domain: a.test, bundle_file: /b}").unwrap();
    let own = "endpoint_spiffe_id: 'spiffe://own.test/x'";
    entry(&format!(
        "{{trust_domain: a.test, url: 'https://h/', profile: https_spiffe, {own}}}"
    ))
    .unwrap();
    for (text, fault) in [
        (
            "{url: 'https://a.test/', profile: https_web}",
            "name the trust_domain",
        ),
        (
            "{trust_domain: a.test, url: 'https://a.test/'}",
            "a profile is never guessed",
        ),
        (
            "{trust_domain: a.test, profile: https_web}",
            "belong to a url, which is missing",
        ),
        (
            "{trust_domain: a.test}",
            "name a url with its profile, or a bundle_file",
        ),
        (
            "{trust_domain: own.test, bundle_file: /b}",
            "own.test is our own trust domain",
        ),
        (
            "{trust_domain: a.test, bundle_file: /b}, {trust_domain: a.test, bundle_file: /c}",
            "a.test is named twice",
        ),
        (
            "{trust_domain: a.test, url: 'http://a.test/', profile: https_web}",
            "federation[0].url",
        ),
        (
            "{trust_domain: a.test, url: 'https://u@a.test/', profile: https_web}",
            "federation[0].url",
        ),
        (
            "{trust_domain: a.test, url: 'https://a.test/', profile: https_spiffe}",
            "needs endpoint_spiffe_id",
        ),
        (
            "{trust_domain: a.test, url: 'https://a.test/', profile: https_spiffe, endpoint_spiffe_id: 'spiffe://a.test/s'}",
            "give a first one as bundle_file",
        ),
        (
            "{trust_domain: a.test, url: 'https://a.test/', profile: https_spiffe, endpoint_spiffe_id: 'spiffe://b.test/s'}",
            "b.test is neither ours nor federated",
        ),
        (
            "{trust_domain: a.test, url: 'https://a.test/', profile: https_web, endpoint_spiffe_id: 'spiffe://a.test/s'}",
            "endpoint_spiffe_id belongs to https_spiffe",
        ),
    ] {
        let faults = entry(text).unwrap_err();
        assert!(faults.contains(fault), "{text}: {faults}");
    }
}

#[test]
fn what_is_printed_is_read_again_as_it_was() {
    let config = check(
        "jwt_svid: {ttl: 1m, issuer: 'https://oidc.test/a', key_file: /k}\n\
         oidc_listen: '127.0.0.1:8080'\n\
         bundle_endpoint: {listen: '0.0.0.0:8443', profile: https_spiffe}\n\
         federation:\n\
         - {trust_domain: a.test, url: 'https://a.test:8443/b?x=1', profile: https_web, ca_file: /ca}\n\
         - {trust_domain: b.test, url: 'https://b.test/', profile: https_spiffe, \
            endpoint_spiffe_id: 'spiffe://b.test/ca', bundle_file: /b}\n\
         - {trust_domain: c.test, bundle_file: /c}\n",
    )
    .unwrap();
    let raw: Raw = from_text(&config.print()).unwrap();
    assert_eq!(Config::check(raw).unwrap().trust, config.trust);
}
