//! Key sets of token issuers on their way to a proxy.
//!
//! The unit is one set: one that cannot be read takes nothing else along, and whoever has a good one keeps it.

use bytes::Bytes;
use ring::digest;
use signet_certs::jws::{KeySet, KeySetError};
use signet_policy::KeyAddress;

use super::{SnapshotError, bounded};
use crate::wire::signet::policy::v1 as wire;

/// Most sets of one snapshot.
pub const MAX_SETS: usize = 64;
/// Most bytes of all sets of one snapshot: keys leave room for policies.
pub const MAX_SETS_BYTES: usize = 4 << 20;
/// Longest address.
const MAX_ADDRESS_BYTES: usize = 8 * 1024;

/// SHA-256 of a set as it was fetched: which one it is.
pub type Digest = [u8; 32];

/// One set as it came.
#[derive(Clone, Debug)]
pub struct IssuerKeys {
    /// Where it is from.
    pub address: KeyAddress,
    /// Which one it is.
    pub digest: Digest,
    /// The keys, or why they cannot be used.
    pub keys: Result<KeySet, KeySetError>,
}

/// Which set this is.
#[must_use]
pub fn digest(jwks: &[u8]) -> Digest {
    let mut out = Digest::default();
    out.copy_from_slice(digest::digest(&digest::SHA256, jwks).as_ref());
    out
}

/// An address as it travels.
#[must_use]
pub fn address_message(address: &KeyAddress) -> wire::KeyAddress {
    let place = match address {
        KeyAddress::Uri(uri) => wire::key_address::Place::Uri(uri.clone()),
        KeyAddress::Discovery(issuer) => wire::key_address::Place::Issuer(issuer.clone()),
    };
    wire::KeyAddress { place: Some(place) }
}

/// An address as it came; nothing if there is none in it.
#[must_use]
pub fn address(message: Option<wire::KeyAddress>) -> Option<KeyAddress> {
    let address = match message?.place? {
        wire::key_address::Place::Uri(uri) => KeyAddress::Uri(uri),
        wire::key_address::Place::Issuer(issuer) => KeyAddress::Discovery(issuer),
    };
    let (KeyAddress::Uri(text) | KeyAddress::Discovery(text)) = &address;
    (1..=MAX_ADDRESS_BYTES).contains(&text.len()).then_some(address)
}

/// A set as it travels.
#[must_use]
pub fn keys_message(address: &KeyAddress, jwks: Bytes) -> wire::IssuerKeys {
    wire::IssuerKeys {
        address: Some(address_message(address)),
        jwks,
    }
}

pub(super) fn received(messages: Vec<wire::IssuerKeys>) -> Result<Vec<IssuerKeys>, SnapshotError> {
    bounded("keys", messages.len(), MAX_SETS)?;
    let read = messages.into_iter().enumerate().map(|(place, message)| {
        Ok(IssuerKeys {
            address: address(message.address).ok_or(SnapshotError::NoAddress(place))?,
            digest: digest(&message.jwks),
            keys: KeySet::parse(&message.jwks),
        })
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_same_at_the_other_end() {
        for sent in [
            KeyAddress::Uri("https://k.test/keys".into()),
            KeyAddress::Discovery("https://i.test".into()),
        ] {
            assert_eq!(address(Some(address_message(&sent))), Some(sent));
        }
        assert_eq!(
            address(Some(address_message(&KeyAddress::Uri(String::new())))),
            None
        );
        assert_eq!(address(Some(wire::KeyAddress::default())), None);
    }

    #[test]
    fn a_set_that_cannot_be_read_is_told_and_takes_no_other_along() {
        let set = |name: &str, jwks: &'static str| {
            keys_message(&KeyAddress::Uri(name.into()), Bytes::from_static(jwks.as_bytes()))
        };
        let read = received(vec![set("a", "{"), set("b", "{\"keys\":[]}")]).unwrap();
        let [broken, other] = read.as_slice() else {
            panic!("two sets")
        };
        assert!(broken.keys.is_err());
        assert_eq!(other.address, KeyAddress::Uri("b".into()));
        let nameless = wire::IssuerKeys::default();
        assert_eq!(received(vec![nameless]).unwrap_err(), SnapshotError::NoAddress(0));
        let many = vec![set("a", "{}"); MAX_SETS + 1];
        assert!(matches!(
            received(many),
            Err(SnapshotError::TooMany { what: "keys", .. })
        ));
    }
}
