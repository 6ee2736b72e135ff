//! What a client's HTTP is taken apart by before anybody decided about it.

use std::time::Duration;

use signet_proxy::http::frames::Frames;
use signet_proxy::http::framing::{Framing, FramingFault, Upgrade};

/// The framing of HTTP/1. How the bytes are cut into reads changes nothing, and after an ambiguous message nothing
/// is taken any more. The first byte says where they are cut.
pub fn http1_framing(data: &[u8]) {
    let Some((cut, text)) = data.split_first() else {
        return;
    };
    let verdict = |pieces: &[&[u8]]| -> Result<bool, FramingFault> {
        let mut framing = Framing::default();
        for piece in pieces {
            framing
                .feed(piece, || Upgrade::Undecided)
                .map_err(|(offset, fault)| {
                    assert!(offset < piece.len());
                    fault
                })?;
        }
        Ok(framing.mid_head())
    };
    let (begin, end) = text.split_at(usize::from(*cut).min(text.len()));
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(verdict(&[text]), verdict(&[begin, end]));
    assert_eq!(verdict(&[text]), verdict(&bytes));
}

/// The frames of HTTP/2. How the bytes are cut into reads changes nothing.
pub fn http2_frames(data: &[u8]) {
    let mut whole = Frames::default();
    let mut bytewise = Frames::default();
    let once = whole.feed(data, || Duration::ZERO);
    let each = data
        .iter()
        .try_for_each(|byte| bytewise.feed(&[*byte], || Duration::ZERO));
    assert_eq!(once, each);
}
