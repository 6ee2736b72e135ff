//! HTTP/1 from the client to the upstream and back.

use signet_proxy::config::Speaks;
use signet_proxy::connection::{Direction, Security};

use super::site::{ALLOW_ALL, BACK, Echo, FRONT, Site, accepted, scripted, upstream};

#[tokio::test]
async fn a_request_is_forwarded_and_the_application_learns_who_asks() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    client
        .send(
            "GET /a?b=c HTTP/1.1\r\nHost: back:8080\r\nX-Forwarded-Client-Cert: By=me\r\nConnection: x-hop\r\n\
             X-Hop: 1\r\nX-Kept: 2\r\nx-forwarded-for: 1.2.3.4\r\n\r\n",
        )
        .await;
    let (head, body) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let hash = "ab".repeat(32);
    for line in [
        "GET /a?b=c HTTP/1.1",
        "host: back:8080",
        "x-kept: 2",
        "x-forwarded-for: 1.2.3.4",
        "x-forwarded-proto: https",
        &format!("x-forwarded-client-cert: By={BACK};Hash={hash};URI={FRONT}"),
    ] {
        assert!(body.lines().any(|one| one == line), "{line} in {body}");
    }
    assert!(!body.contains("x-hop") && !body.contains("By=me"), "{body}");
    assert!(body.contains("x-request-id: "));
}

#[tokio::test]
async fn without_an_identity_nothing_is_told_of_one() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut plain = accepted();
    plain.security = Security::Plaintext;
    let mut client = site.connect_as(plain, &echo.upstream());
    client
        .send(
            "GET / HTTP/1.1\r\nHost: b\r\nX-Forwarded-Client-Cert: URI=x\r\nX-Forwarded-Proto: https\r\n\r\n",
        )
        .await;
    let (_, body) = client.answer().await;
    assert!(!body.contains("x-forwarded-client-cert"), "{body}");
    assert!(body.contains("x-forwarded-proto: http\n"), "{body}");
}

#[tokio::test]
async fn requests_of_a_connection_follow_one_another_over_one_upstream_connection() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    for number in 0..5 {
        let body = "x".repeat(number);
        let text = format!("POST /{number} HTTP/1.1\r\nHost: b\r\nContent-Length: {number}\r\n\r\n{body}");
        client.send(text).await;
        let (_, told) = client.answer().await;
        assert!(told.starts_with(&format!("POST /{number} ")), "{told}");
        assert!(told.ends_with(&format!("body {body}")), "{told}");
    }
    client
        .send("GET /p1 HTTP/1.1\r\nHost: b\r\n\r\nGET /p2 HTTP/1.1\r\nHost: b\r\n\r\n")
        .await;
    assert!(client.answer().await.1.starts_with("GET /p1 "));
    assert!(client.answer().await.1.starts_with("GET /p2 "));
    assert_eq!(echo.connections(), 1);
    let metrics = site.metrics();
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("istio_requests_total{"))
        .unwrap();
    assert!(
        counted.contains(&format!("source_principal=\"{FRONT}\"")),
        "{counted}"
    );
    assert!(
        counted.ends_with(" 7") || counted.ends_with(" 6"),
        "the last one may still be closing: {counted}"
    );
}

#[tokio::test]
async fn chunks_and_trailers_pass_in_both_directions() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    client
        .send(
            "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, host\r\n\r\n\
             3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\n",
        )
        .await;
    let (_, told) = client.answer().await;
    assert!(told.contains("body abcdefg"), "{told}");
    assert!(
        told.contains("trailer x-sum: 7") && !told.contains("evil"),
        "{told}"
    );

    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n2\r\nhi\r\n0\r\nX-End: 1\r\n\r\n";
    let (address, _) = scripted(answer, false).await;
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client
        .send("GET / HTTP/1.1\r\nHost: b\r\nTE: trailers\r\nConnection: te\r\n\r\n")
        .await;
    let text = client.until("0\r\nx-end: 1\r\n\r\n").await;
    assert!(text.contains("2\r\nhi\r\n"), "{text}");
}

#[tokio::test]
async fn trailers_that_nobody_announced_are_left_out_before_http1_and_pass_before_http2() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    for (speaks, passes) in [(Speaks::Http1, false), (Speaks::Http2, true)] {
        let mut client = site.connect(&upstream(echo.address, speaks));
        for _ in 0..2 {
            client
                .send("POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n")
                .await;
            let (_, told) = client.answer().await;
            assert!(told.ends_with("body abc"), "{told}");
            assert_eq!(told.contains("trailer x-sum: 7"), passes, "{speaks:?}: {told}");
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-End: 1\r\n\r\n";
    let (address, _) = scripted(answer, false).await;
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    for _ in 0..2 {
        client
            .send("GET / HTTP/1.1\r\nHost: b\r\nTE: trailers\r\nConnection: te\r\n\r\n")
            .await;
        let text = client.until("0\r\n\r\n").await;
        assert!(text.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{text}");
    }
}

/// Tells the application who a token is of.
const CLAIMS: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: b}
spec:
  jwtRules:
  - issuer: i
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-token-sub, claim: sub}]
    jwks: '{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}'
