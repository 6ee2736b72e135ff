use super::*;
use proptest::prelude::*;
use signet_certs::SigningKey;

const HINT: u64 = 300;
const LIFE: u64 = 7 * 86_400;

fn policy() -> Policy {
    let seconds = Duration::from_secs;
    Policy::new(seconds(HINT), seconds(LIFE), seconds(3_600))
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000 + seconds))
}

fn key() -> Arc<JwtAuthority> {
    Arc::new(JwtAuthority::new(Arc::new(SigningKey::generate().unwrap())).unwrap())
}

/// At a start, or when the file has changed.
fn settle(keys: &mut JwtKeys, supply: &Supply, now: UnixTime) -> (Vec<&'static str>, UnixTime) {
    steps(keys, &Event::Supplied, supply, now)
}

/// Steps until there is nothing to do; what was done on the way, and when to wake.
fn steps(keys: &mut JwtKeys, first: &Event, supply: &Supply, now: UnixTime) -> (Vec<&'static str>, UnixTime) {
    let mut done = Vec::new();
    let mut event = first.clone();
    for _ in 0..100 {
        let (next, action) = step(keys.clone(), event, supply, &policy(), now);
        *keys = next;
        event = first.clone();
        match action {
            Action::Make => event = Event::Made(key()),
            Action::Store(change) => done.push(change.as_str()),
            Action::WakeAt(time) => return (done, time),
        }
    }
    panic!("it never comes to rest: {keys:?}");
}

fn kid(keys: &JwtKeys) -> String {
    keys.active().unwrap().key.kid().to_owned()
}

#[test]
fn the_first_key_of_a_trust_domain_signs_at_once() {
    let mut keys = JwtKeys::default();
    let (done, wake) = settle(&mut keys, &Supply::Own, at(0));
    assert_eq!(done, ["activated"]);
    assert_eq!(wake, at(LIFE - 4 * HINT));
}

#[test]
fn a_successor_is_published_four_hints_before_it_signs_and_the_old_key_outlives_its_last_token() {
    let mut keys = JwtKeys::default();
    settle(&mut keys, &Supply::Own, at(0));
    let first = kid(&keys);
    let (done, wake) = settle(&mut keys, &Supply::Own, at(LIFE - 4 * HINT));
    assert_eq!((done, wake), (vec!["prepared"], at(LIFE)));
    assert_eq!((kid(&keys), keys.published().len()), (first.clone(), 2));

    let (done, wake) = settle(&mut keys, &Supply::Own, at(LIFE));
    let gone = LIFE + 3_600 + signet_certs::jwt::LEEWAY.as_secs() + 4 * HINT;
    assert_eq!((done, wake), (vec!["activated"], at(gone)));
    assert_ne!(kid(&keys), first);
    assert_eq!(keys.published().len(), 2, "the old key is still published");
    let old = keys.0.iter().find(|entry| entry.key.kid() == first).unwrap();
    assert!(old.own.is_none(), "its private half is forgotten");

    assert!(settle(&mut keys, &Supply::Own, at(gone - 1)).0.is_empty());
    let (done, _) = settle(&mut keys, &Supply::Own, at(gone));
    assert_eq!((done, keys.published().len()), (vec!["retired"], 1));
}

#[test]
fn a_ca_that_was_away_for_long_prepares_before_it_changes_over() {
    let mut keys = JwtKeys::default();
    settle(&mut keys, &Supply::Own, at(0));
    let first = kid(&keys);
    let (done, wake) = settle(&mut keys, &Supply::Own, at(10 * LIFE));
    assert_eq!((done, wake), (vec!["prepared"], at(10 * LIFE + 4 * HINT)));
    assert_eq!(kid(&keys), first, "the known key signs until then");
}

