use super::published::{HIGHEST_AT_START, newest};
use super::*;
use crate::slots::Source;
use signet_certs::{Authority, SigningKey, TrustBundle, TrustDomain, UnixTime};

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
fn a_sequence_from_which_there_is_no_way_on_is_no_reason_to_leave_a_configmap_alone() {
    let ours = snapshot(5);
    let pem = ours.bundle.to_pem();
    for sequence in [HIGHEST_SEQUENCE + 1, u64::MAX] {
        let theirs = published(&snapshot(sequence), "theirs");
        assert_eq!(need(Some(&theirs), &ours, &pem), Need::Update);
    }
}

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn named(namespace: &str, name: &str, sequence: u64) -> ConfigMap {
    let mut map = published(&snapshot(sequence), "pem");
    map.metadata.namespace = Some(namespace.into());
    map.metadata.name = Some(name.into());
    map
}

#[test]
fn the_newest_published_bundle_of_our_trust_domain_is_found() {
    let mut foreign = named("c", "roots", 9);
    let annotations = foreign.metadata.annotations.as_mut().unwrap();
    annotations.insert(TRUST_DOMAIN.into(), "other.test".into());
    let mut silent = named("d", "roots", 10);
    let annotations = silent.metadata.annotations.as_mut().unwrap();
    annotations.remove(TRUST_DOMAIN);
    let maps = vec![named("a", "roots", 3), named("b", "roots", 7), foreign, silent];
    let expected = Published {
        place: "b/roots".into(),
        sequence: 7,
    };
    assert_eq!(newest(None, maps, &domain()).unwrap(), Some(expected));
    assert_eq!(newest(None, Vec::new(), &domain()).unwrap(), None);
}

#[test]
fn a_sequence_that_no_ca_reaches_is_refused_by_the_name_of_its_configmap() {
    let maps = vec![named("a", "roots", 3), named("tenant", "roots", u64::MAX)];
    let refused = newest(None, maps, &domain()).unwrap_err();
    assert!(!refused.is_transient());
    let said = refused.to_string();
    assert!(
        said.starts_with("configmap tenant/roots says bundle sequence 18446744073709551615"),
        "{said}"
    );
}

#[test]
fn a_root_that_goes_on_from_what_a_first_start_believes_is_believed_itself() {
    let found = |sequence| newest(None, vec![named("tenant", "roots", sequence)], &domain());
    let last = found(HIGHEST_AT_START).unwrap().unwrap().sequence;
    let new_root = published(&snapshot(last + 1), "ours");
    assert_eq!(need(Some(&new_root), &snapshot(5), "theirs"), Need::Newer);
    for above in [HIGHEST_AT_START + 1, HIGHEST_SEQUENCE] {
        let refused = found(above).unwrap_err().to_string();
        let bound = format!("at most {HIGHEST_AT_START} is believed");
        assert!(refused.contains(&bound), "{refused}");
    }
}

/// An API server that has `maps` of the name `roots`, tells them one by one, and notes what it is asked for.
fn serving(maps: Vec<ConfigMap>) -> (kube::Client, Arc<std::sync::Mutex<Vec<String>>>) {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let page = query
            .split("continue=")
            .nth(1)
            .map_or(0, |rest| rest.parse::<usize>().unwrap());
        let next = (page + 1 < maps.len()).then(|| (page + 1).to_string());
        let items: Vec<_> = maps.get(page).cloned().into_iter().collect();
        notes.lock().unwrap().push(query);
        let list = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMapList",
            "metadata": { "resourceVersion": "1", "continue": next },
            "items": items,
        });
        let body = kube::client::Body::from(serde_json::to_vec(&list).unwrap());
        async move { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
    });
    (kube::Client::new(service, "default"), asked)
}

#[tokio::test]
async fn every_page_of_the_configured_names_is_read_and_nothing_else_asked_for() {
    let maps = (1..=3).map(|n| named(&format!("ns-{n}"), "roots", n)).collect();
    let (client, asked) = serving(maps);
    let found = already_published(&client, &["roots".to_owned()], &domain())
        .await
        .unwrap();
    assert_eq!(found.unwrap().place, "ns-3/roots");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    for query in asked.iter() {
        assert!(query.contains("fieldSelector=metadata.name%3Droots"), "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_asked_again_later() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
    });
    let client = kube::Client::new(service, "default");
    let late = already_published(&client, &["roots".to_owned()], &domain())
        .await
        .unwrap_err();
    assert!(
        matches!(late, PublishedError::Late { .. }) && late.is_transient(),
        "{late}"
    );
}

/// One namespace whose API calls hang does not hold up the others.
#[tokio::test(start_paused = true)]
async fn a_slow_namespace_does_not_hold_up_the_others_and_missing_ones_come_first() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        notes.lock().unwrap().push((method, path.clone()));
        async move {
            if path.contains("/slow-") {
                std::future::pending::<()>().await;
            }
            let body = kube::client::Body::from(br#"{"metadata":{}}"#.to_vec());
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        }
    });
    let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
    let client = kube::Client::new(service, "default");
    let publisher = Publisher::new(client, &["roots".to_owned()], metrics);
    let (namespaces, mut writer) = kube::runtime::reflector::store();
    let (maps, mut map_writer) = kube::runtime::reflector::store();
    let names = (0..10)
        .map(|n| format!("old-{n}"))
        .chain((0..4).map(|n| format!("slow-{n}")))
        .chain((0..40).map(|n| format!("new-{n}")));
    for name in names {
        if name.starts_with("old") {
            map_writer.apply_watcher_event(&watcher::Event::Apply(named(&name, "roots", 1)));
        }
        let metadata = ObjectMeta {
            name: Some(name),
            ..ObjectMeta::default()
        };
        writer.apply_watcher_event(&watcher::Event::Apply(Namespace {
            metadata,
            ..Namespace::default()
        }));
    }
    let known = Known {
        namespaces,
        maps: vec![maps],
    };
    let began = tokio::time::Instant::now();
    assert_eq!(publisher.round(&snapshot(5), &known).await, 4);
    assert_eq!(began.elapsed(), CALL_DEADLINE, "all of the slow ones at once");
    let asked = asked.lock().unwrap();
    let first_update = asked.iter().position(|(method, _)| method == http::Method::PATCH);
    assert_eq!((asked.len(), first_update), (54, Some(44)));
}
