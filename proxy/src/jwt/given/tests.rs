use signet_proto::policy::keys::digest;

use super::super::tests::{A, rules, some_keys};
use super::*;

const ADDRESS: &str = "https://keys.test/jwks";

fn wanting() -> TokenRules {
    rules(&["issuer: i\njwksUri: https://keys.test/jwks".to_owned()])
}

fn received(name: &[u8], keys: Result<KeySet, signet_certs::jws::KeySetError>) -> Received {
    Received {
        address: KeyAddress::Uri(ADDRESS.into()),
        digest: digest(name),
        keys,
    }
}

fn good(name: &[u8]) -> Received {
    received(name, Ok((*some_keys()).clone()))
}

fn first(sets: &KeySets) -> Option<Arc<KeySet>> {
    sets.of(0).ok()
}

#[test]
fn the_last_good_set_stays_whatever_is_sent_without_it_or_in_its_place() {
    let (mut given, _misses) = GivenKeys::new();
    let rules = wanting();
    assert!(first(&given.key_sets(&rules)).is_none(), "never a placeholder");
    assert_eq!(given.take(vec![good(b"1")]), []);
    let keys = first(&given.key_sets(&rules)).unwrap();
    let bad = KeySet::parse(b"{").unwrap_err();
    for sent in [vec![], vec![received(b"2", Err(bad))], vec![good(b"1")]] {
        given.take(sent);
        let now = first(&given.key_sets(&rules)).unwrap();
        assert!(Arc::ptr_eq(&keys, &now), "the very same");
    }
    given.take(vec![good(b"2")]);
    assert!(!Arc::ptr_eq(&keys, &first(&given.key_sets(&rules)).unwrap()));
    // What no rule asks for is let go, and not had again for the asking.
    let own = super::super::tests::rules(&[format!("issuer: i\njwks: '{}'", A.jwks())]);
    let _none = given.key_sets(&own);
    assert!(first(&given.key_sets(&rules)).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_misses_a_key_waits_for_a_newer_set_and_not_for_one_that_will_not_come() {
    let (mut given, mut misses) = GivenKeys::new();
    given.take(vec![good(b"1")]);
    let sets = given.key_sets(&wanting());
    let keys = first(&sets).unwrap();
    let patience = Duration::from_secs(5);
    let refused = async {
        let miss = misses.recv().await.unwrap();
        assert_eq!(
            (miss.address, miss.held),
            (KeyAddress::Uri(ADDRESS.into()), digest(b"1"))
        );
        miss.told.send(false).unwrap();
    };
    let began = tokio::time::Instant::now();
    let (newer, ()) = tokio::join!(sets.newer(0, &keys, patience), refused);
    assert!(!newer && began.elapsed() < patience);
    let sent = async {
        let miss = misses.recv().await.unwrap();
        miss.told.send(true).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        given.take(vec![good(b"2")]);
    };
    let (newer, ()) = tokio::join!(sets.newer(0, &keys, patience), sent);
    assert!(newer);
    assert!(sets.newer(0, &keys, patience).await, "who is behind need not ask");
    // Nobody answers: patience ends it.
    let now = first(&sets).unwrap();
    let began = tokio::time::Instant::now();
    assert!(!sets.newer(0, &now, patience).await);
    assert_eq!(began.elapsed(), patience);
}
