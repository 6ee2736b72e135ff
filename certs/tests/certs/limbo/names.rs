//! IDs that SPIFFE-ID §2 refuses, standing as the URI name of an otherwise sound certificate.

use signet_certs::profile::LeafFault;

use super::leaf;
use crate::ids;
use crate::support::der::{self, uri};
use crate::support::{ID, Spec, World};

#[test]
fn a_malformed_id_is_refused_with_the_rule_it_breaks() {
    let world = World::new();
    for (text, fault) in ids::rejected() {
        let chain = world.chain(&Spec::leaf().names(&[uri(&text)]));
        let expected = leaf(LeafFault::Id {
            uri: text.clone(),
            fault,
        });
        assert_eq!(world.verify(&chain), Err(expected), "{text:?}");
    }
}

#[test]
fn a_web_address_is_no_id() {
    let world = World::new();
    let chain = world.chain(&Spec::leaf().names(&[uri("https://cluster.local/ns/shop/sa/cart")]));
    assert_eq!(
        world.verify(&chain).unwrap_err().to_string(),
        "leaf is no X509-SVID: its URI name \"https://cluster.local/ns/shop/sa/cart\" is no SPIFFE ID: \
         must begin with \"spiffe://\""
    );
}

#[test]
fn bytes_that_are_no_text_fail_the_certificate() {
    let world = World::new();
    let chain = world.chain(&Spec::leaf().names(&[(0x86, b"spiffe://td/\xff".to_vec())]));
    assert_eq!(
        world.verify(&chain).unwrap_err().to_string(),
        "certificate 0 of the chain: extension subjectAltName cannot be decoded"
    );
}

#[test]
fn the_longest_id_is_accepted() {
    let world = World::new();
    let head = "spiffe://cluster.local/";
    let longest = format!("{head}{}", "a".repeat(2048 - head.len()));
    let chain = world.chain(&Spec::leaf().names(&[uri(&longest), der::dns("cart")]));
    assert_eq!(world.verify(&chain), Ok(longest.parse().unwrap()));
}

#[test]
fn paths_are_compared_by_case() {
    let world = World::new();
    let upper = ID.replace("cart", "Cart");
    let found = world
        .verify(&world.chain(&Spec::leaf().names(&[uri(&upper)])))
        .unwrap();
    assert_ne!(found, ID.parse().unwrap());
}
