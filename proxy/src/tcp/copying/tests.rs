use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

#[tokio::test]
async fn either_way_ends_by_itself_and_all_bytes_arrive_however_slowly_they_are_taken() {
    // Smaller than a chunk, so that most of it has to be kept for the other end.
    let (mut client, downstream) = duplex(1_000);
    let (upstream, mut server) = duplex(700);
    let copying = tokio::spawn(async move {
        let mut copying = Copying::new(downstream, upstream);
        (&mut copying).await.unwrap();
        copying.bytes()
    });
    let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    });
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert!(received == expected, "{} bytes", received.len());
    // The other way is open still.
    server.write_all(b"late answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(writer.await.unwrap(), b"late answer");
    assert_eq!(copying.await.unwrap(), (100_000, 11));
}

#[tokio::test]
async fn a_broken_end_is_named() {
    let (client, downstream) = duplex(64);
    let (upstream, server) = duplex(64);
    drop(server);
    let mut client = client;
    client.write_all(b"x").await.unwrap();
    let broken = Copying::new(downstream, upstream).await.unwrap_err();
    assert!(matches!(broken, Broken::Upstream(_)), "{broken:?}");
}

#[tokio::test]
async fn an_idle_pair_holds_no_bytes() {
    let (mut client, downstream) = duplex(64);
    let (upstream, mut server) = duplex(64);
    let mut copying = Copying::new(downstream, upstream);
    client.write_all(&[7; 64]).await.unwrap();
    let mut taken = [0; 64];
    tokio::select! {
        biased;
        ended = &mut copying => panic!("{ended:?}"),
        read = server.read_exact(&mut taken) => { read.unwrap(); }
    }
    assert_eq!(taken, [7; 64]);
    assert_eq!(copying.inward.pending.capacity(), 0);
    assert_eq!(copying.bytes(), (64, 0));
}
