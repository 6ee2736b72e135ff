//! Two pods with proxies of their own and a node between them: what is redirected reaches the other side by mutual TLS
//! or not at all, and kubelet learns how the application is.

use serde_json::{Value, json};
use signet_tests::ca::Ca;
use signet_tests::cluster::Cluster;
use signet_tests::pods::{APPLICATION, Net, Node, PROXY};

use super::sidecar::{Parts, Sidecar};

const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const BACKEND: &str = "spiffe://cluster.local/ns/shop/sa/backend";

/// The backend demands mutual TLS, and lets its frontend in.
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: frontend, namespace: shop}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]}]}
";

struct Site {
    frontend: Sidecar,
    backend: Sidecar,
    node: Node,
    _ca: Ca,
    _cluster: Cluster,
}

impl Site {
    /// The frontend's destinations, and what becomes of others, are `outbound`.
    async fn start(outbound: Value) -> Option<Self> {
        let node = Node::start().await?;
        let cluster = Cluster::start();
        let ca = Ca::start(&cluster).await;
        let parts = |pod, config, policies, redirect| Parts {
            node: &node,
            cluster: &cluster,
            ca: &ca,
            pod,
            config,
            policies,
            redirect,
        };
        let frontend = parts(
            (1, "frontend"),
            outbound,
            STRICT,
            &["--exclude-outbound-port=7001"],
        );
        let frontend = Sidecar::start(frontend).await;
        let backend = parts(
            (2, "backend"),
            json!({}),
            STRICT,
            &["--exclude-inbound-port=7002"],
        );
        let backend = Sidecar::start(backend).await;
        Some(Self {
            frontend,
            backend,
            node,
            _ca: ca,
            _cluster: cluster,
        })
    }
}