fn supply(wanted: &[&Arc<JwtAuthority>], held: &[&Arc<JwtAuthority>]) -> Supply {
    let public = |keys: &[&Arc<JwtAuthority>]| keys.iter().map(|k| k.public().clone()).collect();
    Supply::File {
        wanted: public(wanted),
        held: public(held),
        turning: true,
    }
}

/// A file that has had its way.
fn settled(wanted: &[&Arc<JwtAuthority>]) -> Supply {
    match supply(wanted, wanted) {
        Supply::File { wanted, held, .. } => Supply::File {
            wanted,
            held,
            turning: false,
        },
        Supply::Own => Supply::Own,
    }
}

#[test]
fn a_replica_whose_file_is_behind_changes_nothing_of_what_another_did_by_a_newer_one() {
    let (a, b) = (key(), key());
    let (behind, newer) = (settled(&[&a]), supply(&[&b, &a], &[&a, &b]));
    let mut keys = JwtKeys::default();
    settle(&mut keys, &supply(&[&a], &[&a]), at(0));
    let turn = 10 + 4 * HINT;
    let gone = 5_000 + policy().keep.as_secs();
    for (now, file) in [
        (10, &newer),
        (turn, &newer),
        (5_000, &supply(&[&b], &[&a, &b])),
        (gone, &supply(&[&b], &[&b])),
    ] {
        assert!(!settle(&mut keys, file, at(now)).0.is_empty(), "{now}");
        let before = keys.clone();
        let (done, _) = steps(&mut keys, &Event::Woke, &behind, at(now));
        assert!(done.is_empty() && keys.same(&before), "{now}: {done:?}");
    }
    assert_eq!(kid(&keys), b.public().kid());
}

#[test]
fn where_an_operators_key_signs_a_replica_that_makes_its_own_leaves_it_until_it_starts_anew() {
    let a = key();
    let mut keys = JwtKeys::default();
    settle(&mut keys, &supply(&[&a], &[&a]), at(0));
    let (done, _) = steps(&mut keys, &Event::Woke, &Supply::Own, at(10));
    assert!(done.is_empty(), "{done:?}");
    assert_eq!(
        settle(&mut keys, &Supply::Own, at(20)).0,
        ["retired", "activated"]
    );
}

#[test]
fn a_key_that_another_replica_retired_signs_on_until_its_last_token_would_outlive_it() {
    let (a, b) = (key(), key());
    let mut keys = JwtKeys::default();
    settle(&mut keys, &supply(&[&a], &[&a]), at(0));
    settle(&mut keys, &supply(&[&b, &a], &[&a, &b]), at(0));
    settle(&mut keys, &supply(&[&b, &a], &[&a, &b]), at(4 * HINT));
    let old = |keys: &JwtKeys| {
        let old = keys.0.iter().find(|entry| entry.key == *a.public()).unwrap();
        signs_until(old, &policy())
    };
    assert_eq!(old(&keys), None, "it is still in the file");
    settle(&mut keys, &supply(&[&b], &[&a, &b]), at(5_000));
    assert_eq!(old(&keys), Some(at(5_000 + 4 * HINT)));
}

#[test]
fn an_operators_key_takes_over_from_ours_only_after_it_was_published_long_enough() {
    let mut keys = JwtKeys::default();
    settle(&mut keys, &Supply::Own, at(0));
    let (ours, theirs) = (kid(&keys), key());
    let file = supply(&[&theirs], &[&theirs]);
    let (done, wake) = settle(&mut keys, &file, at(100));
    assert_eq!((done, wake), (vec!["prepared"], at(100 + 4 * HINT)));
    assert_eq!(kid(&keys), ours);
    let (done, _) = settle(&mut keys, &file, at(100 + 4 * HINT));
    assert_eq!(done, ["activated"]);
    assert_eq!(kid(&keys), theirs.public().kid());
    assert!(keys.0.iter().all(|entry| entry.own.is_none()));

    let (done, _) = settle(&mut keys, &Supply::Own, at(5_000));
    assert_eq!(
        done,
        ["retired", "activated"],
        "without the file we make our own again"
    );
}

