//! Frames and header blocks as bytes, sound or not.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What a client begins with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Flags.
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;
pub(super) const WHOLE: u8 = END_STREAM | END_HEADERS;

/// A frame that came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The next one; nothing at the end of the connection, however it ends.
    pub(super) async fn read<R: AsyncRead + Unpin>(read: &mut R) -> Option<Self> {
        let mut head = [0; 9];
        read.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        read.read_exact(&mut payload).await.ok()?;
        Some(Self {
            kind,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }
}

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS with these pairs.
pub(super) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pairs: Vec<u8> = pairs
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(0x4, 0, 0, &pairs)
}

/// A header that is neither indexed nor kept, by name and value, each as long as they are.
pub(super) fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x00], text(name), text(value)].concat()
}

/// Headers one after the other.
pub(super) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    headers
        .iter()
        .flat_map(|(name, value)| literal(name, value))
        .collect()
}

/// What every sound request has.
pub(super) const SOUND: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "b"),
    (":path", "/"),
];

/// A sound request, whole in one frame.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut headers = SOUND;
    headers[3].1 = path;
    frame(0x1, WHOLE, stream, &block(&headers))
}

/// The head of a sound request whose body is to follow, with more headers.
pub(super) fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let mut headers = SOUND;
    headers[0].1 = "POST";
    frame(0x1, END_HEADERS, stream, &block(&[&headers[..], more].concat()))
}

/// A whole request of exactly these headers.
pub(super) fn exactly(stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
    frame(0x1, WHOLE, stream, &block(headers))
}

/// A whole request with these headers after the sound ones.
pub(super) fn with(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    exactly(stream, &[&SOUND[..], more].concat())
}
