//! Writes gathered: what is written and flushed in one turn of a connection goes out in one system call
//! and as few TLS records as can be, in place of two or three for each answer.
//!
//! A flush only notes that something is held; it goes out when the connection next reads. Whoever drives
//! the connection asks [`Turns`] after each turn and takes another one, which reads first; connections that
//! are ready have their turn before, so that what goes out together also wakes the other side less often.
//!
//! This is the one place where answers leave, so what has to happen before an answer leaves happens here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes gathered: the answers to a dozen calls.
const MOST: usize = 32 * 1024;

/// What a connection and its driver tell one another.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    held: AtomicBool,
    number: AtomicUsize,
}

impl Turns {
    /// A turn begins: the driver is polled.
    pub fn begin(&self) {
        self.0.number.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether something was flushed and has not gone out yet, so that another turn is needed. Asking takes
    /// the note away.
    #[must_use]
    pub fn held(&self) -> bool {
        self.0.held.swap(false, Ordering::Relaxed)
    }

    fn number(&self) -> usize {
        self.0.number.load(Ordering::Relaxed)
    }
}

/// The records of what leaves here, which are written before it leaves.
pub trait Records: Send + Sync {
    /// How many were made so far, ever.
    fn made(&self) -> u64;
    /// Returns when the first `made` are written, by whomever. Records made since then may wait.
    fn write(&self, made: u64);
}

/// A stream whose small writes go out together.
pub struct Gather<S> {
    stream: S,
    records: Arc<dyn Records>,
    /// The records made when the last of `buffer` came: those of all that is in it are among them.
    made: u64,
    buffer: Vec<u8>,
    /// How much of `buffer` is written already.
    sent: usize,
    /// The peer takes nothing at the moment: flushes wait for it, and so does who flushes.
    stuck: bool,
    /// The turn in which a read found nothing: the task is woken when there is something, so the rest of the
    /// turn need not ask again. Nothing before the first turn.
    dry: usize,
    turns: Turns,
}

impl<S> Gather<S> {
    /// Around `stream`, which nothing reaches before the records made by then are written.
    #[must_use]
    pub fn new(stream: S, records: Arc<dyn Records>) -> Self {
        Self {
            stream,
            records,
            made: 0,
            buffer: Vec::new(),
            sent: 0,
            stuck: false,
            dry: 0,
            turns: Turns::default(),
        }
    }

    /// For whoever drives this connection.
    #[must_use]
    pub fn turns(&self) -> Turns {
        self.turns.clone()
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Hands everything gathered to the stream below. An idle connection keeps no buffer.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.records.write(self.made);
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.buffer = Vec::new();
        self.sent = 0;
        self.stuck = false;
        Poll::Ready(Ok(()))
    }

