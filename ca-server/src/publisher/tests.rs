use super::*;
use crate::slots::Source;
use signet_certs::{Authority, SigningKey, TrustBundle, UnixTime};

fn snapshot(sequence: u64) -> Snapshot {
    let domain: TrustDomain = "cluster.local".parse().unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let key = Arc::new(SigningKey::generate().unwrap());
    let root = Authority::self_signed_root(&domain, key, Duration::from_secs(1_000), now).unwrap();
    let bundle = TrustBundle::new(domain, vec![root.certificate().clone()], sequence).unwrap();
    Snapshot::new(Arc::new(bundle), Arc::new(root), Source::OwnRoot, now)
}

fn published(snapshot: &Snapshot, pem: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            labels: Some(labels("signet-ca-root-cert")),
            annotations: Some(annotations(snapshot)),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(DATA_KEY.to_owned(), pem.to_owned())])),
        ..ConfigMap::default()
    }
}

#[test]
fn a_configmap_is_written_only_when_it_differs_and_never_when_it_knows_more() {
    let ours = snapshot(5);
    let pem = ours.bundle.to_pem();
    assert_eq!(need(None, &ours, &pem), Need::Create);
    assert_eq!(need(Some(&published(&ours, &pem)), &ours, &pem), Need::Nothing);
    assert_eq!(need(Some(&published(&ours, "edited")), &ours, &pem), Need::Update);
    assert_eq!(
        need(Some(&published(&snapshot(4), &pem)), &ours, &pem),
        Need::Update
    );
    assert_eq!(
        need(Some(&published(&snapshot(6), "newer")), &ours, &pem),
        Need::Newer
    );
    let mut bare = published(&ours, &pem);
    bare.metadata.annotations = None;
    assert_eq!(need(Some(&bare), &ours, &pem), Need::Update);
}

#[test]
fn a_patch_holds_only_for_the_version_that_was_judged() {
    let ours = snapshot(5);
    let patch = patch("signet-ca-root-cert", Some("17"), &ours, &ours.bundle.to_pem());
    assert_eq!(patch["metadata"]["resourceVersion"], "17");
}

#[test]
fn the_newest_published_bundle_of_our_trust_domain_is_found() {
    let domain: TrustDomain = "cluster.local".parse().unwrap();
    let named = |namespace: &str, sequence: u64| {
        let mut map = published(&snapshot(sequence), "pem");
        map.metadata.namespace = Some(namespace.into());
        map.metadata.name = Some("roots".into());
        map
    };
    let mut foreign = named("c", 9);
    let annotations = foreign.metadata.annotations.as_mut().unwrap();
    annotations.insert(TRUST_DOMAIN.into(), "other.test".into());
    let found = newest(vec![named("a", 3), named("b", 7), foreign], &domain);
    let expected = Published {
        place: "b/roots".into(),
        sequence: 7,
    };
    assert_eq!(found, Some(expected));
    assert_eq!(newest(Vec::new(), &domain), None);
}
