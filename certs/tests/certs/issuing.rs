//! What an authority writes, fact by fact, and what it will not write.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::certificate::{BasicConstraints, Certificate, ExtendedKeyUsage, KeyUsage};
use signet_certs::issue::IssueError;
use signet_certs::lifetime::{MAX_BACKDATE, minus, plus};
use signet_certs::verify::{Role, verify_chain};
use signet_certs::{Authority, LeafProfile, SigningKey, SvidChain, TrustBundle, UnixTime, X509Svid, issue};

use crate::support::{ID, at, domain, id, now};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);

pub(crate) fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate().unwrap())
}

/// A root of our own making with an intermediate below it, made at `time`.
pub(crate) fn authorities(time: UnixTime) -> (Authority, Authority) {
    let root = Authority::self_signed_root(&domain(), key(), TEN_YEARS, time).unwrap();
    let issuing = root.issue_intermediate(&domain(), key(), 14 * DAY, time).unwrap();
    (root, issuing)
}

pub(crate) fn bundle(root: &Authority) -> TrustBundle {
    TrustBundle::new(domain(), vec![root.certificate().clone()], 1).unwrap()
}

pub(crate) fn profile(ttl: Duration) -> LeafProfile {
    LeafProfile {
        id: id(),
        ttl,
        min_left: Duration::from_secs(60),
        dns: Vec::new(),
    }
}

fn issued(authority: &Authority, ttl: Duration) -> SvidChain {
    issue(&profile(ttl), key().public_key(), authority, now()).unwrap()
}

#[test]
fn a_leaf_says_what_the_profile_says_and_nothing_more() {
    let (root, issuing) = authorities(now());
    let key = key();
    let chain = issue(&profile(DAY), key.public_key(), &issuing, now()).unwrap();
    let leaf = chain.leaf();
    assert_eq!(chain.id(), &id());
    assert_eq!(leaf.names().uris, [ID]);
    assert!(leaf.names().dns.is_empty() && leaf.names().others.is_empty() && leaf.names().critical);
    assert_eq!(leaf.subject().text(), "");
    assert_eq!(leaf.issuer(), issuing.certificate().subject());
    assert_eq!(leaf.public_key(), Ok(key.public_key()));
    assert_eq!(
        (leaf.not_before(), leaf.not_after()),
        (minus(now(), MAX_BACKDATE), plus(now(), DAY))
    );
    assert_eq!(leaf.authority_key_id(), issuing.certificate().subject_key_id());
    let constraints = leaf.constraints();
    assert_eq!(
        constraints.basic,
        Some(BasicConstraints {
            ca: false,
            path_len: None,
            critical: true
        })
    );
    let usage = KeyUsage {
        digital_signature: true,
        key_encipherment: false,
        key_cert_sign: false,
        crl_sign: false,
        critical: true,
    };
    assert_eq!(constraints.key_usage, Some(usage));
    let both = ExtendedKeyUsage {
        server_auth: true,
        client_auth: true,
        any: false,
    };
    assert_eq!(constraints.extended, Some(both));
    assert_eq!(chain.intermediates().len(), 1);
    assert_eq!(chain.intermediates()[0].der(), issuing.certificate().der());
    assert_eq!(verify_chain(&chain, &bundle(&root), Role::Client, now()), Ok(()));
}

#[test]
fn authorities_say_what_the_standard_asks_of_them() {
    let (root, issuing) = authorities(now());
    for (authority, path_len, issuer) in [(&root, 1, &root), (&issuing, 0, &root)] {
        let certificate = authority.certificate();
        assert_eq!(certificate.names().uris, ["spiffe://cluster.local"]);
        assert!(certificate.names().dns.is_empty() && certificate.names().others.is_empty());
        let constraints = certificate.constraints();
        let basic = BasicConstraints {
            ca: true,
            path_len: Some(path_len),
            critical: true,
        };
        assert_eq!(constraints.basic, Some(basic));
        let usage = constraints.key_usage.unwrap();
        assert!(usage.key_cert_sign && usage.crl_sign && usage.critical && !usage.digital_signature);
        assert_eq!(constraints.extended, None);
        assert!(!constraints.has_name_constraints);
        assert_eq!(certificate.issuer(), issuer.certificate().subject());
        assert!(
            certificate
                .subject()
                .text()
                .contains(&authority.public_key().fingerprint())
        );
        assert_eq!(certificate.serial().len(), 16);
    }
    assert_eq!(root.presented().count(), 0, "a root never travels");
    assert_eq!(issuing.presented().count(), 1);
}

#[test]
fn extra_dns_names_come_from_the_profile_alone() {
    let (root, issuing) = authorities(now());
    let with = LeafProfile {
        dns: vec!["cart.shop.svc".into(), "cart".into()],
        ..profile(DAY)
    };
    let chain = issue(&with, key().public_key(), &issuing, now()).unwrap();
    assert_eq!(chain.leaf().names().dns, with.dns);
    assert_eq!(verify_chain(&chain, &bundle(&root), Role::Server, now()), Ok(()));
    let odd = LeafProfile {
        dns: vec!["ünicode".into()],
        ..profile(DAY)
    };
    assert_eq!(
        issue(&odd, key().public_key(), &issuing, now())
            .unwrap_err()
            .to_string(),
        "name \"ünicode\" cannot stand in a certificate"
    );
}

