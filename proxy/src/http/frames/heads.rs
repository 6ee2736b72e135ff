//! Cuts the bytes of one direction into frames and keeps of each what its head says. Pure, over pieces of any size.

/// Length of a frame's head (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;
/// With the byte after it, which tells how much of padded DATA is padding (RFC 9113 §6.1).
const PADDED_BYTES: usize = HEAD_BYTES + 1;

/// DATA.
pub(super) const DATA: u8 = 0x0;
const PADDED: u8 = 0x8;

/// What is said of a frame before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Bytes of its payload, without padding where it is DATA.
    pub(super) carries: usize,
}

/// Where in the frames the bytes are.
#[derive(Debug)]
pub(super) struct Heads {
    /// Bytes to pass over before the next head.
    skip: usize,
    bytes: [u8; PADDED_BYTES],
    filled: usize,
}

impl Heads {
    /// Begins with so many bytes that are no frame.
    pub(super) fn after(skip: usize) -> Self {
        Self {
            skip,
            bytes: [0; PADDED_BYTES],
            filled: 0,
        }
    }

    /// The next head in `bytes`, of which that is taken away which was looked at; nothing where they end before.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            *bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return None;
            }
            let needed = if self.filled < HEAD_BYTES {
                HEAD_BYTES
            } else {
                PADDED_BYTES
            };
            let wanted = self.bytes.get_mut(self.filled..needed).unwrap_or_default();
            let (some, rest) = bytes.split_at(wanted.len().min(bytes.len()));
            for (place, byte) in wanted.iter_mut().zip(some) {
                *place = *byte;
            }
            self.filled += some.len();
            *bytes = rest;
            if self.filled == needed
                && let Some(head) = self.whole()
            {
                return Some(head);
            }
        }
    }

    /// Bytes of the payload that have not come yet.
    pub(super) fn missing(&self) -> usize {
        self.skip
    }

    /// The head that is there, unless the byte of its padding is still to come.
    fn whole(&mut self) -> Option<Head> {
        let [high, middle, low, kind, flags, stream @ .., padding] = self.bytes;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let padded = kind == DATA && flags & PADDED != 0 && length > 0;
        if padded && self.filled < PADDED_BYTES {
            return None;
        }
        self.filled = 0;
        self.skip = length - usize::from(padded);
        let carries = if padded {
            self.skip.saturating_sub(usize::from(padding))
        } else {
            length
        };
        Some(Head {
            kind,
            flags,
            // The first bit means nothing.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            carries,
        })
    }
}
