//! `proxy` and `strict-ready` where there is no proxy: whoever answers instead is told apart, with what to do.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::signet;

const VERBS: [&[&str]; 6] = [
    &["proxy", "secrets"],
    &["proxy", "policies"],
    &["proxy", "connections"],
    &["proxy", "listeners"],
    &["proxy", "plaintext-clients"],
    &["strict-ready"],
];

/// A server that answers whatever is asked with these bytes.
async fn answers(bytes: impl AsRef<[u8]> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(bytes.as_ref()).await;
        }
    });
    address
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn says(address: &str, words: &[&str]) {
    for verb in VERBS {
        let ran = signet(&[verb, &["--admin", address]].concat()).await;
        assert_eq!(ran.code, 2, "{verb:?}: {ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "{verb:?}: {word} is not in: {}", ran.err);
        }
    }
}

#[tokio::test]
async fn who_is_no_proxy_is_told_apart_with_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = free.local_addr().unwrap().to_string();
    drop(free);
    says(
        &nobody,
        &[
            &nobody,
            "is signet-proxy running",
            "admin_listen",
            "kubectl port-forward",
        ],
    )
    .await;
    let no_http = answers("220 ready\r\n").await;
    says(
        &no_http,
        &[&no_http, "no admin page of a signet-proxy", "not a listener"],
    )
    .await;
    let envoy = answers(http("404 Not Found", "server: envoy\r\n", "invalid path")).await;
    says(&envoy, &["it is an Envoy", "istioctl proxy-config"]).await;
    let other = answers(http("404 Not Found", "", "no such page")).await;
    says(&other, &["status 404", "not a listener or metrics_listen"]).await;
    let text = answers(http("200 OK", "content-type: text/html\r\n", "<p>hello")).await;
    says(&text, &["no JSON"]).await;
    let older = answers(http(
        "404 Not Found",
        "content-type: text/plain\r\n",
        "pages: /config /more\n",
    ))
    .await;
    says(
        &older,
        &["this signet-proxy has no page", "the signet of its own version"],
    )
    .await;
    let strange = answers(http("200 OK", "content-type: application/json\r\n", "{}")).await;
    says(&strange, &["cannot be read", "missing field"]).await;
}

#[tokio::test]
async fn an_address_that_is_not_loopback_is_refused_before_anything_is_sent() {
    for address in ["192.0.2.1:15000", "0.0.0.0:15000", "cart.shop:15000"] {
        says(address, &["not loopback", "kubectl exec", "kubectl port-forward"]).await;
    }
    says("127.0.0.1", &["write HOST:PORT, as in 127.0.0.1:15000"]).await;
}