#[test]
fn an_id_without_a_path_is_never_a_leafs() {
    let (_, issuing) = authorities(now());
    let own = LeafProfile {
        id: domain().id(),
        ..profile(DAY)
    };
    assert!(matches!(
        issue(&own, key().public_key(), &issuing, now()),
        Err(IssueError::Profile(_))
    ));
}

#[test]
fn a_leaf_never_outlives_what_stands_above_it() {
    let (root, issuing) = authorities(now());
    let chain = issued(&issuing, 30 * DAY);
    assert_eq!(chain.leaf().not_after(), issuing.certificate().not_after());
    assert!(issuing.not_after() <= root.not_after());
    let endless = root
        .issue_intermediate(&domain(), key(), 100 * TEN_YEARS, now())
        .unwrap();
    assert_eq!(endless.not_after(), root.not_after());
    // Issued just after its authority, a leaf is not backdated beyond it.
    let young = Authority::self_signed_root(&domain(), key(), DAY, at(100)).unwrap();
    let leaf = issue(&profile(DAY), key().public_key(), &young, at(0)).unwrap();
    assert!(leaf.not_before() >= young.certificate().not_before());
}

#[test]
fn an_authority_about_to_end_issues_nothing_and_says_to_come_back() {
    let (_, issuing) = authorities(now());
    let end = issuing.not_after();
    for (left, refused) in [(61, false), (60, false), (59, true), (1, true), (0, true)] {
        let result = issue(
            &profile(DAY),
            key().public_key(),
            &issuing,
            minus(end, Duration::from_secs(left)),
        );
        let Err(error) = result else {
            assert!(!refused, "{left} s left");
            continue;
        };
        assert!(refused && error.is_transient(), "{left} s left: {error}");
        assert_eq!(
            error,
            IssueError::IssuerEnding {
                authority: issuing.id(),
                left_seconds: left
            }
        );
        assert_eq!(
            error.to_string(),
            format!(
                "issuing authority {} has {left} s left, less than the shortest lifetime",
                issuing.id()
            )
        );
    }
    assert!(issue(&profile(DAY), key().public_key(), &issuing, plus(end, DAY)).is_err());
}

#[test]
fn absurd_lifetimes_end_with_the_calendar_and_never_panic() {
    let root = Authority::self_signed_root(&domain(), key(), Duration::MAX, now()).unwrap();
    assert_eq!(root.not_after().as_secs(), 253_402_300_799);
    let chain = issued(&root, Duration::MAX);
    assert_eq!(chain.not_after(), root.not_after());
    assert_eq!(verify_chain(&chain, &bundle(&root), Role::Server, now()), Ok(()));
    let epoch = UnixTime::since_unix_epoch(Duration::ZERO);
    let early = Authority::self_signed_root(&domain(), key(), DAY, epoch).unwrap();
    assert_eq!(early.certificate().not_before(), epoch);
}

#[test]
fn years_around_the_change_of_time_format_are_written_right() {
    // RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
    let new_year_2050 = UnixTime::since_unix_epoch(Duration::from_secs(2_524_608_000));
    for time in [
        minus(new_year_2050, Duration::from_secs(1)),
        new_year_2050,
        plus(new_year_2050, DAY),
    ] {
        let (root, issuing) = authorities(time);
        let chain = issue(&profile(DAY), key().public_key(), &issuing, time).unwrap();
        assert_eq!(chain.leaf().not_after(), plus(time, DAY));
        assert_eq!(verify_chain(&chain, &bundle(&root), Role::Client, time), Ok(()));
    }
}

#[test]
fn serials_are_sixteen_bytes_and_never_repeat_even_for_one_key() {
    let (_, issuing) = authorities(now());
    let key = key();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..500 {
        let chain = issue(&profile(DAY), key.public_key(), &issuing, now()).unwrap();
        let serial = chain.leaf().serial().to_vec();
        assert_eq!(serial.len(), 16);
        assert!(serial[0] & 0x80 == 0, "a serial is positive");
        assert!(seen.insert(serial));
    }
}

#[test]
fn an_svid_needs_the_key_its_leaf_certifies() {
    let (_, issuing) = authorities(now());
    let own = key();
    let chain = issue(&profile(DAY), own.public_key(), &issuing, now()).unwrap();
    assert_eq!(X509Svid::new(chain.clone(), own).unwrap().id(), &id());
    let refused = X509Svid::new(chain, key()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "private key does not match the leaf's public key"
    );
}

#[test]
fn a_chain_reads_back_as_it_was_written() {
    let (_, issuing) = authorities(now());
    let chain = issued(&issuing, DAY);
    let pem = SvidChain::from_pem(chain.to_pem().as_bytes()).unwrap();
    let der = SvidChain::from_der(chain.to_der()).unwrap();
    for again in [&pem, &der] {
        assert_eq!(again.to_der(), chain.to_der());
        assert_eq!((again.id(), again.serial()), (chain.id(), chain.serial()));
    }
    assert_eq!(
        chain.not_after(),
        chain.certificates().map(Certificate::not_after).min().unwrap()
    );
}
