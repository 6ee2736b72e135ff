//! Clients built on gRPC's C core (Python, C++, Ruby, PHP) send the path of a unix socket, percent-encoded,
//! as `:authority`. Our HTTP/2 library takes a percent sign there for malformed and resets the stream, so
//! the sign is overwritten on its way in. Nothing here looks at the authority afterwards.
//!
//! [`scan`] finds the bytes; this file is the connection that they come from.

pub mod scan;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use scan::Scanner;

/// A connection whose client may call the server what it likes.
#[derive(Debug)]
pub struct Lenient<S> {
    stream: S,
    scanner: Scanner,
}

impl<S> Lenient<S> {
    /// A connection from which nothing was read yet.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            scanner: Scanner::default(),
        }
    }

    /// The connection.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if let Some(read) = buf.filled_mut().get_mut(before..) {
            this.scanner.pass(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
