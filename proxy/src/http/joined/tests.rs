use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

/// Notes the length of each write, and takes no more than `most` at once.
#[derive(Default)]
struct Noting {
    writes: Vec<usize>,
    bytes: Vec<u8>,
    most: Option<usize>,
}

impl AsyncWrite for Noting {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let some = self.most.map_or(buf, |most| &buf[..most.min(buf.len())]);
        self.writes.push(some.len());
        self.bytes.extend_from_slice(some);
        Poll::Ready(Ok(some.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_is_written_until_a_flush_goes_out_as_one() {
    let mut joined = Joined::new(Noting::default());
    for part in [&[1; 9][..], &[2; 1000], &[3; 9], &[4; 16_000]] {
        joined.write_all(part).await.unwrap();
    }
    assert!(joined.stream.writes.is_empty());
    joined.flush().await.unwrap();
    assert_eq!(joined.stream.writes, [17_018]);
    joined.flush().await.unwrap();
    assert_eq!(joined.stream.writes, [17_018], "nothing is written twice");
    assert_eq!(joined.held.capacity(), 0, "at rest there is no buffer");
}

#[tokio::test]
async fn more_than_there_is_room_for_goes_out_in_order() {
    let mut joined = Joined::new(Noting {
        most: Some(7_000),
        ..Noting::default()
    });
    let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
    joined.write_all(&sent).await.unwrap();
    assert!(joined.held.len() <= ROOM);
    joined.shutdown().await.unwrap();
    assert!(joined.stream.bytes == sent);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_waited_for() {
    let (near, mut far) = duplex(64);
    let mut joined = Joined::new(near);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut at = 0;
    while let Poll::Ready(written) = Pin::new(&mut joined).poll_write(&mut cx, &[5; 10_000]) {
        at += written.unwrap();
    }
    assert!(at <= ROOM + 64, "{at}");
    assert!(Pin::new(&mut joined).poll_flush(&mut cx).is_pending());
    let mut got = [0; 64];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [5; 64]);
    assert!(!joined.is_write_vectored());
}
