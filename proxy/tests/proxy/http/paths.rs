//! Paths that two servers may read in two ways: what policy saw is what the upstream received, whatever the
//! normalization.

use super::site::{ALLOW_ALL, Echo, Site};

const CONFUSING: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "/a//b",
    "//a",
    "///",
    "/a/./b",
    "/a/../b",
    "/a/../../b",
    "/..",
    "/.",
    "/a/..",
    "/a/.",
    "/a/...",
    "/a/.b",
    "/a/..b",
    "/%2e%2e/a",
    "/a/%2E%2e/b",
    "/a/%2e/b",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a%5Cb",
    "/a%252fb",
    "/a%252e%252e/b",
    "/a\\b",
    "/a\\..\\b",
    "/a/..\\b",
    "/a%2f..%2fb",
    "/a/..%2fb",
    "/a/%2e%2e%2fb",
    "/a;x/b",
    "/a/..;x/b",
    "/a/.;x/b",
    "/a/;x/b",
    "/a;x=../b",
    "/A/b",
    "/a%41",
    "/%61",
    "/%7e",
    "/%7E",
    "/~",
    "/a%20b",
    "/a+b",
    "/a%00b",
    "/a%0ab",
    "/a%0d%0ab",
    "/a%c0%afb",
    "/a%c0%ae%c0%ae/b",
    "/a%ef%bc%8fb",
    "/%e2%80%ae",
    "/a%",
    "/a%2",
    "/a%zz",
    "/a%2g",
    "/a?b",
    "/a?b/../c",
    "/a?b%2fc",
    "/a??b",
    "/a?b#c",
    "/a#b",
    "/a#b?c",
    "/#",
    "/a%23b",
    "/a%3fb",
    "/a%3Fb?c",
    "/a:b",
    "/a@b",
    "/http://x/y",
    "//x/y",
    "/a*b",
    "/{a}",
    "/a|b",
    "/a\"b",
    "/a'b",
    "/a<b",
    "/a^b",
    "/a`b",
    "/\u{e9}",
    "http://b/a/../c",
    "http://b",
    "http://b?x",
    "http://b//a",
    "HTTP://b/x",
];

/// The path that the upstream was sent, or the status that the client got instead.
async fn received(site: &Site, echo: &Echo, target: &str) -> Result<String, String> {
    let before = echo.count();
    let mut client = site.connect(&echo.upstream());
    client
        .send(format!(
            "GET {target} HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"
        ))
        .await;
    let answer = client.rest().await;
    let status = answer.split(' ').nth(1).unwrap_or("none").to_owned();
    if status != "200" {
        assert_eq!(
            echo.count(),
            before,
            "{target:?} was refused with {status} and forwarded"
        );
        return Err(status);
    }
    let told = echo.last();
    Ok(told.split(' ').nth(1).unwrap().to_owned())
}

/// A policy that allows, or denies, exactly one path.
fn exactly(action: &str, path: &str) -> String {
    let path = serde_json::to_string(path).unwrap();
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: exact, namespace: b}}\n\
         spec:\n  action: {action}\n  rules:\n  - to: [{{operation: {{paths: [{path}]}}}}]\n"
    )
}

#[tokio::test]
async fn what_policy_saw_is_what_the_upstream_received() {
    for normalization in ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] {
        let echo = Echo::start().await;
        let site = Site::new(&format!("path_normalization: {normalization}\n"), ALLOW_ALL);
        let mut passed = 0;
        for target in CONFUSING {
            site.enforce(ALLOW_ALL);
            let sent = match received(&site, &echo, target).await {
                Ok(sent) => sent,
                Err(status) => {
                    assert_eq!(status, "400", "{target:?}");
                    continue;
                }
            };
            passed += 1;
            let path = sent.split('?').next().unwrap();
            if path.starts_with('*') || path.ends_with('*') || path.contains(['{', '}']) {
                continue;
            }
            site.enforce(&exactly("DENY", path));
            let denied = received(&site, &echo, target).await;
            assert_eq!(
                denied,
                Err("403".into()),
                "{normalization} {target:?}: policy did not see {path:?}"
            );
            site.enforce(&exactly("ALLOW", path));
            let allowed = received(&site, &echo, target).await;
            assert_eq!(allowed, Ok(sent.clone()), "{normalization} {target:?}");
            site.enforce(&exactly("ALLOW", &format!("{path}x")));
            let other = received(&site, &echo, target).await;
            assert_eq!(other, Err("403".into()), "{normalization} {target:?}");
        }
        assert!(passed > 40, "{normalization}: {passed}");
    }
}

#[tokio::test]
async fn no_path_that_climbs_reaches_the_upstream_unless_nothing_is_normalized() {
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    for target in CONFUSING {
        if let Ok(sent) = received(&site, &echo, target).await {
            let path = sent.split('?').next().unwrap().to_lowercase();
            let climbs = path
                .split('/')
                .any(|segment| matches!(segment, "." | ".." | "%2e" | "%2e%2e"));
            assert!(
                !climbs && !path.contains('\\') && !path.contains("%00"),
                "{target:?} became {sent:?}"
            );
        }
    }
}

#[tokio::test]
async fn over_http2_paths_are_read_as_over_http1() {
    use http_body_util::Full;
    let echo = Echo::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut sender = site.connect(&echo.upstream()).http2().await;
    for target in CONFUSING.iter().filter(|target| target.starts_with('/')) {
        let Ok(path) = http::uri::PathAndQuery::try_from(*target) else {
            continue;
        };
        let uri = http::Uri::builder()
            .scheme("http")
            .authority("b")
            .path_and_query(path)
            .build()
            .unwrap();
        let request = http::Request::get(uri)
            .body(Full::<bytes::Bytes>::default())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let over_http2 = match answer.status().as_u16() {
            200 => Ok(echo
                .last()
                .split(' ')
                .nth(1)
                .unwrap()
                .trim_start_matches("http://b")
                .to_owned()),
            status => Err(status.to_string()),
        };
        assert_eq!(over_http2, received(&site, &echo, target).await, "{target:?}");
    }
}
