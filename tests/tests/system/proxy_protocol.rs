//! PROXY protocol: told to the workload where it asks for it, and never believed of a client.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use signet_tests::proxy::{Proxy, ProxySetup};
use signet_tests::wait::{SOON, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

/// The signature, version and command.
const BEGINS: &[u8; 13] = b"\r\n\r\n\0\r\nQUIT\n\x21";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A client's own forged header, in both versions.
const FORGED: [&[u8]; 2] = [
    b"PROXY TCP4 9.9.9.9 10.0.0.1 1 2\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x09\x09\x09\x09\x0a\0\0\x01\0\x01\0\x02",
];

/// An application that tells of each connection what came first, and of each request on it that it came. It answers each.
async fn application() -> (String, mpsc::UnboundedReceiver<(usize, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    let _ = tell.send((number, bytes[..read].to_vec()));
                    // A header may come in a segment of its own.
                    if bytes[..read].ends_with(b"\r\n\r\n") || bytes[..read].ends_with(b"end") {
                        let _ = stream.write_all(ANSWER).await;
                    }
                }
            });
        }
    });
    (address, told)
}

/// The source that a header of version 2 names, and what follows it.
fn source(bytes: &[u8]) -> (SocketAddr, &[u8]) {
    assert_eq!(&bytes[..13], BEGINS);
    assert_eq!(bytes[13], 0x11, "TCP over IPv4");
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let (addresses, rest) = bytes[16..].split_at(length);
    let ip: [u8; 4] = addresses[..4].try_into().unwrap();
    let port = u16::from_be_bytes([addresses[8], addresses[9]]);
    (SocketAddr::from((ip, port)), rest)
}

fn proxy(app: &str, more: serde_json::Value) -> ProxySetup {
    ProxySetup::new(Path::new("/nonexistent/agent.sock"), "shop", "app").inbound(app, more)
}

/// Starts it. There is no agent, so it has no SVID and says that it is not ready; without mutual TLS it serves.
async fn started(setup: ProxySetup) -> Proxy {
    let proxy = setup.start_unready().await;
    until("policies to be in force", SOON, async || {
        !proxy.page("/policies").await["in_force"]["version"].is_null()
    })
    .await;
    proxy
}

async fn from(address: &str, proxy: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    socket.connect(proxy.parse().unwrap()).await.unwrap()
}

async fn ask(stream: &mut TcpStream) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 4096];
    let mut read = 0;
    while !answer[..read].ends_with(b"ok") {
        let more = stream.read(&mut answer[read..]).await.unwrap();
        assert!(more > 0, "{}", String::from_utf8_lossy(&answer[..read]));
        read += more;
    }
}

#[tokio::test]
async fn each_client_of_an_http_port_has_connections_of_its_own_that_begin_with_its_address() {
    let (app, mut told) = application().await;
    let setup = proxy(&app, json!({"protocol": "http", "proxy_protocol": true}));
    let proxy = started(setup).await;
    let address = proxy.inbound(0);
    let mut first = from("127.0.0.1:0", &address).await;
    let mut second = from("127.0.0.2:0", &address).await;
    let sources = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    // In turns, so that a connection that were shared would wait for the other's next request.
    for _ in 0..2 {
        ask(&mut first).await;
        ask(&mut second).await;
    }
    let mut connections: Vec<Vec<u8>> = Vec::new();
    while let Ok((number, bytes)) = told.try_recv() {
        if connections.len() <= number {
            connections.resize(number + 1, Vec::new());
        }
        connections[number].extend(bytes);
    }
    assert_eq!(
        connections.len(),
        2,
        "one for each client, kept for its second request"
    );
    for (bytes, expected) in connections.iter().zip(sources) {
        let (source, requests) = source(bytes);
        assert_eq!(source, expected);
        let requests = String::from_utf8_lossy(requests);
        assert_eq!(requests.matches("GET / HTTP/1.1\r\n").count(), 2, "{requests}");
    }
}

#[tokio::test]
async fn a_clients_own_header_is_a_bad_request_or_plain_bytes_and_never_its_address() {
    let (app, mut told) = application().await;
    let setup = proxy(&app, json!({"protocol": "http", "proxy_protocol": true}))
        .inbound(&app, json!({"protocol": "tcp", "proxy_protocol": true}));
    let proxy = started(setup).await;
    let request = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n";
    for forged in FORGED {
        let mut client = from("127.0.0.1:0", &proxy.inbound(0)).await;
        client.write_all(&[forged, request].concat()).await.unwrap();
        let mut answer = Vec::new();
        // Bytes that were not read make the end a reset.
        let _ = client.read_to_end(&mut answer).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 400 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        assert!(told.try_recv().is_err(), "nothing reached the application");

        let mut client = from("127.0.0.1:0", &proxy.inbound(1)).await;
        client.write_all(&[forged, b"end"].concat()).await.unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).await.unwrap();
        let mut bytes = Vec::new();
        while let Ok((_, more)) = told.try_recv() {
            bytes.extend(more);
        }
        let (source, rest) = source(&bytes);
        assert_eq!(source, client.local_addr().unwrap());
        assert_eq!(rest, [forged, b"end"].concat());
    }
    // Nor do policies see it.
    let only = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only, namespace: shop}
spec: {rules: [{from: [{source: {remoteIpBlocks: [9.9.9.9]}}]}, {from: [{source: {ipBlocks: [9.9.9.9]}}]}]}
";
    proxy.apply("only.yaml", only).await;
    for forged in FORGED {
        let mut client = from("127.0.0.1:0", &proxy.inbound(1)).await;
        client.write_all(&[forged, b"end"].concat()).await.unwrap();
        let mut answer = Vec::new();
        let refused = client.read_to_end(&mut answer).await;
        assert!(refused.is_err() && answer.is_empty(), "{refused:?} {answer:?}");
    }
    let record = proxy
        .record("the refusal", |record| record["reason"] == "policy_not_allowed")
        .await;
    assert!(
        record["source"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{record}"
    );
}
