//! Sequence numbers of bundles beside their roots, in the metadata of a resource: whoever follows two agents, or one
//! that starts again, can tell the newer of two bundles (I5). Envoy takes no notice of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use signet_certs::{BundleSet, TrustBundle, TrustDomain};

use super::MAX_DOMAINS;
use crate::wire::envoy::config::core::v3::Metadata;

/// The key under which they stand.
const KEY: &str = "signet.bundle_sequences";

/// The sequence numbers of bundles by trust domain.
type Sequences = BTreeMap<TrustDomain, u64>;

/// The numbers of these bundles as they travel; those without one are left out.
#[must_use]
pub fn sequences_message(bundles: &BundleSet) -> Metadata {
    // A text each: numbers of a Struct are floats.
    let number = |sequence: u64| Value {
        kind: Some(Kind::StringValue(sequence.to_string())),
    };
    let numbered = bundles.iter().filter(|bundle| bundle.sequence() > 0);
    let fields = numbered.map(|bundle| (bundle.trust_domain().to_string(), number(bundle.sequence())));
    let all = Struct {
        fields: fields.collect(),
    };
    Metadata {
        filter_metadata: [(KEY.to_owned(), all)].into(),
    }
}

/// These bundles with their numbers as they came. Whatever is none is left out: a bundle without a number has number 0.
#[must_use]
pub fn numbered(bundles: &BundleSet, metadata: Option<&Metadata>) -> BundleSet {
    let numbers = sequences(metadata);
    let mut all = BundleSet::default();
    for bundle in bundles.iter() {
        let number = numbers.get(bundle.trust_domain()).copied().unwrap_or_default();
        all.insert(Arc::new(TrustBundle::clone(bundle).with_sequence(number)));
    }
    all
}

fn sequences(metadata: Option<&Metadata>) -> Sequences {
    let all = metadata.and_then(|metadata| metadata.filter_metadata.get(KEY));
    let fields = all.into_iter().flat_map(|all| &all.fields).take(MAX_DOMAINS);
    let number = |(domain, value): (&String, &Value)| match &value.kind {
        Some(Kind::StringValue(text)) => Some((domain.parse().ok()?, text.parse().ok()?)),
        _ => None,
    };
    fields.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_sequence_number_is_left_out() {
        let value = |kind| Value { kind: Some(kind) };
        let fields = [
            ("td.test", value(Kind::StringValue("18446744073709551615".into()))),
            ("other.test", value(Kind::NumberValue(7.0))),
            ("NO", value(Kind::StringValue("7".into()))),
            ("third.test", value(Kind::StringValue("-1".into()))),
        ];
        let all = Struct {
            fields: fields.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        let metadata = Metadata {
            filter_metadata: [(KEY.to_owned(), all)].into(),
        };
        let read = sequences(Some(&metadata));
        assert_eq!(read, Sequences::from([("td.test".parse().unwrap(), u64::MAX)]));
        assert_eq!(sequences(None), Sequences::new());
    }
}
