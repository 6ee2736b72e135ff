use std::net::SocketAddr;

use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;
const WINDOW: Option<Duration> = Some(Duration::from_secs(2 * HOUR));

fn at(ago: u64) -> Moment {
    Moment(UnixTime::since_unix_epoch(Duration::from_secs(NOW - ago)))
}

/// A proxy that has looked for so long, and saw these clients, each so long ago.
fn seen(looked: u64, clients: &[(&str, u64)]) -> Seen {
    let ruling = json!({"mode": "PERMISSIVE", "by": null});
    let policies = json!({
        "source": {"source": "files", "version": "1", "since": null, "namespace": "shop", "labels": {}, "faults": [],
            "failure": null},
        "in_force": {"version": "1", "policies": [], "unenforceable": [], "token_issuers": [],
            "mutual_tls": {"workload": ruling, "ports": {"80": {"mode": "STRICT", "by": "shop/a"}, "81": ruling}}},
    });
    let listeners = json!({"listeners": [
        {"direction": "inbound", "captures": false, "address": "127.0.0.1:1", "upstream": "127.0.0.1:2"},
    ]});
    let client = |(address, ago): &(&str, u64)| PlaintextClient {
        address: address.parse().unwrap(),
        port: 80,
        connections: 2,
        passed_through: 0,
        first: Some(at(*ago)),
        last: at(*ago),
    };
    Seen {
        spiffe_id: None,
        listeners: serde_json::from_value(listeners).unwrap(),
        policies: serde_json::from_value(policies).unwrap(),
        clients: PlaintextClients {
            since: at(looked),
            clients: clients.iter().map(client).collect(),
            unlisted_connections: 0,
        },
        connections: Connections {
            open: 0,
            connections: Vec::new(),
        },
    }
}

fn with_open(mut seen: Seen, source: &str, security: &str) -> Seen {
    let open = json!({
        "connection": 1, "direction": "inbound", "security": security, "source": source,
        "destination": "10.0.0.1:80", "port": 80, "peer": null, "own_id": null, "own_not_after": null, "sni": null,
        "alpn": null,
    });
    seen.connections
        .connections
        .push(serde_json::from_value(open).unwrap());
    seen.connections.open += 1;
    seen
}

fn judged(seen: Seen, window: Option<Duration>) -> Judged {
    Judged::of("127.0.0.1:15000".into(), seen, window, at(0).0)
}

#[test]
fn a_client_without_mutual_tls_is_no_go_and_nobody_is_go() {
    assert_eq!(judged(seen(HOUR, &[]), None).verdict, Verdict::Go);
    let no = judged(seen(HOUR, &[("10.0.0.7", 1)]), None);
    assert_eq!(
        (no.verdict, no.clients.len(), no.reason),
        (Verdict::NoGo, 1, None)
    );
    assert_eq!(no.mode.as_deref(), Some("PERMISSIVE"));
    assert_eq!(no.port_modes, BTreeMap::from([(80, "STRICT".to_owned())]));
}

#[test]
fn clients_beyond_the_list_are_no_go_though_nobody_knows_them() {
    let mut seen = seen(HOUR, &[]);
    seen.clients.unlisted_connections = 1;
    assert_eq!(judged(seen.clone(), None).verdict, Verdict::NoGo);
    assert_eq!(judged(seen, WINDOW).verdict, Verdict::NoGo);
}

#[test]
fn a_window_forgets_who_has_left_before_it_began() {
    let left = || seen(9 * HOUR, &[("10.0.0.7", 2 * HOUR + 1)]);
    assert_eq!(judged(left(), None).verdict, Verdict::NoGo);
    assert_eq!(judged(left(), WINDOW).verdict, Verdict::Go);
    assert_eq!(
        judged(seen(9 * HOUR, &[("10.0.0.7", 2 * HOUR)]), WINDOW).verdict,
        Verdict::NoGo
    );
}

#[test]
fn a_window_does_not_forget_whose_connection_is_still_open() {
    let came = || seen(9 * HOUR, &[("10.0.0.7", 8 * HOUR)]);
    for (source, security, verdict) in [
        ("10.0.0.7:4000", "plaintext", Verdict::NoGo),
        ("[::ffff:10.0.0.7]:4000", "plaintext", Verdict::NoGo),
        ("10.0.0.7:4000", "passed_through", Verdict::NoGo),
        ("10.0.0.7:4000", "mutual_tls", Verdict::Go),
        ("10.0.0.8:4000", "plaintext", Verdict::Go),
    ] {
        assert!(source.parse::<SocketAddr>().is_ok());
        let seen = with_open(came(), source, security);
        assert_eq!(judged(seen, WINDOW).verdict, verdict, "{source} {security}");
    }
    let mut many = came();
    many.connections.open = MOST_LISTED + 1;
    assert_eq!(
        judged(many, WINDOW).verdict,
        Verdict::NoGo,
        "it may be among those that are not listed"
    );
}

#[test]
fn a_proxy_that_cannot_have_seen_everybody_gives_no_answer_but_says_no_where_it_can() {
    let short = judged(seen(HOUR, &[]), WINDOW);
    assert_eq!(short.verdict, Verdict::Unanswered);
    assert!(short.reason.unwrap().contains("ask again in 1h"));
    assert_eq!(
        judged(seen(HOUR, &[("10.0.0.7", 1)]), WINDOW).verdict,
        Verdict::NoGo
    );
    let mut unready = seen(HOUR, &[]);
    unready.policies.in_force = None;
    assert!(judged(unready, None).reason.unwrap().contains("no policies yet"));
    let mut outbound = seen(HOUR, &[]);
    outbound.listeners.listeners[0].direction = "outbound".into();
    assert!(
        judged(outbound, None)
            .reason
            .unwrap()
            .contains("no inbound listener")
    );
}

#[test]
fn one_no_go_decides_and_one_silent_proxy_forbids_a_go() {
    let go = || judged(seen(HOUR, &[]), None);
    let no_go = || judged(seen(HOUR, &[("10.0.0.7", 1)]), None);
    let silent = || Judged::unanswered("127.0.0.1:1".into(), "refused".into());
    for (proxies, verdict) in [
        (vec![go(), go()], Verdict::Go),
        (vec![go(), no_go()], Verdict::NoGo),
        (vec![silent(), no_go()], Verdict::NoGo),
        (vec![silent(), go()], Verdict::Unanswered),
        (vec![], Verdict::Unanswered),
    ] {
        assert_eq!(StrictReady::of(proxies, None).verdict, verdict);
    }
}