#[test]
fn an_operator_rotates_by_the_order_of_the_file() {
    let (a, b) = (key(), key());
    let mut keys = JwtKeys::default();
    settle(&mut keys, &supply(&[&a], &[&a]), at(0));
    assert_eq!(kid(&keys), a.public().kid(), "the first key of all signs at once");
    settle(&mut keys, &supply(&[&a, &b], &[&a, &b]), at(10));
    assert_eq!(
        (kid(&keys).as_str(), keys.published().len()),
        (a.public().kid(), 2)
    );
    let swapped = supply(&[&b, &a], &[&a, &b]);
    settle(&mut keys, &swapped, at(20));
    assert_eq!(kid(&keys), a.public().kid(), "b was not published long enough");
    settle(&mut keys, &swapped, at(10 + 4 * HINT));
    assert_eq!(
        (kid(&keys).as_str(), keys.published().len()),
        (b.public().kid(), 2)
    );
    let (done, wake) = settle(&mut keys, &supply(&[&b], &[&a, &b]), at(5_000));
    assert_eq!(
        done,
        ["retired"],
        "a has left the file and outlives its last token"
    );
    assert_eq!(
        (wake, keys.published().len()),
        (plus(at(5_000), policy().keep), 2)
    );
}

#[test]
fn a_file_replaced_outright_leaves_the_old_key_signing_while_it_is_held() {
    let (a, b) = (key(), key());
    let mut keys = JwtKeys::default();
    settle(&mut keys, &supply(&[&a], &[&a]), at(0));
    settle(&mut keys, &supply(&[&b], &[&a, &b]), at(10));
    assert_eq!(kid(&keys), a.public().kid());
    // Started anew, without what was held in memory.
    settle(&mut keys, &supply(&[&b], &[&b]), at(20));
    assert_eq!(kid(&keys), b.public().kid());
}

proptest! {
    /// Whatever the times and the supply do: at rest exactly one key signs and it is at hand; it was
    /// published long enough unless nothing else could sign; no key leaves the bundle sooner than
    /// `keep` after it signed.
    #[test]
    fn rotation_keeps_its_promises_under_any_course_of_events(
        turns in prop::collection::vec((0u64..400_000, 0usize..5), 1..40),
    ) {
        let (a, b) = (key(), key());
        let supplies = [
            Supply::Own,
            Supply::Own,
            supply(&[&a], &[&a]),
            supply(&[&a, &b], &[&a, &b]),
            supply(&[&b], &[&a, &b]),
        ];
        let mut keys = JwtKeys::default();
        let mut now = 0;
        let mut signed: std::collections::HashMap<String, UnixTime> = Default::default();
        for (pause, which) in turns {
            now += pause;
            let supply = &supplies[which];
            let before = keys.clone();
            settle(&mut keys, supply, at(now));
            let active: Vec<&Entry> =
                keys.0.iter().filter(|e| matches!(e.phase, Phase::Active { .. })).collect();
            prop_assert_eq!(active.len(), 1);
            prop_assert!(usable(active[0], supply));
            prop_assert!(keys.0.len() <= MAX_KEYS);
            let had_signer = before.0.iter().any(|e| {
                matches!(e.phase, Phase::Active { .. }) && usable(e, supply)
            });
            let took_over = before.active().is_none_or(|e| e.key != active[0].key);
            if had_signer && took_over {
                prop_assert!(plus(active[0].published_at, policy().lead) <= at(now));
            }
            for entry in &before.0 {
                if matches!(entry.phase, Phase::Active { .. }) {
                    signed.insert(entry.key.kid().to_owned(), at(now));
                }
            }
            for (kid, last) in &signed {
                let there = keys.0.iter().any(|e| e.key.kid() == kid);
                prop_assert!(there || plus(*last, policy().keep) <= at(now), "{} left early", kid);
            }
        }
    }
}
