//! Heads of which the rest never comes: all of them together have a bound, and those within it are let wait.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::abuse::{PREFACE, frame, head, settings};
use super::site::{ALLOW_ALL, Client, Echo, Site};

/// The least that can be configured.
const BUDGET: usize = 1024 * 1024;
const CLIENTS: usize = 30;
const LONG: usize = 48_000;
/// Long enough for anything that is to happen at once.
const SOON: Duration = Duration::from_secs(60);

/// How many of them have to go, each of which has so much waiting.
fn too_many(bytes: usize) -> usize {
    CLIENTS - BUDGET / bytes.next_multiple_of(1024)
}

async fn crowd(site: &Site, echo: &Echo, words: &[u8], gone: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = site.connect(&echo.upstream());
        client.send(words).await;
        clients.push(client);
    }
    let gone = u64::try_from(gone).unwrap();
    let all_gone = async {
        while site.refused("limit_waiting") < gone {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(SOON, all_gone).await;
    assert!(waited.is_ok(), "{}", site.metrics());
    clients
}

/// Somebody else is served, and nobody else had to go.
async fn is_over(site: &Site, echo: &Echo, gone: usize) {
    let mut other = site.connect(&echo.upstream());
    other.send("GET /other HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert!(other.answer().await.0.starts_with("HTTP/1.1 200 "));
    assert_eq!(site.refused("limit_waiting"), u64::try_from(gone).unwrap());
    assert_eq!(echo.count(), 1);
}

#[tokio::test]
async fn http1_heads_that_never_end_make_room_and_others_are_served() {
    let (echo, site) = (
        Echo::start().await,
        Site::new("limits: {waiting_bytes: 1048576}\n", ALLOW_ALL),
    );
    let words = format!("GET / HTTP/1.1\r\nHost: b\r\nX: {}", "x".repeat(LONG));
    let gone = too_many(words.len());
    let clients = crowd(&site, &echo, words.as_bytes(), gone).await;
    is_over(&site, &echo, gone).await;
    let mut told = 0;
    for mut client in clients {
        client.stream.shutdown().await.unwrap();
        told += usize::from(client.rest().await.starts_with("HTTP/1.1 503 "));
    }
    assert_eq!(told, gone);
}

#[tokio::test]
async fn http2_header_blocks_that_never_end_make_room_and_others_are_served() {
    let (echo, site) = (
        Echo::start().await,
        Site::new("limits: {waiting_bytes: 1048576}\n", ALLOW_ALL),
    );
    // A header of one letter, whose length is told in seven bits and then in as many groups of seven as it takes.
    let rest = LONG - 127;
    let groups = [rest & 0x7f | 0x80, rest >> 7 & 0x7f | 0x80, rest >> 14];
    let length = groups.map(|group| u8::try_from(group).unwrap());
    let block = [
        head(),
        vec![0x00, 0x01, b'x', 0x7f],
        length.to_vec(),
        vec![b'x'; LONG],
    ]
    .concat();
    let mut words = [PREFACE.to_vec(), settings()].concat();
    for (number, piece) in block.chunks(16_000).enumerate() {
        let (kind, flags) = if number == 0 { (0x1, 0x1) } else { (0x9, 0x0) };
        words.extend(frame(kind, flags, 1, piece));
    }
    let gone = too_many(block.len());
    let _clients = crowd(&site, &echo, &words, gone).await;
    is_over(&site, &echo, gone).await;
}

#[tokio::test]
async fn a_head_that_comes_in_pieces_is_served_and_leaves_nothing_waiting() {
    let (echo, site) = (
        Echo::start().await,
        Site::new("limits: {waiting_bytes: 1048576}\n", ALLOW_ALL),
    );
    let mut client = site.connect(&echo.upstream());
    // Together far more than may wait at once.
    for number in 1..=40 {
        client.send("GET / HTTP/1.1\r\nHost: b\r\nX: ").await;
        for _ in 0..4 {
            client.send("x".repeat(10_000)).await;
            tokio::task::yield_now().await;
        }
        client.send("\r\n\r\n").await;
        assert!(client.answer().await.0.starts_with("HTTP/1.1 200 "), "{number}");
    }
    assert_eq!(site.refused("limit_waiting"), 0);
}
