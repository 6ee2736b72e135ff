//! What the messages of calls may hold: so many bytes in all, and of one process or pod.
//!
//! A message is kept until its last byte is there, and the buffer it was kept in until the client has no more to
//! say: so each call pays for its largest message from the first byte of it, by the length that it announces.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use http_body_util::{BodyStream, StreamBody};
use tonic::Status;
use tonic::body::Body;

use super::Inner;
use crate::attest::Share;

/// Largest message of any service. Envoy's first one has 61,088 bytes, nearly all of them its list of extensions; one
/// with more of them, or with much metadata, may have several times that.
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Messages up to this length are free: every call has a buffer of this size anyway.
pub(super) const FREE_BYTES: usize = 8 * 1024;
/// Length of what precedes each message: a flag and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Where in the messages of a call we are.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX],
    /// How much of the prefix is there.
    read: usize,
    /// How much of the message is still to come.
    left: usize,
}

impl Framing {
    /// The length of the largest message that begins in `bytes`, the next ones of the call.
    fn follow(&mut self, bytes: &Bytes) -> usize {
        let mut bytes = bytes.clone();
        let mut largest = 0;
        while bytes.has_remaining() {
            let here = self.left.min(bytes.remaining());
            bytes.advance(here);
            self.left -= here;
            for place in self.prefix.iter_mut().skip(self.read) {
                let Ok(byte) = bytes.try_get_u8() else { break };
                *place = byte;
                self.read += 1;
            }
            if self.read == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.read = 0;
                largest = largest.max(self.left);
            }
        }
        largest
    }
}

/// Bytes that a call has taken, given back on drop.
#[derive(Debug)]
struct Taken {
    calls: Arc<Inner>,
    share: Share,
    pid: Option<i32>,
    bytes: usize,
}

impl Taken {
    /// Makes room for a message of `length`.
    fn cover(&mut self, length: usize) -> Result<(), Status> {
        if length > MAX_MESSAGE_BYTES {
            let text = format!("a request may have at most {MAX_MESSAGE_BYTES} bytes");
            return Err(Status::out_of_range(text));
        }
        if length <= FREE_BYTES || length <= self.bytes {
            return Ok(());
        }
        // A buffer that has to grow again doubles: after a message of 61,088 bytes and for one of 61,188, as an Envoy
        // sends them that repeats its node in each answer, from 76 to 151 KiB.
        let needed = if self.bytes == 0 { length } else { length * 2 };
        self.calls.hold((self.share, self.pid), needed - self.bytes)?;
        self.bytes = needed;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.calls.release(self.share, self.bytes);
        }
    }
}

/// What a client sends, within the bounds, at the cost of `share`.
pub(super) fn metered(body: Body, calls: Arc<Inner>, (share, pid): (Share, Option<i32>)) -> Body {
    let mut framing = Framing::default();
    let mut taken = Taken {
        calls,
        share,
        pid,
        bytes: 0,
    };
    let frames = BodyStream::new(body).map(move |frame| {
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            taken.cover(framing.follow(data))?;
        }
        Ok::<_, Status>(frame)
    });
    Body::new(StreamBody::new(frames))
}

#[cfg(test)]
mod tests;
