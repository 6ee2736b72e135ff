//! What is spoken on a workload's ports, by the words of its services and its pod.

use serde_json::{Value, json};
use signet_devcluster::{Fault, FaultScope, ObjectRef};
use signet_proxy::config::{Protocol, Speaks};
use signet_tests::cluster::Cluster;
use signet_tests::echo::Echo;
use signet_tests::node::Node;
use signet_tests::nodes::{trusting, with_policies};
use signet_tests::proxy::ProxySetup;
use signet_tests::wait::{SOON, until};

use super::super::proxy_jwt::web::{Web, ask};
use super::world::{Proxy, node, run};

fn service(cluster: &Cluster, namespace: &str, name: &str, app: &str, ports: &Value) {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": app}, "ports": ports},
    });
    cluster.api.put(object).unwrap();
}

async fn speaks(proxy: &Proxy, port: u16, expected: Option<Protocol>) {
    until(&format!("port {port} to be {expected:?}"), SOON, async || {
        let enforced = proxy.readers.policies.current();
        enforced.is_some_and(|enforced| enforced.protocol(port) == expected)
    })
    .await;
}

const HTTP: Option<Protocol> = Some(Protocol::Http(Speaks::Auto));

fn delete(node: &Node, name: &str) {
    node.cluster
        .api
        .delete(&ObjectRef::core("services", "shop", name))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn services_tell_the_protocols_of_ports_and_none_beside_can_take_http_from_one() {
    let node = node().await;
    let pod = run(&node, "cart");
    let ports = json!([
        {"port": 80, "targetPort": 8080, "name": "http"},
        {"port": 81, "targetPort": 9090, "name": "web", "appProtocol": "grpc"},
        {"port": 82, "targetPort": 7070, "name": "web"},
    ]);
    service(&node.cluster, "shop", "cart", "cart", &ports);
    service(
        &node.cluster,
        "bank",
        "other",
        "cart",
        &json!([{"port": 7070, "name": "http"}]),
    );
    let proxy = Proxy::start(&node, &pod);
    speaks(&proxy, 8080, HTTP).await;
    speaks(&proxy, 9090, Some(Protocol::Http(Speaks::Http2))).await;
    speaks(&proxy, 7070, None).await;
    service(
        &node.cluster,
        "shop",
        "raw",
        "cart",
        &json!([{"port": 8080, "name": "tcp-raw"}]),
    );
    let mut shown = proxy.readers.status.clone();
    let disputed = shown.wait_for(|status| status.ports.get(&8080).is_some_and(|port| port.disputed));
    let shown = tokio::time::timeout(SOON, disputed).await.unwrap().unwrap().ports[&8080].clone();
    assert_eq!(shown.protocol, "http", "{shown:?}");
    speaks(&proxy, 8080, HTTP).await;
    assert_eq!(
        shown.origin,
        "Service cart, port http; but Service raw, port tcp-raw"
    );
    delete(&node, "cart");
    speaks(&proxy, 8080, Some(Protocol::Tcp)).await;
    delete(&node, "raw");
    speaks(&proxy, 8080, None).await;
    let scrape = node.agent.scrape().await;
    assert!((scrape.value("signet_agent_services", &[]) - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_is_sent_before_the_services_are_known() {
    let mut node = node().await;
    let pod = run(&node, "cart");
    service(
        &node.cluster,
        "shop",
        "cart",
        "cart",
        &json!([{"port": 80, "name": "http"}]),
    );
    node.agent.process.kill();
    let forbidden =
        json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"});
    node.cluster.api.set_fault(
        FaultScope::Services,
        Fault::Answer {
            status: 403,
            body: forbidden.to_string(),
        },
    );
    node.spawn_agent();
    let proxy = Proxy::start(&node, &pod);
    proxy.failed("unavailable").await;
    let missing = proxy.readiness.missing().join("");
    assert!(
        missing.contains("not all policies are known yet: Service:"),
        "{missing}"
    );
    assert_eq!(proxy.lets("shop"), None);
    node.cluster.api.clear_fault(FaultScope::Services);
    speaks(&proxy, 80, HTTP).await;
}

/// A refusal by path, which a port that is judged as TCP cannot tell from any other connection.
const NOT_ADMIN: &str = r#"{
    "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
    "metadata": {"name": "p", "namespace": "data"},
    "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}]}
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_http_where_its_service_or_the_configuration_says_so_and_else_tcp() {
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    cluster.workload("data", "backend");
    cluster.api.put(serde_json::from_str(NOT_ADMIN).unwrap()).unwrap();
    let agent = with_policies(&cluster, &ca).await;
    let (app, said, denied, echo) = (
        Web::mirror().await,
        Web::mirror().await,
        Web::mirror().await,
        Echo::start().await,
    );
    let number = |address: &str| address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let ports = json!([
        {"port": 80, "targetPort": number(&app.address), "name": "http"},
        {"port": 81, "targetPort": number(&said.address), "name": "http-said"},
        {"port": 82, "targetPort": number(&denied.address), "name": "tcp-denied"},
    ]);
    service(&cluster, "data", "backend", "backend", &ports);
    let proxy = ProxySetup::new(&agent.socket(), "data", "backend")
        .set("policies", "agent")
        .inbound(&app.address, json!({}))
        .inbound(&said.address, json!({"protocol": "tcp"}))
        .inbound(&denied.address, json!({"protocol": "http"}))
        .inbound(&echo.address, json!({"protocol": "tcp"}))
        .start()
        .await;
    let record = async |port: u16| {
        proxy
            .record("a refusal", |record| {
                record["reason"] == "policy_denied" && record["port"] == port
            })
            .await
    };
    // Where either says HTTP, requests are judged: nobody takes a rule from them.
    for (at, web) in [&app, &said, &denied].into_iter().enumerate() {
        assert_eq!(ask(&proxy.inbound(at), "/", &[]).await.status.as_u16(), 200);
        assert_eq!(ask(&proxy.inbound(at), "/admin", &[]).await.status.as_u16(), 403);
        record(number(&web.address)).await;
    }
    // Where nobody else says anything the configuration counts: as TCP, the rule's path counts as matched.
    // The reset may come before the connection is known to be there.
    let closed = tokio::net::TcpStream::connect(proxy.inbound(3)).await;
    record(number(&echo.address)).await;
    drop(closed);
    let page = proxy.page("/policies").await;
    for (web, origin, disputed) in [
        (&app, "Service backend, port http", false),
        (
            &said,
            "Service backend, port http-said; but the configuration says tcp",
            true,
        ),
        (
            &denied,
            "Service backend, port tcp-denied; but the configuration says http",
            true,
        ),
    ] {
        let port = &page["source"]["ports"][number(&web.address).to_string()];
        let expected = json!({"protocol": "http", "origin": origin, "disputed": disputed});
        assert_eq!(*port, expected);
    }
    let lost = &page["in_force"]["unenforceable"];
    assert_eq!(lost.as_array().map(Vec::len), Some(1), "{lost}");
    assert_eq!(lost[0]["ports"], json!([number(&echo.address)]));
}
