use std::collections::HashSet;

use super::*;
use crate::config::Local;
use crate::metrics::labels::tests::accepted;
use crate::metrics::labels::{MAX_PEERS, MAX_SETS};

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
    let metrics = HttpMetrics::new(&mut registry, &Census::new(&local));
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
        r#"destination_service_name="back""#,
        r#"destination_service_namespace="b""#,
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

fn count(metrics: &HttpMetrics, peer: &str, status: u16) {
    let peer = format!("spiffe://cluster.local/ns/a/sa/{peer}");
    let kind = Kind {
        protocol: "grpc",
        code: Code::of(status),
        grpc: grpc_status((status % 100).to_string().as_bytes()),
        ..kind()
    };
    metrics.series(&accepted(&peer), &kind).count(1.0, 0, 0);
}

fn lines(registry: &Registry) -> Vec<String> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let requests = |line: &&str| line.starts_with("istio_requests_total{");
    text.lines().filter(requests).map(str::to_owned).collect()
}

fn value(line: &str, label: &str) -> String {
    let (_, rest) = line.split_once(&format!("{label}=\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

#[test]
fn nobody_chooses_how_many_series_there_are_and_every_request_is_in_one() {
    let mut registry = Registry::default();
    let metrics = HttpMetrics::new(&mut registry, &Census::default());
    for status in (0..1).chain(100..1000) {
        count(&metrics, "echo", status);
    }
    let mine = lines(&registry);
    let of = |label: &str| -> HashSet<String> { mine.iter().map(|line| value(line, label)).collect() };
    let codes = of("response_code");
    for class in ["0", "100", "198", "1xx", "2xx", "3xx", "4xx", "5xx", "other"] {
        assert!(codes.contains(class), "{class} in {codes:?}");
    }
    assert!(mine.len() <= MAX_COARSE, "{}", mine.len());
    let sum: usize = mine
        .iter()
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap())
        .sum();
    assert_eq!(sum, 901);
    assert!(metrics.coarse.get() > 0);
    assert_eq!(metrics.other_peers.get(), 0, "it is still named");
    assert_eq!(of("grpc_response_status").len(), 17 + 1);

    // Its excess is not at the cost of others.
    let before = metrics.coarse.get();
    count(&metrics, "front", 201);
    assert_eq!(metrics.coarse.get(), before);
}

#[test]
fn where_there_is_no_room_at_all_peers_share_coarse_series() {
    let mut registry = Registry::default();
    let census = Census::default();
    let metrics = HttpMetrics::new(&mut registry, &census);
    count(&metrics, "known", 200);
    for number in 0..MAX_SETS {
        let _ = census.admits("unknown", number + 1);
    }
    let before = lines(&registry).len();
    for (peer, status) in [("known", 404), ("late", 404), ("later", 503)] {
        count(&metrics, peer, status);
    }
    count(&metrics, "known", 200);
    assert_eq!(
        (metrics.other_peers.get(), metrics.coarse.get()),
        (3, 3),
        "what has a series keeps it"
    );
    let lines = lines(&registry);
    assert_eq!(lines.len(), before + 2);
    let others = lines
        .iter()
        .filter(|line| value(line, "source_principal") == OTHER);
    let codes: HashSet<String> = others.map(|line| value(line, "response_code")).collect();
    assert_eq!(codes, HashSet::from(["4xx".to_owned(), "5xx".to_owned()]));
}

#[test]
fn the_peer_after_the_thousandth_is_another() {
    let mut registry = Registry::default();
    let metrics = HttpMetrics::new(&mut registry, &Census::default());
    for number in 0..MAX_PEERS + 5 {
        count(&metrics, &format!("s{number}"), 200);
    }
    assert_eq!((metrics.other_peers.get(), metrics.coarse.get()), (5, 0));
    assert_eq!(lines(&registry).len(), MAX_PEERS + 1);
}

#[test]
fn bytes_beyond_four_gibibytes_count_as_what_they_are() {
    let mut registry = Registry::default();
    let metrics = HttpMetrics::new(&mut registry, &Census::default());
    let (received, sent) = (6 << 30, (1 << 53) - 1);
    let series = metrics.series(&accepted("spiffe://cluster.local/ns/a/sa/front"), &kind());
    series.count(1.0, received, sent);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (name, bytes) in [
        ("istio_request_bytes_sum{", received),
        ("istio_response_bytes_sum{", sent),
    ] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.ends_with(&format!(" {bytes}.0")), "{line}");
    }
}
