//! Signatures that are broken, weak, or made with a weak key.

use signet_certs::bundle::AuthorityFault;
use signet_certs::certificate::Certificate;
use signet_certs::verify::VerifyError;
use signet_certs::{BundleSet, CertificateDer, TrustBundle};

use super::intermediate;
use crate::support::der::unpem;
use crate::support::{Ca, Spec, World, domain, id};

/// A chain of fixtures, judged under the fixtures' root.
fn judge(names: &[&str]) -> Result<signet_certs::SpiffeId, VerifyError> {
    let read = |name: &str| -> CertificateDer<'static> {
        let path = format!("{}/tests/fixtures/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        unpem(&std::fs::read_to_string(path).unwrap()).into()
    };
    let root = Certificate::from_der(read("root")).unwrap();
    let mut world = World::new();
    world.bundles = BundleSet::of(TrustBundle::new(domain(), vec![root], 1).unwrap().into());
    let chain: Vec<_> = names.iter().map(|name| read(name)).collect();
    world.verify(&chain)
}

#[test]
fn sha1_is_refused_at_every_level() {
    let sentence = "a signature in the chain uses an algorithm or key that is not accepted";
    assert_eq!(VerifyError::WeakSignature.to_string(), sentence);
    assert_eq!(judge(&["sha1-leaf"]), Err(VerifyError::WeakSignature));
    assert_eq!(
        judge(&["below-sha1-leaf", "sha1-intermediate"]),
        Err(VerifyError::WeakSignature)
    );
}

#[test]
fn a_weak_key_of_an_intermediate_is_named() {
    assert_eq!(
        judge(&["below-rsa-1024-leaf", "rsa-1024-intermediate"]),
        Err(intermediate(AuthorityFault::Key))
    );
}

#[test]
fn a_signature_by_another_key_of_the_same_name_does_not_verify() {
    let world = World::new();
    let impostor = Ca {
        key: Spec::ca("x", None).root().key,
        ..world.intermediate.clone()
    };
    let chain = [Spec::leaf().by(&impostor), world.intermediate.der.clone()];
    assert_eq!(world.verify(&chain), Err(VerifyError::Signature));
    let impostor = Ca {
        key: Spec::ca("x", None).root().key,
        ..world.root.clone()
    };
    let forged = world.intermediate.spec.sign(&*world.intermediate.key, &impostor);
    let chain = [Spec::leaf().by(&world.intermediate), forged];
    assert_eq!(world.verify(&chain), Err(VerifyError::Signature));
}

#[test]
fn every_changed_byte_of_a_chain_is_noticed() {
    let world = World::new();
    let chain = world.chain(&Spec::leaf());
    assert_eq!(world.verify(&chain), Ok(id()));
    for (place, der) in chain.iter().enumerate() {
        for byte in (0..der.len()).step_by(7) {
            let mut changed = chain.clone();
            let mut der = der.to_vec();
            der[byte] ^= 0x01;
            changed[place] = der.into();
            assert!(
                world.verify(&changed).is_err(),
                "byte {byte} of certificate {place}"
            );
        }
    }
}

#[test]
fn an_inner_and_outer_algorithm_that_differ_are_refused() {
    let world = World::new();
    let chain = world.chain(&Spec::leaf());
    let mut der = chain[0].to_vec();
    // ecdsa-with-SHA256 stands twice; the outer one becomes SHA-384.
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let outer = der.windows(oid.len()).rposition(|w| w == oid).unwrap();
    der[outer + oid.len() - 1] = 0x03;
    assert_eq!(
        world.verify(&[der.into(), chain[1].clone()]),
        Err(VerifyError::WeakSignature)
    );
}
