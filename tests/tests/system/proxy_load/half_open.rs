//! Connections of which one way has ended, or one end is gone.

use std::io::ErrorKind;

use serde_json::json;
use signet_tests::echo::ended;
use signet_tests::mesh::BACKEND;
use signet_tests::proxy::Proxy;
use signet_tests::wait::{SOON, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{STRICT, World, open, sound};

/// More than what sockets and buffers on the way hold.
const MUCH: usize = 8 << 20;

/// A way through two proxies; a test is the application itself.
struct Way {
    frontend: Proxy,
    backend: Proxy,
    app: TcpListener,
    _world: World,
}

impl Way {
    async fn start(limits: &serde_json::Value) -> Self {
        let (world, app) = (
            World::start().await,
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let backend = world
            .backend_proxy()
            .policy("strict.yaml", STRICT)
            .set("limits", limits.clone())
            .inbound(&app.local_addr().unwrap().to_string(), json!({}))
            .start()
            .await;
        let frontend = world
            .frontend_proxy()
            .outbound(&backend.inbound(0), json!({"mtls": {"expected": [BACKEND]}}))
            .start()
            .await;
        Self {
            frontend,
            backend,
            app,
            _world: world,
        }
    }

    /// Both ends of a new connection, on which a word has passed each way.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(self.frontend.outbound(0)).await.unwrap();
        let (mut server, _) = within("the application to be dialled", SOON, self.app.accept())
            .await
            .unwrap();
        client.write_all(b"?").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'?');
        server.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        (client, server)
    }

    /// Waits until neither proxy has a connection, and for the word of the backend's.
    async fn over(&mut self, reason: &str) {
        for proxy in [&mut self.frontend, &mut self.backend] {
            until("no connection", SOON, async || open(proxy).await == 0.0).await;
            sound(proxy);
        }
        self.backend
            .record(reason, |record| record["reason"] == reason)
            .await;
    }
}

async fn give(stream: &mut TcpStream) {
    stream.write_all(&vec![7; MUCH]).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Speaks until it is told that nobody listens: one that heard the other's end has nothing more to read.
async fn told(stream: &mut TcpStream) -> std::io::Error {
    loop {
        if let Err(error) = stream.write_all(&[7; 1 << 16]).await {
            return error;
        }
    }
}

async fn take(stream: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_way_ended_the_other_still_flows_and_then_both_ends_are_done() {
    let mut way = Way::start(&json!({})).await;
    for client_first in [true, false] {
        let (mut client, mut server) = way.connect().await;
        let (first, second) = if client_first {
            (&mut client, &mut server)
        } else {
            (&mut server, &mut client)
        };
        first.shutdown().await.unwrap();
        ended(second).await.unwrap();
        let (taken, ()) = within("the other way", SOON, async {
            tokio::join!(take(first), give(second))
        })
        .await;
        assert_eq!(taken, MUCH, "client first: {client_first}");
    }
    way.over("ok").await;
    let records = way.backend.records();
    assert_eq!(
        records.iter().filter(|record| record["reason"] == "ok").count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_reset_resets_the_other_even_while_that_is_still_speaking() {
    let mut way = Way::start(&json!({})).await;
    for (half, client_gone) in [(false, true), (false, false), (true, true), (true, false)] {
        let (client, server) = way.connect().await;
        let (mut gone, mut left) = if client_gone {
            (client, server)
        } else {
            (server, client)
        };
        if half {
            gone.shutdown().await.unwrap();
            ended(&mut left).await.unwrap();
            left.write_all(b"still").await.unwrap();
            let mut heard = [0; 5];
            gone.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"still");
        }
        gone.set_zero_linger().unwrap();
        drop(gone);
        let kind = within("the reset", SOON, told(&mut left)).await.kind();
        assert!(
            [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&kind),
            "half: {half}, the client: {client_gone}: {kind:?}"
        );
    }
    way.over("client_gone").await;
    way.over("upstream_reset").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_connection_whose_other_end_says_nothing_ends_when_it_is_idle() {
    let mut way = Way::start(&json!({"tcp_idle": "1s"})).await;
    let (mut client, mut server) = way.connect().await;
    client.shutdown().await.unwrap();
    ended(&mut server).await.unwrap();
    // Neither is heard of again.
    assert_eq!(
        ended(&mut client).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    way.over("client_idle").await;
    let gone = server.write_all(&[7]).await;
    let again = server.read_u8().await;
    assert!(gone.is_err() || again.is_err(), "{again:?}");
}
