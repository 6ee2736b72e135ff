//! The byte streams of either end of a connection, as one type without a box around plain TCP.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// Reads that ask for less go through a larger buffer: rustls asks for a quarter of a record at a time.
const SMALL: usize = 8 * 1024;
/// Size of that buffer, of which each thread has one.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BYTES: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// TCP some of whose bytes were read already; they come before the rest. While there are none, it has no buffer.
#[derive(Debug)]
pub struct Prefixed {
    prefix: Vec<u8>,
    at: usize,
    /// Bytes that came so far.
    came: usize,
    tcp: TcpStream,
}

impl Prefixed {
    /// `prefix` was read from `tcp`.
    #[must_use]
    pub fn new(prefix: Vec<u8>, tcp: TcpStream) -> Self {
        Self {
            came: prefix.len(),
            prefix,
            at: 0,
            tcp,
        }
    }

    /// Bytes that came so far.
    #[must_use]
    pub fn came(&self) -> usize {
        self.came
    }

    /// The socket.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn take_prefix(&mut self, buf: &mut ReadBuf<'_>) {
        let left = self.prefix.get(self.at..).unwrap_or_default();
        let some = left.get(..buf.remaining()).unwrap_or(left);
        buf.put_slice(some);
        self.at += some.len();
        if self.at >= self.prefix.len() {
            // Freed, not kept for the life of the connection.
            self.prefix = Vec::new();
            self.at = 0;
        }
    }

    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.came = self.came.wrapping_add(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }

    /// Takes what the socket has in one call, gives what is asked for, and keeps the rest.
    fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let mut ahead = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut ahead))?;
        let came = ahead.filled();
        self.came = self.came.wrapping_add(came.len());
        let (now, later) = came.split_at(came.len().min(buf.remaining()));
        buf.put_slice(now);
        if !later.is_empty() {
            self.prefix = later.to_vec();
            self.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.prefix.is_empty() {
            this.take_prefix(buf);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() == 0 || buf.remaining() >= SMALL {
            return this.poll_direct(cx, buf);
        }
        SCRATCH_BYTES.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => this.poll_ahead(cx, buf, &mut scratch),
            Err(_) => this.poll_direct(cx, buf),
        })
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// One end of a connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP without TLS of ours.
    Plain(Prefixed),
    /// TLS that we terminate.
    Server(Box<server::TlsStream<Prefixed>>),
    /// TLS that we began.
    Client(Box<client::TlsStream<Prefixed>>),
}

impl Stream {
    /// The socket underneath.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(plain) => plain.tcp(),
            Self::Server(tls) => tls.get_ref().0.tcp(),
            Self::Client(tls) => tls.get_ref().0.tcp(),
        }
    }

    /// Closing will reset the connection: the other end learns that it was refused, not that it ended.
    pub fn reset_on_close(&self) {
        reset_on_close(self.tcp());
    }
}

/// Closing `tcp` will reset it.
pub fn reset_on_close(tcp: &TcpStream) {
    // A socket that cannot be told so is closed in the ordinary way.
    let _ = tcp.set_zero_linger();
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain($stream) => $call,
            Stream::Server($stream) => $call,
            Stream::Client($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Server(stream) => stream.is_write_vectored(),
            Self::Client(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