    fn drain_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() {
            match self.drain_and_flush(cx) {
                Poll::Ready(done) => done?,
                Poll::Pending => self.stuck = true,
            }
        }
        let turn = self.turns.number();
        if turn != 0 && self.dry == turn {
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            self.dry = turn;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.buffer.len() + buf.len() > MOST {
            ready!(self.drain(cx))?;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(MOST);
        }
        self.made = self.records.made();
        let taken = buf.len().min(MOST);
        self.buffer
            .extend_from_slice(buf.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() && !self.stuck {
            self.turns.0.held.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        self.drain_and_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU64;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Notes every write as it comes.
    #[derive(Default)]
    struct Noted {
        writes: Vec<Vec<u8>>,
        shut: bool,
    }

    impl AsyncRead for Noted {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.push(buf.to_vec());
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.shut = true;
            Poll::Ready(Ok(()))
        }
    }

    /// Records that are counted, not kept.
    #[derive(Default)]
    struct Recorded {
        made: AtomicU64,
        written: AtomicU64,
    }

    impl Recorded {
        fn written(&self) -> u64 {
            self.written.load(Ordering::Relaxed)
        }
    }

    impl Records for Recorded {
        fn made(&self) -> u64 {
            self.made.load(Ordering::Relaxed)
        }
        fn write(&self, made: u64) {
            self.written.fetch_max(made, Ordering::Relaxed);
        }
    }

    /// One turn of a task that reads and finds nothing.
    async fn read_nothing(gather: &mut Gather<Noted>) {
        poll_fn(|cx| {
            let mut room = [0; 8];
            let read = Pin::new(&mut *gather).poll_read(cx, &mut ReadBuf::new(&mut room));
            assert!(read.is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn writes_flushed_in_one_turn_go_out_together_in_the_next() {
        let mut gather = Gather::new(Noted::default(), Arc::new(Recorded::default()));
        for part in ["head", "body", "trailers"] {
            gather.write_all(part.as_bytes()).await.unwrap();
            gather.flush().await.unwrap();
        }
        assert!(gather.stream.writes.is_empty() && gather.turns().held());
        read_nothing(&mut gather).await;
        assert_eq!(gather.stream.writes, [b"headbodytrailers"]);
        read_nothing(&mut gather).await;
        assert_eq!(gather.stream.writes.len(), 1);
        assert!(!gather.turns().held());
    }

    #[tokio::test]
    async fn what_is_gathered_is_bounded_and_keeps_its_order() {
        let mut gather = Gather::new(Noted::default(), Arc::new(Recorded::default()));
        let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_be_bytes()[3]).collect();
        for part in sent.chunks(3_000) {
            gather.write_all(part).await.unwrap();
            assert!(gather.buffer.len() <= MOST);
        }
        gather.write_all(&sent).await.unwrap();
        gather.shutdown().await.unwrap();
        assert!(gather.stream.shut);
        assert_eq!(gather.stream.writes.concat(), [&sent[..], &sent[..]].concat());
        assert_eq!(gather.buffer.capacity(), 0);
    }

    #[tokio::test]
    async fn while_the_peer_takes_nothing_a_flush_waits_for_it() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut gather = Gather::new(near, Arc::new(Recorded::default()));
        gather.write_all(b"more than four bytes").await.unwrap();
        gather.flush().await.unwrap();
        assert!(gather.turns().held());
        poll_fn(|cx| {
            let mut room = [0; 8];
            let read = Pin::new(&mut gather).poll_read(cx, &mut ReadBuf::new(&mut room));
            assert!(read.is_pending());
            assert!(Pin::new(&mut gather).poll_flush(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(!gather.turns().held(), "the peer's reading wakes the task");
        let mut got = [0; 20];
        let (flushed, read) = tokio::join!(gather.flush(), far.read_exact(&mut got));
        assert!(flushed.is_ok() && read.is_ok());
        assert_eq!(&got, b"more than four bytes");
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_gets_everything() {
        let (near, mut far) = tokio::io::duplex(100);
        let sent = vec![7; 50_000];
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut gather = Gather::new(near, Arc::new(Recorded::default()));
            gather.write_all(&sent).await.unwrap();
            gather.flush().await.unwrap();
            gather.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, expected);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn nothing_leaves_before_it_is_on_record() {
        let recorded = Arc::new(Recorded::default());
        let mut gather = Gather::new(Noted::default(), Arc::clone(&recorded) as Arc<dyn Records>);
        recorded.made.store(3, Ordering::Relaxed);
        gather.write_all(b"answer").await.unwrap();
        gather.flush().await.unwrap();
        assert_eq!(recorded.written(), 0, "nothing has left yet");
        // Another connection's record, made after this one's answer.
        recorded.made.store(4, Ordering::Relaxed);
        read_nothing(&mut gather).await;
        assert_eq!((recorded.written(), gather.stream.writes.len()), (3, 1));
        // So much that it cannot wait for the next turn.
        for turn in 1..=3 {
            recorded.made.store(4 + turn, Ordering::Relaxed);
            gather.write_all(&[7; MOST]).await.unwrap();
            assert!(recorded.written() >= 3 + turn - 1);
        }
        assert_eq!(gather.stream.writes.len(), 3);
        assert_eq!(recorded.written(), 6);
    }

    #[tokio::test]
    async fn a_turn_that_found_nothing_does_not_ask_again_and_the_next_one_does() {
        let (near, mut far) = tokio::io::duplex(100);
        let mut gather = Gather::new(near, Arc::new(Recorded::default()));
        let turns = gather.turns();
        let mut read = async |begin: bool| {
            if begin {
                turns.begin();
            }
            poll_fn(|cx| {
                let mut room = [0; 8];
                let mut buf = ReadBuf::new(&mut room);
                let read = Pin::new(&mut gather).poll_read(cx, &mut buf);
                Poll::Ready(read.is_ready().then(|| buf.filled().len()))
            })
            .await
        };
        assert_eq!(read(false).await, None);
        far.write_all(b"a").await.unwrap();
        assert_eq!(
            read(false).await,
            Some(1),
            "before the first turn nothing is remembered"
        );
        assert_eq!(read(true).await, None);
        far.write_all(b"ab").await.unwrap();
        assert_eq!(read(false).await, None, "the same turn");
        assert_eq!(read(true).await, Some(2));
    }
}
