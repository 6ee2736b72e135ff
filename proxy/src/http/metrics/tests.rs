use signet_certs::UnixTime;

use super::*;
use crate::connection::{Peer, Security};

fn accepted(peer: &str) -> Accepted {
    let security = Security::Mutual(Peer {
        id: peer.parse().unwrap(),
        leaf_sha256: [0; 32],
        not_after: UnixTime::since_unix_epoch(std::time::Duration::from_secs(9)),
        proof: None,
    });
    Accepted {
        id: 1,
        direction: Direction::Inbound,
        security,
        source: "10.0.0.1:1".parse().unwrap(),
        remote: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2:80".parse().unwrap(),
        port: 80,
        sni: None,
        alpn: None,
        own_not_after: None,
        own_id: Some("spiffe://cluster.local/ns/b/sa/back".parse().unwrap()),
    }
}

fn kind() -> Kind {
    Kind {
        protocol: "http",
        code: Code::of(200),
        flags: "-",
        grpc: "",
        upstream: None,
    }
}

#[test]
fn requests_count_under_istios_names_and_labels() {
    let mut registry = Registry::default();
    let local = Local {
        name: Some("back".into()),
        namespace: Some("b".into()),
        service: Some("back.b.svc.cluster.local".into()),
        ..Local::default()
    };
    let metrics = HttpMetrics::new(&mut registry, &local);
    let series = metrics.series(&accepted("spiffe://cluster.local/ns/a/sa/front"), &kind());
    series.count(3.0, 10, 20);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("istio_requests_total{"))
        .unwrap();
    for label in [
        r#"reporter="destination""#,
        r#"source_principal="spiffe://cluster.local/ns/a/sa/front""#,
        r#"source_workload="unknown""#,
        r#"destination_principal="spiffe://cluster.local/ns/b/sa/back""#,
        r#"destination_workload="back""#,
        r#"destination_service="back.b.svc.cluster.local""#,
        r#"response_code="200""#,
        r#"connection_security_policy="mutual_tls""#,
    ] {
        assert!(line.contains(label), "{label} in {line}");
    }
    for name in [
        "istio_request_duration_milliseconds_bucket",
        "istio_request_bytes_sum",
        "istio_response_bytes_count",
    ] {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn an_upstream_does_not_choose_how_many_series_there_are() {
    let mut registry = Registry::default();
    let metrics = HttpMetrics::new(&mut registry, &Local::default());
    for status in 0..1000 {
        let grpc = grpc_status((status % 100).to_string().as_bytes());
        let code = Code::of(status);
        let kind = Kind { code, grpc, ..kind() };
        metrics
            .series(&accepted("spiffe://cluster.local/ns/a/sa/front"), &kind)
            .count(1.0, 0, 0);
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let value = |line: &str, label: &str| {
        let (_, rest) = line.split_once(&format!("{label}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let lines = || {
        text.lines()
            .filter(|line| line.starts_with("istio_requests_total{"))
    };
    let of = |label: &str| -> HashSet<String> { lines().map(|line| value(line, label)).collect() };
    let codes = of("response_code");
    assert_eq!(codes.len(), 1 + 500 + 1, "none, 100 to 599, and the others");
    assert!(codes.contains("0") && codes.contains("other") && codes.contains("599"));
    assert!(!codes.contains("600"));
    assert_eq!(of("grpc_response_status").len(), 17 + 1);
}

#[test]
fn the_peer_after_the_thousandth_is_another() {
    let metrics = HttpMetrics::new(&mut Registry::default(), &Local::default());
    for number in 0..MAX_PEERS + 5 {
        let peer = format!("spiffe://cluster.local/ns/a/sa/s{number}");
        metrics.series(&accepted(&peer), &kind()).count(1.0, 0, 0);
        let labels = metrics.labels(&accepted(&peer), &kind());
        let own = &*labels.source_principal == peer.as_str();
        assert_eq!(own, number < MAX_PEERS, "{peer}");
    }
    assert_eq!(metrics.other_peers.get(), 5);
    let known = metrics.labels(&accepted("spiffe://cluster.local/ns/a/sa/s0"), &kind());
    assert_eq!(&*known.source_principal, "spiffe://cluster.local/ns/a/sa/s0");
}
