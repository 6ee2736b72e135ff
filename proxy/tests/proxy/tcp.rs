//! Connections without HTTP, over real sockets: what ends them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use signet_certs::UnixTime;
use signet_proxy::config::Speaks;
use signet_proxy::connection::Accepted;
use signet_proxy::stream::{Prefixed, Stream};
use signet_proxy::tcp::serve_inbound;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::http::site::{ALLOW_ALL, Site, accepted, upstream};

/// Sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// A client through the proxy.
async fn connect(site: &Site, accepted: Accepted) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, arrived) = tokio::join!(client, listener.accept());
    let stream = Stream::Plain(Prefixed::new(Vec::new(), arrived.unwrap().0));
    let way = upstream(echo().await, Speaks::Auto);
    let shared = Arc::clone(&site.shared);
    tokio::spawn(serve_inbound(shared, Arc::new(accepted), stream, way, false));
    client.unwrap()
}

async fn says(client: &mut TcpStream) {
    client.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

/// Waits for the end, which is a reset.
async fn ends(client: &mut TcpStream) {
    let end = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

fn ending(site: &Site) -> Accepted {
    let now = site.clock.0.load(Ordering::SeqCst);
    Accepted {
        own_not_after: Some(UnixTime::since_unix_epoch(Duration::from_secs(now + 100))),
        ..accepted()
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_our_svid_a_connection_is_left_alone_unless_configured_otherwise() {
    let left = Site::new("", ALLOW_ALL);
    let closed = Site::new("close_on_expiry: true\n", ALLOW_ALL);
    let mut stays = connect(&left, ending(&left)).await;
    let mut goes = connect(&closed, ending(&closed)).await;
    for site in [&left, &closed] {
        site.clock.0.fetch_add(100, Ordering::SeqCst);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    says(&mut stays).await;
    says(&mut goes).await;
    for site in [&left, &closed] {
        site.clock.0.fetch_add(1, Ordering::SeqCst);
    }
    ends(&mut goes).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    says(&mut stays).await;
    assert_eq!(
        (closed.refused("svid_expired"), left.refused("svid_expired")),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_for_too_long_ends_and_any_word_counts() {
    let site = Site::new("limits: {tcp_idle: 60s}\n", ALLOW_ALL);
    let mut client = connect(&site, accepted()).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        says(&mut client).await;
    }
    let since = tokio::time::Instant::now();
    ends(&mut client).await;
    let took = since.elapsed();
    assert!(
        took >= Duration::from_secs(59) && took < Duration::from_secs(62),
        "{took:?}"
    );
    assert_eq!(site.refused("client_idle"), 1);
}
