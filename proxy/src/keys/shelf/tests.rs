use std::time::Duration;

use signet_certs::tls::{BundleSource, IdentitySource};
use signet_certs::{Authority, LeafProfile, SigningKey, TrustBundle, issue};

use super::*;

const NOW: u64 = 1_800_000_000;
const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW + seconds))
}

fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

fn root(domain_name: &str) -> Authority {
    let key = Arc::new(SigningKey::generate().unwrap());
    Authority::self_signed_root(
        &domain(domain_name),
        key,
        Duration::from_secs(86_400 * 365),
        at(0),
    )
    .unwrap()
}

fn bundle(root: &Authority, domain_name: &str) -> Arc<TrustBundle> {
    let roots = vec![root.certificate().clone()];
    Arc::new(TrustBundle::new(domain(domain_name), roots, 0).unwrap())
}

fn bundles(roots: &[(&Authority, &str)]) -> Content {
    let mut set = BundleSet::default();
    for (root, name) in roots {
        set.insert(bundle(root, name));
    }
    Content::Bundles(set)
}

fn svid(root: &Authority, id: &str, from: u64, life: u64) -> X509Svid {
    let key = Arc::new(SigningKey::generate().unwrap());
    let profile = LeafProfile {
        id: id.parse().unwrap(),
        ttl: Duration::from_secs(life),
        min_left: Duration::ZERO,
        dns: Vec::new(),
    };
    let chain = issue(&profile, key.public_key(), root, at(from)).unwrap();
    X509Svid::new(chain, key).unwrap()
}

fn serial(keys: &Keys) -> Option<String> {
    let snapshot = keys.current()?;
    Some(snapshot.own()?.svid().chain().serial())
}

#[test]
fn nothing_is_presented_before_it_verifies() {
    let (root, other) = (root("cluster.local"), root("cluster.local"));
    let (mut shelf, keys) = Shelf::new(domain("cluster.local"));
    let svid = svid(&root, ID, 0, 3_600);
    let early = shelf.take(Content::Pair(svid.clone()), at(0));
    assert!(matches!(early, Err(Refused::Unverified(_))), "{early:?}");
    assert!(keys.identity().is_none());
    // Bundles that do not vouch for it change nothing about that.
    assert_eq!(
        shelf.take(bundles(&[(&other, "cluster.local")]), at(0)),
        Ok(Taken::Bundles)
    );
    assert!(keys.identity().is_none());
    // The right ones do, without its being sent again.
    assert_eq!(
        shelf.take(bundles(&[(&root, "cluster.local")]), at(0)),
        Ok(Taken::Bundles)
    );
    assert_eq!(serial(&keys), Some(svid.chain().serial()));
}

#[test]
fn bundles_that_do_not_vouch_for_our_svid_withdraw_it_and_later_ones_bring_it_back() {
    let (root, other) = (root("cluster.local"), root("cluster.local"));
    let (mut shelf, keys) = Shelf::new(domain("cluster.local"));
    shelf.take(bundles(&[(&root, "cluster.local")]), at(0)).unwrap();
    shelf
        .take(Content::Pair(svid(&root, ID, 0, 3_600)), at(0))
        .unwrap();
    let first = serial(&keys);
    assert!(first.is_some());
    let taken = shelf.take(bundles(&[(&other, "cluster.local")]), at(1));
    assert_eq!(taken, Ok(Taken::Withdrawn));
    assert!(keys.identity().is_none());
    assert!(keys.bundles().get(&domain("cluster.local")).is_some());
    shelf.take(bundles(&[(&root, "cluster.local")]), at(2)).unwrap();
    assert_eq!(serial(&keys), first);
}

#[test]
fn an_svid_never_goes_backwards_and_a_shorter_life_is_not_older() {
    let root = root("cluster.local");
    let (mut shelf, keys) = Shelf::new(domain("cluster.local"));
    shelf.take(bundles(&[(&root, "cluster.local")]), at(0)).unwrap();
    let (old, new) = (svid(&root, ID, 100, 3_600), svid(&root, ID, 1_000, 3_600));
    shelf.take(Content::Pair(new.clone()), at(1_000)).unwrap();
    let refused = shelf.take(Content::Pair(old), at(1_001));
    assert_eq!(refused, Err(Refused::Older(ID.parse().unwrap())));
    assert_eq!(serial(&keys), Some(new.chain().serial()));
    assert_eq!(shelf.take(Content::Pair(new), at(1_001)), Ok(Taken::Same));
    let short = svid(&root, ID, 1_200, 60);
    assert_eq!(
        shelf.take(Content::Pair(short.clone()), at(1_200)),
        Ok(Taken::Svid)
    );
    assert_eq!(serial(&keys), Some(short.chain().serial()));
}

