//! Validity at each level, to the second, at both edges.

use signet_certs::verify::{Place, VerifyError};
use signet_certs::{BundleSet, SpiffeId};

use super::unknown_issuer;
use crate::support::{HOUR, Spec, World, bundle_of, id};

/// A world in which the certificate at `place` is valid from -100 s to +100 s, the others for a day.
fn world_limited_at(place: Place) -> (World, Spec) {
    let day = 24 * HOUR;
    let limit = |spec: Spec, own| {
        if own == place {
            spec.valid(-100, 100)
        } else {
            spec.valid(-day, day)
        }
    };
    let root = limit(Spec::ca("test root", Some(1)), Place::Root);
    let intermediate = limit(Spec::ca("test issuing", Some(0)), Place::Intermediate);
    (World::with(root, intermediate), limit(Spec::leaf(), Place::Leaf))
}

#[test]
fn every_level_counts_from_its_first_to_its_last_second() {
    for place in [Place::Leaf, Place::Intermediate, Place::Root] {
        let (world, leaf) = world_limited_at(place);
        let chain = world.chain(&leaf);
        let judge = |offset: i64| -> Result<SpiffeId, VerifyError> { world.verify_at(&chain, offset) };
        assert_eq!(judge(-100), Ok(id()), "{place}: first second");
        assert_eq!(judge(100), Ok(id()), "{place}: last second");
        assert_eq!(
            judge(-101),
            Err(VerifyError::NotYetValid { place, in_seconds: 1 })
        );
        assert_eq!(
            judge(101),
            Err(VerifyError::Expired {
                place,
                ago_seconds: 1
            })
        );
        assert_eq!(
            judge(-3700),
            Err(VerifyError::NotYetValid {
                place,
                in_seconds: 3600
            })
        );
        assert_eq!(
            judge(3700),
            Err(VerifyError::Expired {
                place,
                ago_seconds: 3600
            })
        );
    }
}

#[test]
fn refusals_about_time_say_who_how_long_and_what_to_compare() {
    let (world, leaf) = world_limited_at(Place::Leaf);
    let chain = world.chain(&leaf);
    assert_eq!(
        world.verify_at(&chain, 160).unwrap_err().to_string(),
        "the leaf expired 60 s ago"
    );
    assert_eq!(
        world.verify_at(&chain, -160).unwrap_err().to_string(),
        "the leaf is not valid for another 60 s; compare this machine's clock with the CA's"
    );
    let (world, leaf) = world_limited_at(Place::Intermediate);
    let expired = world.verify_at(&world.chain(&leaf), 160).unwrap_err();
    assert_eq!(expired.to_string(), "an intermediate expired 60 s ago");
    let (world, leaf) = world_limited_at(Place::Root);
    let expired = world.verify_at(&world.chain(&leaf), 160).unwrap_err();
    assert_eq!(expired.to_string(), "the root expired 60 s ago");
}

#[test]
fn an_expired_intermediate_does_not_hide_a_valid_one_of_the_same_name_and_key() {
    let world = World::new();
    let old = world
        .intermediate
        .spec
        .clone()
        .valid(-200, -100)
        .sign(&*world.intermediate.key, &world.root);
    let leaf = Spec::leaf().by(&world.intermediate);
    let chain = [leaf.clone(), old.clone(), world.intermediate.der.clone()];
    assert_eq!(world.verify(&chain), Ok(id()));
    assert_eq!(
        world.verify(&[leaf, old]),
        Err(VerifyError::Expired {
            place: Place::Intermediate,
            ago_seconds: 100
        })
    );
}

#[test]
fn an_expired_root_does_not_hide_its_renewal_under_the_same_name_and_key() {
    let mut world = World::new();
    let old = world
        .root
        .spec
        .clone()
        .valid(-200, -100)
        .root_with(world.root.key.clone());
    let chain = world.chain(&Spec::leaf());
    world.bundles = BundleSet::of(bundle_of("cluster.local", &[&old, &world.root]));
    assert_eq!(world.verify(&chain), Ok(id()));
    world.bundles = BundleSet::of(bundle_of("cluster.local", &[&old]));
    assert_eq!(
        world.verify(&chain),
        Err(VerifyError::Expired {
            place: Place::Root,
            ago_seconds: 100
        })
    );
}

#[test]
fn one_root_lends_nothing_to_another() {
    let mut world = World::with(
        Spec::ca("test root", Some(1)).valid(-200, -100),
        Spec::ca("test issuing", Some(0)),
    );
    let other = Spec::ca("other root", None).root();
    world.bundles = BundleSet::of(bundle_of("cluster.local", &[&other, &world.root, &other]));
    let expired = Err(VerifyError::Expired {
        place: Place::Root,
        ago_seconds: 100,
    });
    assert_eq!(world.verify(&world.chain(&Spec::leaf())), expired);
}

#[test]
fn a_life_that_ends_before_it_begins_is_never_accepted() {
    let world = World::new();
    let chain = world.chain(&Spec::leaf().valid(100, -100));
    assert!(matches!(
        world.verify(&chain),
        Err(VerifyError::NotYetValid {
            place: Place::Leaf,
            ..
        })
    ));
    let backwards = World::with(
        Spec::ca("test root", Some(1)),
        Spec::ca("test issuing", Some(0)).valid(1, -1),
    );
    let chain = backwards.chain(&Spec::leaf());
    assert_ne!(backwards.verify(&chain), Err(unknown_issuer()));
    assert!(backwards.verify(&chain).is_err());
}
