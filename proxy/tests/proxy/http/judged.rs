//! Policy on requests: what is refused, with which words, and when a change takes hold.

use super::site::{ALLOW_ALL, Echo, Site};

pub(crate) const DENY_POST: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-post, namespace: b}
spec:
  action: DENY
  rules:
  - to: [{operation: {methods: ["POST"]}}]
"#;

const ONLY_FRONT: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: front, namespace: b}
spec:
  rules:
  - from: [{source: {principals: ["cluster.local/ns/a/sa/front"]}}]
    to: [{operation: {methods: ["GET"], paths: ["/api/*"]}}]
    when: [{key: "request.headers[x-tier]", values: ["gold"]}]
"#;

#[tokio::test]
async fn a_denial_is_403_with_istios_words_and_the_request_goes_nowhere() {
    let echo = Echo::start().await;
    let site = Site::new("", ONLY_FRONT);
    let mut client = site.connect(&echo.upstream());
    for (request, status) in [
        ("GET /api/x HTTP/1.1\r\nHost: b\r\nX-Tier: gold\r\n\r\n", "200"),
        ("GET /api/x HTTP/1.1\r\nHost: b\r\n\r\n", "403"),
        ("GET /other HTTP/1.1\r\nHost: b\r\nX-Tier: gold\r\n\r\n", "403"),
        (
            "GET /api/../other HTTP/1.1\r\nHost: b\r\nX-Tier: gold\r\n\r\n",
            "403",
        ),
        (
            "PUT /api/x HTTP/1.1\r\nHost: b\r\nX-Tier: gold\r\nContent-Length: 2\r\n\r\nhi",
            "403",
        ),
        (
            "GET /api/x HTTP/1.1\r\nHost: b\r\nX-Tier: tin\r\nX-Tier: silver\r\n\r\n",
            "403",
        ),
        ("GET /api/y HTTP/1.1\r\nHost: b\r\nX-Tier: gold\r\n\r\n", "200"),
    ] {
        let before = echo.count();
        client.send(request).await;
        let (head, body) = client.answer().await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{request} {head}{body}");
        if status == "403" {
            assert_eq!(body, "RBAC: access denied");
            assert!(head.contains("x-signet-decision-id: "), "{head}");
            assert_eq!(echo.count(), before, "nothing reached the upstream");
        }
    }
    assert_eq!(site.refused("policy_not_allowed"), 5);
}

#[tokio::test]
async fn a_change_of_policy_holds_from_the_next_request_on() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    let request = "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n";
    for (policies, status) in [(ALLOW_ALL, "200"), (DENY_POST, "403"), (ALLOW_ALL, "200")] {
        site.enforce(policies);
        client.send(request).await;
        let (head, _) = client.answer().await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{head}");
    }
    assert_eq!(site.refused("policy_denied"), 1);
}

#[tokio::test]
async fn before_there_are_policies_nobody_passes() {
    let echo = Echo::start().await;
    let site = Site::unready("");
    let mut client = site.connect(&echo.upstream());
    client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!((echo.connections(), site.refused("policy_not_ready")), (0, 1));
}

#[tokio::test]
async fn a_call_of_grpc_is_refused_in_its_own_words() {
    let echo = Echo::start().await;
    let site = Site::new("", ONLY_FRONT);
    let mut sender = site.connect(&echo.upstream()).http2().await;
    let request = http::Request::post("http://b/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .body(http_body_util::Full::default())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert!(
        hyper::body::Body::is_end_stream(answer.body()),
        "its trailers are its head"
    );
    assert_eq!(answer.status(), 200);
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("grpc-status", "7"),
        ("grpc-message", "RBAC:%20access%20denied"),
    ] {
        assert_eq!(answer.headers()[name], value, "{name}");
    }
    assert!(answer.headers().contains_key("x-signet-decision-id"));
    assert_eq!((site.refused("policy_not_allowed"), echo.count()), (1, 0));
    drop(answer);
    let counted = site.metrics();
    assert!(counted.contains("grpc_response_status=\"7\""), "{counted}");
}

#[tokio::test]
async fn a_call_of_grpc_web_is_http_to_us() {
    let site = Site::new("", ONLY_FRONT);
    let mut client = site.connect(&Echo::start().await.upstream());
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 0\r\n\r\n")
        .await;
    let (head, body) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert_eq!(body, "RBAC: access denied");
}

#[tokio::test]
async fn cookies_in_pieces_are_judged_as_the_application_gets_them() {
    const BY_COOKIE: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cookies, namespace: b}
spec:
  action: ACTION
  rules:
  - when: [{key: "request.headers[cookie]", values: ["a=1; role=admin"]}]
"#;
    for (action, status) in [("DENY", 403), ("ALLOW", 200)] {
        let echo = Echo::start().await;
        let site = Site::new("", &BY_COOKIE.replace("ACTION", action));
        let mut sender = site.connect(&echo.upstream()).http2().await;
        let request = http::Request::get("http://b/")
            .header("cookie", "a=1")
            .header("cookie", "role=admin")
            .body(http_body_util::Full::default())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{action}");
    }
}
