//! Own and foreign bundles as messages come and go.

use std::time::Duration;

use signet_certs::{Authority, SigningKey, UnixTime};
use signet_proto::authority::{RefusedBundle, WireBundleError};

use super::*;

fn bundle(name: &str, sequence: u64) -> TrustBundle {
    let domain: TrustDomain = name.parse().unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let key = Arc::new(SigningKey::generate().unwrap());
    let root = Authority::self_signed_root(&domain, key, Duration::from_secs(1_000), now).unwrap();
    TrustBundle::new(domain, vec![root.certificate().clone()], sequence).unwrap()
}

fn message(own: &TrustBundle, foreign: &[&TrustBundle]) -> authority::Trust {
    authority::Trust {
        own: own.clone(),
        foreign: foreign.iter().map(|b| (*b).clone()).collect(),
        refused: Vec::new(),
    }
}

fn ours() -> TrustDomain {
    "own.test".parse().unwrap()
}

fn verdicts(followed: &Followed) -> Vec<(&str, Verdict)> {
    followed
        .foreign
        .iter()
        .map(|(domain, verdict)| (domain.as_str(), *verdict))
        .collect()
}

#[test]
fn a_foreign_bundle_comes_changes_and_is_withdrawn_without_touching_our_own() {
    let (own, first, second) = (
        bundle("own.test", 7),
        bundle("foreign.test", 1),
        bundle("foreign.test", 2),
    );
    let trust = follow(None, message(&own, &[&first]), &ours()).trust.unwrap();
    assert!(trust.foreign()[0].same_content(&first));
    let unchanged = follow(Some(&trust), message(&own, &[&first]), &ours());
    assert!(unchanged.trust.is_none(), "nothing changed");
    assert_eq!(verdicts(&unchanged), [("foreign.test", Verdict::Same)]);
    let newer = follow(Some(&trust), message(&own, &[&second]), &ours())
        .trust
        .unwrap();
    assert!(newer.foreign()[0].same_content(&second));
    assert!(
        Arc::ptr_eq(newer.own().unwrap(), trust.own().unwrap()),
        "our own is the same"
    );
    let without = follow(Some(&newer), message(&own, &[]), &ours());
    assert_eq!(verdicts(&without), [("foreign.test", Verdict::Withdrawn)]);
    assert!(without.trust.unwrap().foreign().is_empty());
}

#[test]
fn a_foreign_bundle_never_goes_back_and_one_that_is_not_numbered_is_replaced_by_the_last() {
    let own = bundle("own.test", 7);
    let (old, new, other) = (bundle("a.test", 1), bundle("a.test", 2), bundle("a.test", 2));
    let trust = follow(None, message(&own, &[&new]), &ours()).trust.unwrap();
    for (offered, verdict) in [(&old, Verdict::Older), (&other, Verdict::Conflicting)] {
        let followed = follow(Some(&trust), message(&own, &[offered]), &ours());
        assert_eq!(verdicts(&followed), [("a.test", verdict)]);
        assert!(followed.trust.is_none());
    }
    let (first, last) = (bundle("b.test", 0), bundle("b.test", 0));
    let trust = follow(None, message(&own, &[&first]), &ours()).trust.unwrap();
    let followed = follow(Some(&trust), message(&own, &[&last]), &ours());
    assert!(followed.trust.unwrap().foreign()[0].same_content(&last));
}

#[test]
fn a_foreign_bundle_that_is_refused_leaves_its_last_good_one_and_others_alone() {
    let own = bundle("own.test", 7);
    let (a, b, newer) = (bundle("a.test", 1), bundle("b.test", 1), bundle("b.test", 2));
    let trust = follow(None, message(&own, &[&a, &b]), &ours()).trust.unwrap();
    let domain: TrustDomain = "a.test".parse().unwrap();
    let mut offered = message(&own, &[&newer]);
    offered.refused.push(RefusedBundle {
        trust_domain: Some(domain.clone()),
        fault: WireBundleError::Twice(domain.clone()),
    });
    let followed = follow(Some(&trust), offered, &ours());
    assert_eq!(
        verdicts(&followed),
        [("b.test", Verdict::Newer), ("a.test", Verdict::Malformed)]
    );
    let trust = followed.trust.unwrap();
    assert!(trust.foreign_of(&domain).unwrap().same_content(&a));
    assert_eq!(trust.foreign().len(), 2);
}

#[test]
fn nothing_is_taken_of_a_message_whose_own_bundle_is_behind_or_another_domains() {
    let (own, foreign) = (bundle("own.test", 7), bundle("foreign.test", 1));
    let trust = follow(None, message(&own, &[&foreign]), &ours()).trust.unwrap();
    for (offered, verdict) in [
        (bundle("own.test", 6), Verdict::Older),
        (bundle("own.test", 7), Verdict::Conflicting),
        (bundle("other.test", 8), Verdict::Foreign),
    ] {
        let followed = follow(Some(&trust), message(&offered, &[]), &ours());
        assert_eq!(followed.own, verdict);
        assert!(followed.trust.is_none() && followed.foreign.is_empty());
    }
}

#[test]
fn two_of_our_own_bundles_without_a_number_do_not_take_turns() {
    let (first, second) = (bundle("own.test", 0), bundle("own.test", 0));
    assert_eq!(judge(Some(&first), &second, &ours()), Verdict::Conflicting);
    assert_eq!(judge(Some(&first), &first, &ours()), Verdict::Same);
}