"#;

#[tokio::test]
async fn nobody_forges_what_is_ours_to_say_under_a_name_that_an_application_takes_for_it() {
    let echo = Echo::start().await;
    let site = Site::new("", CLAIMS);
    let forged = "X_Forwarded_Client_Cert: By=forged\r\nX.Forwarded.Client-Cert: forged\r\nX_Token_Sub: forged\r\n\
                  X-Token-Sub: forged\r\nx_payload: forged\r\nTransfer_Encoding: forged\r\nX_Other: kept\r\n";
    let mut client = site.connect(&upstream(echo.address, Speaks::Http2));
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n{forged}\r\n3\r\nabc\r\n0\r\n{forged}\r\n"
        ))
        .await;
    let (_, told) = client.answer().await;
    assert!(!told.contains("forged"), "{told}");
    assert!(
        told.contains("\nx_other: kept") && told.contains("trailer x_other: kept"),
        "{told}"
    );
    assert!(told.contains("\nx-forwarded-client-cert: By=spiffe://"), "{told}");
    // What a client names in Connection ends before ours is set, and ours stays.
    let mut client = site.connect(&echo.upstream());
    client
        .send("GET / HTTP/1.1\r\nHost: b\r\nX-Token-Sub: forged\r\nConnection: x-token-sub, close\r\n\r\n")
        .await;
    let told = client.rest().await;
    assert!(
        !told.contains("forged") && told.contains("x-forwarded-client-cert: By=spiffe://"),
        "{told}"
    );
    for name in ["x-forwarded-client-cert", "X_Forwarded_Client_Cert"] {
        let mut client = site.connect(&echo.upstream());
        client
            .send(format!("GET / HTTP/1.1\r\nHost: b\r\nConnection: {name}\r\n\r\n"))
            .await;
        assert!(client.rest().await.starts_with("HTTP/1.1 400"), "{name}");
    }
}

#[tokio::test]
async fn a_body_of_a_get_is_not_lost() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    client
        .send("GET / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        .await;
    assert!(client.answer().await.1.ends_with("body x"));
}

#[tokio::test]
async fn an_expectation_is_met_here_and_only_after_policy() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hi").await;
    let (_, told) = client.answer().await;
    assert!(told.ends_with("body hi") && !told.contains("expect"), "{told}");
    site.enforce(super::judged::DENY_POST);
    client
        .send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[tokio::test]
async fn the_answer_to_head_keeps_the_length_that_it_tells() {
    let (address, _) = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", false).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: b\r\n\r\n").await;
        let head = client.until("\r\n\r\n").await;
        assert!(head.contains("content-length: 1234"), "{head}");
    }
}

#[tokio::test]
async fn what_the_upstream_says_in_passing_is_left_out() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n";
    let (address, connections) = scripted(answer, false).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
        let head = client.until("\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.1 204 ") && head.contains("x-a: 1"),
            "{head}"
        );
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_passed_on_whole() {
    let (address, connections) = scripted(b"HTTP/1.1 200 OK\r\n\r\nhello", true).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n").await;
        let text = client.until("0\r\n\r\n").await;
        assert!(text.contains("5\r\nhello\r\n"), "{text}");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_its_answer_and_the_end() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&echo.upstream());
    client.send("GET /old HTTP/1.0\r\nHost: b\r\n\r\n").await;
    let text = client.rest().await;
    assert!(text.starts_with("HTTP/1.0 200 OK"), "{text}");
    assert!(text.contains("GET /old HTTP/1.1"), "{text}");
}

#[tokio::test]
async fn the_workloads_own_requests_say_nothing_of_identities() {
    let echo = Echo::start().await;
    let site = Site::unready("");
    let mut own = accepted();
    own.direction = Direction::Outbound;
    own.security = Security::Plaintext;
    let mut client = site.connect_as(own, &echo.upstream());
    client
        .send("GET / HTTP/1.1\r\nHost: b\r\nX-Forwarded-Client-Cert: URI=x\r\n\r\n")
        .await;
    let (head, told) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!told.contains("x-forwarded-client-cert"), "{told}");
    assert!(site.metrics().contains("reporter=\"source\""));
}