#[test]
fn a_bad_secret_leaves_the_last_good_one() {
    let (root, foreign) = (root("cluster.local"), root("other.example"));
    let (mut shelf, keys) = Shelf::new(domain("cluster.local"));
    shelf.take(bundles(&[(&root, "cluster.local")]), at(0)).unwrap();
    shelf
        .take(Content::Pair(svid(&root, ID, 0, 3_600)), at(0))
        .unwrap();
    let (good, set) = (serial(&keys), keys.bundles());
    let stranger = svid(&foreign, "spiffe://other.example/ns/a/sa/b", 1, 3_600);
    let refused = shelf.take(Content::Pair(stranger), at(1)).unwrap_err();
    assert!(matches!(refused, Refused::OtherDomain(..)), "{refused}");
    let without_ours = shelf.take(bundles(&[(&foreign, "other.example")]), at(1));
    assert_eq!(without_ours, Err(Refused::NoOwnRoots(domain("cluster.local"))));
    let expired = shelf.take(Content::Pair(svid(&root, ID, 100, 60)), at(10_000));
    assert!(matches!(expired, Err(Refused::Unverified(_))), "{expired:?}");
    assert_eq!(serial(&keys), good);
    assert!(Arc::ptr_eq(&keys.bundles(), &set));
}

#[test]
fn bundles_of_the_same_roots_stay_the_very_same() {
    let (root, foreign) = (root("cluster.local"), root("other.example"));
    let (mut shelf, keys) = Shelf::new(domain("cluster.local"));
    shelf.take(bundles(&[(&root, "cluster.local")]), at(0)).unwrap();
    let before = keys.bundles().get(&domain("cluster.local")).cloned().unwrap();
    assert_eq!(
        shelf.take(bundles(&[(&root, "cluster.local")]), at(1)),
        Ok(Taken::Same)
    );
    let both = bundles(&[(&root, "cluster.local"), (&foreign, "other.example")]);
    assert_eq!(shelf.take(both, at(2)), Ok(Taken::Bundles));
    let after = keys.bundles().get(&domain("cluster.local")).cloned().unwrap();
    assert!(Arc::ptr_eq(&before, &after));
}

#[test]
fn an_svid_that_has_ended_is_not_used() {
    let root = root("cluster.local");
    let (mut shelf, keys) = Shelf::new(domain("cluster.local"));
    shelf.take(bundles(&[(&root, "cluster.local")]), at(0)).unwrap();
    shelf.take(Content::Pair(svid(&root, ID, 0, 60)), at(0)).unwrap();
    assert!(keys.usable(at(60)).is_some());
    assert!(keys.usable(at(61)).is_none());
}

#[test]
fn bundles_never_go_backwards_whoever_offers_older_ones() {
    let (old, new, foreign) = (root("cluster.local"), root("cluster.local"), root("other.test"));
    let (mut shelf, keys) = Shelf::new(domain("cluster.local"));
    let numbered = |all: &[(&Authority, &str, u64)]| {
        let mut set = BundleSet::default();
        for (root, name, sequence) in all {
            let bundle = TrustBundle::clone(&bundle(root, name));
            set.insert(Arc::new(bundle.with_sequence(*sequence)));
        }
        Content::Bundles(set)
    };
    let roots = || {
        keys.bundles()
            .get(&domain("cluster.local"))
            .unwrap()
            .roots()
            .to_vec()
    };
    let is_of = |root: &Authority| roots()[0].certificate().der() == root.certificate().der();
    assert_eq!(
        shelf.take(numbered(&[(&old, "cluster.local", 6)]), at(0)),
        Ok(Taken::Bundles)
    );
    assert_eq!(
        shelf.take(numbered(&[(&new, "cluster.local", 7)]), at(0)),
        Ok(Taken::Bundles)
    );
    // What comes beside an older bundle is taken.
    let offered = numbered(&[(&old, "cluster.local", 6), (&foreign, "other.test", 1)]);
    let refused = shelf.take(offered, at(0)).unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::OlderBundle {
                offered: 6,
                held: 7,
                ..
            }
        ),
        "{refused}"
    );
    assert!(is_of(&new) && keys.bundles().get(&domain("other.test")).is_some());
    // The same roots under a higher number count as newer from then on.
    let higher = numbered(&[(&new, "cluster.local", 9), (&foreign, "other.test", 1)]);
    assert_eq!(shelf.take(higher, at(0)), Ok(Taken::Same));
    assert!(
        shelf
            .take(numbered(&[(&old, "cluster.local", 8)]), at(0))
            .is_err()
    );
    assert!(is_of(&new));
    assert_eq!(
        shelf.take(numbered(&[(&old, "cluster.local", 10)]), at(0)),
        Ok(Taken::Bundles)
    );
    assert!(is_of(&old));
    // One that was left out meanwhile does not come back older.
    let with_foreign =
        |sequence| numbered(&[(&old, "cluster.local", 10), (&foreign, "other.test", sequence)]);
    assert_eq!(shelf.take(with_foreign(9), at(0)), Ok(Taken::Bundles));
    let without = numbered(&[(&old, "cluster.local", 10)]);
    assert_eq!(shelf.take(without, at(0)), Ok(Taken::Bundles));
    shelf.take(with_foreign(5), at(0)).unwrap_err();
    assert!(keys.bundles().get(&domain("other.test")).is_none());
    assert_eq!(shelf.take(with_foreign(9), at(0)), Ok(Taken::Bundles));
    // Without a number nothing can be told.
    assert_eq!(
        shelf.take(numbered(&[(&new, "cluster.local", 0)]), at(0)),
        Ok(Taken::Bundles)
    );
}
