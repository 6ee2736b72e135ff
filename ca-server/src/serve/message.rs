//! One gRPC message in, bounded, and one out (the length-prefixed form of gRPC over HTTP/2).

use std::future::poll_fn;
use std::task::Poll;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::RecvStream;
use tonic::Status;

use super::waiting::{NoPlace, Wait};
use crate::service::pushback;

/// Longest message read: the largest CSR, its metadata, and room.
pub(super) const MOST: usize = 48 * 1024;
/// A byte that says whether it is compressed, and four of length.
const HEAD: usize = 5;

/// Why a body is not one message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than is read.
    #[error("message length too large: {0} bytes, at most {MOST} are read")]
    TooLarge(usize),
    /// Compressed, which was not offered.
    #[error("compressed messages are not read here; send without grpc-encoding")]
    Compressed,
    /// Shorter than it says, or longer.
    #[error("request is not one message")]
    NotOne,
    /// It did not come at once, and others who came later have its place.
    #[error("too many calls wait for the rest of their message")]
    Busy,
    /// The peer left, or broke the protocol.
    #[error("request was not received: {0}")]
    Lost(#[from] h2::Error),
}

impl MessageError {
    /// A stable word for metrics and audit.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::Busy => "overloaded",
            _ => "malformed",
        }
    }

    /// What the peer is told.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::TooLarge(_) => Status::out_of_range(self.to_string()),
            Self::Compressed => Status::unimplemented(self.to_string()),
            Self::NotOne => Status::invalid_argument(self.to_string()),
            Self::Busy => pushback("the CA is busy; send the whole message at once, or try again shortly"),
            Self::Lost(_) => Status::cancelled(self.to_string()),
        }
    }
}

impl From<NoPlace> for MessageError {
    fn from(NoPlace: NoPlace) -> Self {
        Self::Busy
    }
}

/// What has come of the body; what has not takes a place to wait in.
async fn more(body: &mut RecvStream, wait: &mut Wait) -> Result<Option<Bytes>, MessageError> {
    let data = poll_fn(|cx| match body.poll_data(cx) {
        Poll::Ready(data) => Poll::Ready(Ok(data)),
        Poll::Pending => match wait.begin(cx) {
            Ok(()) => Poll::Pending,
            Err(none) => Poll::Ready(Err(none)),
        },
    });
    Ok(data.await?.transpose()?)
}

/// Reads the one message of a unary call to the end of its stream.
pub(super) async fn read(body: &mut RecvStream, wait: &mut Wait) -> Result<Bytes, MessageError> {
    let mut parts = BytesMut::new();
    let mut whole = None;
    while let Some(data) = more(body, wait).await? {
        // Taken over: the peer may send as much again.
        let _ = body.flow_control().release_capacity(data.len());
        if data.is_empty() {
            continue;
        }
        if whole.is_some() {
            return Err(MessageError::NotOne);
        }
        // Nearly every message comes in one piece, and is not copied.
        if parts.is_empty() && is_whole(&data)? {
            whole = Some(data);
            continue;
        }
        parts.extend_from_slice(&data);
        if is_whole(&parts)? {
            whole = Some(parts.split().freeze());
        }
    }
    wait.end();
    let mut whole = whole.ok_or(MessageError::NotOne)?;
    whole.advance(HEAD);
    Ok(whole)
}

/// Whether `bytes` are one message, and not the beginning of one.
fn is_whole(bytes: &[u8]) -> Result<bool, MessageError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Ok(false);
    };
    let [compressed, len @ ..] = *head;
    if compressed != 0 {
        return Err(MessageError::Compressed);
    }
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > MOST {
        return Err(MessageError::TooLarge(len));
    }
    if rest.len() > len {
        return Err(MessageError::NotOne);
    }
    Ok(rest.len() == len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_when_it_is_as_long_as_it_says() {
        for (bytes, whole) in [
            (&b""[..], false),
            (b"\0\0\0\0", false),
            (b"\0\0\0\0\x02a", false),
            (b"\0\0\0\0\x02ab", true),
            (b"\0\0\0\0\0", true),
        ] {
            assert_eq!(is_whole(bytes).unwrap(), whole, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_one_plain_message_is_refused_before_it_is_waited_for() {
        assert!(matches!(
            is_whole(b"\x01\0\0\0\x02"),
            Err(MessageError::Compressed)
        ));
        assert!(matches!(is_whole(b"\0\0\0\0\x02abc"), Err(MessageError::NotOne)));
        assert!(matches!(is_whole(b"\0\0\0\xc0\0"), Ok(false)));
        assert!(matches!(
            is_whole(b"\0\0\0\xc0\x01"),
            Err(MessageError::TooLarge(49_153))
        ));
    }
}