/// Says something on a TCP connection as this user, and answers what came back, or the name of the error.
fn tcp(net: &Net, user: u32, address: &str, port: u16) -> String {
    const CLIENT: &str = r#"
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    s.settimeout(5); s.sendall(b"hello"); print(s.recv(100).decode() or "end")
except OSError as e:
    print(type(e).__name__)
"#;
    let address = address.trim_matches(['[', ']']);
    let done = net.run(user, &["python3", "-c", CLIENT, address, &port.to_string()]);
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// A reset shows at once, or with the first bytes.
fn is_reset(answer: &str) -> bool {
    ["ConnectionResetError", "BrokenPipeError"].contains(&answer)
}

fn mutual(port: u16, expected: &str, protocol: &str) -> Value {
    json!({"cidr": "10.1.2.0/24", "port": port, "protocol": protocol, "mtls": {"expected": [expected]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn redirected_both_ways_two_pods_meet_by_mutual_tls_under_strict_over_either_family() {
    let six =
        json!({"cidr": "fd00:2::/64", "port": 8080, "protocol": "http", "mtls": {"expected": [BACKEND]}});
    let destinations = json!([
        mutual(8080, BACKEND, "http"),
        mutual(7000, BACKEND, "tcp"),
        mutual(7003, FRONTEND, "tcp"),
        six,
    ]);
    let Some(site) = Site::start(json!({"destinations": destinations})).await else {
        return;
    };
    let (frontend, backend) = (&site.frontend, &site.backend);
    for address in [&backend.net.v4, &backend.net.v6] {
        let (status, body) = frontend
            .net
            .get(APPLICATION, &format!("http://{address}:8080/x"))
            .unwrap();
        assert_eq!(status, 200, "{address}: {body}");
        assert!(
            body.starts_with("/x ") && body.contains(&format!("By={BACKEND};")),
            "{body}"
        );
        assert!(body.contains(&format!("URI={FRONTEND}")), "{body}");
    }
    assert_eq!(tcp(&frontend.net, APPLICATION, &backend.net.v4, 7000), "hello");
    let served = backend
        .record("the TCP connection", |record| {
            record["port"] == 7000 && record["reason"] == "ok"
        })
        .await;
    assert_eq!(
        (&served["peer"], &served["security"]),
        (&json!(FRONTEND), &json!("mutual_tls"))
    );
    assert_eq!(served["destination"], format!("{}:7000", backend.net.v4));
    // The source is the pod itself: nothing in between took its place.
    assert!(
        served["source"].as_str().unwrap().contains(&frontend.net.v4),
        "{served}"
    );

    // Whoever is not listed is not reached, and whoever is somebody else is refused, naming both.
    assert!(is_reset(&tcp(&frontend.net, APPLICATION, &backend.net.v4, 9000)));
    let unlisted = frontend
        .record("the refusal", |record| record["reason"] == "upstream_unlisted")
        .await;
    assert_eq!(unlisted["destination"], format!("{}:9000", backend.net.v4));
    assert!(is_reset(&tcp(&frontend.net, APPLICATION, &backend.net.v4, 7003)));
    let other = frontend
        .record("the refusal", |record| {
            record["reason"] == "identity_unexpected_upstream"
        })
        .await;
    let detail = other["detail"].as_str().unwrap();
    assert!(detail.contains(FRONTEND) && detail.contains(BACKEND), "{detail}");

    // The proxy's own user, excluded ports and loopback are let go as they are; STRICT on the other side is not moved.
    let url = format!("http://{}:8080/", backend.net.v4);
    let refused = frontend.net.get(PROXY, &url).unwrap_err();
    assert!(refused.to_lowercase().contains("reset"), "{refused}");
    backend
        .record("the reset", |record| {
            record["reason"] == "tls_plaintext_refused" && record["port"] == 8080
        })
        .await;
    assert!(is_reset(&tcp(&frontend.net, APPLICATION, &backend.net.v4, 7001)));
    backend
        .record("the reset", |record| {
            record["reason"] == "tls_plaintext_refused" && record["port"] == 7001
        })
        .await;
    // Nobody listens there, and nobody stands between.
    let direct = tcp(site.node.net(), 0, &backend.net.v4, 7002);
    assert_eq!(direct, "ConnectionRefusedError");
    for own in ["127.0.0.1", "[::1]", &backend.net.v4] {
        let (status, body) = backend
            .net
            .get(APPLICATION, &format!("http://{own}:8080/y"))
            .unwrap();
        assert_eq!((status, body.as_str()), (200, "/y -"), "{own}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_take_redirected_traffic_are_nobodys_destination() {
    let outbound = json!({"default_outbound": "plaintext"});
    let Some(site) = Site::start(outbound).await else {
        return;
    };
    let (node, frontend, backend) = (site.node.net(), &site.frontend, &site.backend);
    for port in [15006, 15001] {
        for address in [&backend.net.v4, &backend.net.v6] {
            assert!(
                is_reset(&tcp(node, 0, address, port)),
                "{address}:{port} from the node"
            );
            assert!(
                is_reset(&tcp(&backend.net, APPLICATION, address, port)),
                "{address}:{port} from the pod itself"
            );
            // Redirected there, refused here: nothing leaves.
            assert!(
                is_reset(&tcp(&frontend.net, APPLICATION, address, port)),
                "{address}:{port} from another pod"
            );
        }
    }
    // By choice, what is not listed goes out as it comes: STRICT resets it, a plain server answers.
    assert!(is_reset(&tcp(&frontend.net, APPLICATION, &backend.net.v4, 7000)));
    // A packet to another host that is brought to this pod all the same is none of ours.
    site.node
        .net()
        .root(&format!("ip route add 10.99.0.1/32 via {}", backend.net.v4));
    let relayed = tcp(node, 0, "10.99.0.1", 8080);
    assert!(!relayed.contains("hello") && relayed != "end", "{relayed}");
    // Nor does a neighbour reach what listens for the pod alone, the proxy's own pages included: the rules leave what
    // comes for loopback to the kernel, which drops it.
    node.root(&format!(
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
         ip route del local 127.0.0.1 dev lo table local; ip route del local 127.0.0.0/8 dev lo table local
         ip route add 127.0.0.1/32 via {}",
        backend.net.v4
    ));
    for port in [15000, 8080] {
        assert_eq!(tcp(node, 0, "127.0.0.1", port), "TimeoutError", "{port}");
    }
    let rules = backend.net.root("iptables -t nat -nvxL SIGNET_INBOUND");
    let rule = rules.lines().find(|line| line.contains("127.0.0.0/8")).unwrap();
    let met: u32 = rule.split_whitespace().next().unwrap().parse().unwrap();
    assert!(met >= 2, "the packets came that far: {rules}");
    // The proxies are alive and have not spun.
    for pod in [frontend, backend] {
        let open = pod.net.get(PROXY, "http://127.0.0.1:15090/metrics").unwrap().1;
        let open = open
            .lines()
            .find(|line| line.starts_with("signet_proxy_connections_open "))
            .unwrap()
            .to_owned();
        assert_eq!(open, "signet_proxy_connections_open 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubelet_learns_through_the_proxy_what_a_strict_port_would_not_tell_it() {
    let Some(mut site) = Site::start(json!({})).await else {
        return;
    };
    let v4 = site.backend.net.v4.clone();
    let (app, live) = (
        format!("http://{v4}:8080/healthz"),
        format!("http://{v4}:15021/live"),
    );
    let echo = format!("http://{v4}:15021/echo");
    let kubelet = |site: &Site, url: &str| site.node.net().get(0, url);
    let refused = kubelet(&site, &app).unwrap_err();
    assert!(refused.to_lowercase().contains("reset"), "{refused}");
    let ok = Ok((200, "ok\n".to_owned()));
    assert_eq!(kubelet(&site, &live), ok);
    assert_eq!(kubelet(&site, &echo), ok);
    assert_eq!(
        kubelet(&site, &format!("http://{}:15021/live", site.backend.net.v6)),
        ok
    );
    // It is asked for nothing else, and the application's own paths are not reached by this way.
    for path in ["/", "/healthz", "/x", "/live/..;/x"] {
        let (status, body) = kubelet(&site, &format!("http://{v4}:15021{path}")).unwrap();
        assert_eq!(
            (status, body.as_str()),
            (404, "there is no such probe\n"),
            "{path}"
        );
    }
    site.backend.well(false);
    let ill = (503, "status: the application answered 500\n".to_owned());
    assert_eq!(kubelet(&site, &live), Ok(ill));
    assert_eq!(kubelet(&site, &echo), ok);
    site.backend.well(true);
    assert_eq!(kubelet(&site, &live), ok);
    site.backend.app = None;
    for url in [&live, &echo] {
        let (status, body) = kubelet(&site, url).unwrap();
        assert_eq!(status, 503);
        assert!(
            body.starts_with("unreachable: the application takes no connection"),
            "{body}"
        );
    }
    // The proxy itself is well, and says so on a port of its own.
    let (status, _) = kubelet(&site, &format!("http://{v4}:15090/healthz/ready")).unwrap();
    assert_eq!(status, 200);
    site.backend.start_app().await;
    assert_eq!(kubelet(&site, &live), ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirect_rules_are_replaced_by_a_second_run_and_leave_nothing_when_removed() {
    let Some(site) = Site::start(json!({})).await else {
        return;
    };
    let pod = &site.backend;
    let tables = || {
        ["iptables-save -t nat", "ip6tables-save -t nat"].map(|save| {
            let saved = pod.net.root(save);
            let lines = saved.lines().filter(|line| line.starts_with("-A "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        })
    };
    let first = tables();
    assert!(first.iter().all(|lines| lines.len() > 8), "{first:?}");
    pod.net.root(
        "iptables -t nat -N SIGNET_OF_AN_OLDER_VERSION; iptables -t nat -A OUTPUT -p tcp -j SIGNET_OF_AN_OLDER_VERSION
         iptables -t nat -A SIGNET_INBOUND -p tcp --dport 1 -j RETURN; iptables -t nat -A OUTPUT -p udp -j ACCEPT",
    );
    let again = pod.redirect(0, &["apply", "--exclude-inbound-port=7002"]);
    assert_eq!(again.as_deref(), Ok("redirected: IPv4 and IPv6"));
    let mut second = tables();
    let others = "-A OUTPUT -p udp -j ACCEPT".to_owned();
    second[0].retain(|line| *line != others);
    assert_eq!(second, first);

    // The words for those who lack something.
    let forbidden = pod.redirect(APPLICATION, &["apply"]).unwrap_err();
    assert!(forbidden.contains("NET_ADMIN"), "{forbidden}");
    let circle = pod.redirect(0, &["apply", "--proxy-uid=0"]).unwrap_err();
    assert!(circle.contains("user 0 is not the proxy's"), "{circle}");
    assert_eq!(tables()[1], first[1], "a refusal changes nothing");

    assert_eq!(
        pod.redirect(0, &["remove"]).as_deref(),
        Ok("removed: traffic goes past the proxy")
    );
    assert_eq!(tables(), [vec![others], vec![]]);
    assert_eq!(
        pod.redirect(0, &["remove"]).as_deref(),
        Ok("there was nothing to remove")
    );
    let (status, body) = site
        .node
        .net()
        .get(0, &format!("http://{}:8080/z", pod.net.v4))
        .unwrap();
    assert_eq!((status, body.as_str()), (200, "/z -"));
}
