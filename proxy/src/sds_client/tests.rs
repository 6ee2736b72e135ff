use signet_certs::{Authority, BundleSet, SigningKey, TrustBundle};
use signet_proto::sds::{roots_by_domain, sequences_message};
use signet_runtime::SystemClock;

use super::*;

fn root() -> Authority {
    let key = Arc::new(SigningKey::generate().unwrap());
    let year = Duration::from_secs(86_400 * 365);
    Authority::self_signed_root(&"cluster.local".parse().unwrap(), key, year, SystemClock.now()).unwrap()
}

/// The resource of an agent that has this bundle.
fn offered(root: &Authority, sequence: u64, version: &str) -> Resource {
    let roots = vec![root.certificate().clone()];
    let bundle = TrustBundle::new("cluster.local".parse().unwrap(), roots, sequence).unwrap();
    let bundles = BundleSet::of(Arc::new(bundle));
    Resource {
        version: version.into(),
        resource: Some(roots_by_domain(ALL, &bundles)),
        name: ALL.into(),
        metadata: Some(sequences_message(&bundles)),
    }
}

#[test]
fn roots_of_an_agent_that_is_behind_are_refused() {
    let config = "policies: agent\n";
    let config = Arc::new(Config::from_text(config).unwrap());
    let (shelf, keys) = Shelf::new(config.trust_domain.clone());
    let readiness = Readiness::waiting_for(&[]);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut client = SdsClient::new(config, shelf, clock, Metrics::default(), readiness);
    let (old, new) = (root(), root());
    let answer = |resource: Resource| DeltaDiscoveryResponse {
        resources: vec![resource],
        nonce: "1".into(),
        ..DeltaDiscoveryResponse::default()
    };
    let taken = client.answer(answer(offered(&new, 7, "new")));
    assert_eq!(taken.error_detail, None);
    let refused = client.answer(answer(offered(&old, 6, "old")));
    let why = refused.error_detail.unwrap().message;
    assert!(
        why.contains("has sequence 6 and is older than the one in force, of sequence 7"),
        "{why}"
    );
    let snapshot = keys.current().unwrap();
    let roots = snapshot
        .bundles()
        .get(&"cluster.local".parse().unwrap())
        .unwrap()
        .roots();
    assert_eq!(roots[0].certificate().der(), new.certificate().der());
    // The next agent is told of the version that is in force.
    assert_eq!(client.first().initial_resource_versions[ALL], "new");
}
