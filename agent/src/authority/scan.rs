//! Walks what a client sends on an HTTP/2 connection (RFC 9113 §4, RFC 7541 §6) and overwrites the
//! percent signs of every `:authority` that is written out, one byte for one byte: all lengths and the
//! compression's state stay as they were. Pure; holds a few words of state whatever comes.
//!
//! What cannot be followed is passed on as it is from there to the end: judging it is the HTTP/2
//! library's part.

mod fields;

use fields::{Fault, Fields};

/// What every connection begins with (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// Length of a frame's head (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;
/// Types of frames that carry header fields (RFC 9113 §6.2, §6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// Flags of them.
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes that the flag for priority adds in front of the fields.
const PRIORITY_BYTES: usize = 5;

#[derive(Debug)]
enum At {
    /// Bytes to pass over; then a frame begins.
    Over(usize),
    /// In a frame's head, of which so many bytes came.
    Head([u8; HEAD_BYTES], usize),
    /// Before the length of the padding.
    PadLength(Frame),
    /// Before the fields.
    Before(usize, Frame),
    /// In the fields.
    Fields(Frame),
    /// Somewhere unknown.
    Lost,
}

/// A frame with header fields.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Bytes of its payload that are still to come, padding left out once it is known.
    left: usize,
    padding: usize,
    priority: bool,
    last: bool,
}

/// The walk so far.
#[derive(Debug)]
pub struct Scanner {
    at: At,
    fields: Fields,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            at: At::Over(PREFACE_BYTES),
            fields: Fields::default(),
        }
    }
}

impl Scanner {
    /// Takes the next bytes of the connection, however they are cut.
    pub fn pass(&mut self, mut bytes: &mut [u8]) {
        loop {
            let taken = match &mut self.at {
                At::Lost => return,
                At::Over(0) => {
                    self.at = At::Head([0; HEAD_BYTES], 0);
                    0
                }
                At::Over(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    taken
                }
                At::Fields(Frame { left: 0, .. }) => {
                    self.end_of_fields();
                    0
                }
                _ => match bytes.first_mut() {
                    Some(byte) => {
                        self.step(byte);
                        1
                    }
                    None => 0,
                },
            };
            bytes = bytes.get_mut(taken..).unwrap_or_default();
            let idle = bytes.is_empty() && !matches!(&self.at, At::Fields(Frame { left: 0, .. }));
            if idle {
                return;
            }
        }
    }

    fn step(&mut self, byte: &mut u8) {
        match &mut self.at {
            At::Head(head, filled) => {
                if let Some(place) = head.get_mut(*filled) {
                    *place = *byte;
                }
                *filled += 1;
                if *filled == HEAD_BYTES {
                    self.at = frame(*head);
                }
            }
            At::PadLength(frame) => {
                let frame = *frame;
                let padding = usize::from(*byte);
                // The library refuses a frame whose padding is longer than itself.
                self.at = match frame.left.checked_sub(1 + padding) {
                    Some(left) => begin(Frame {
                        left,
                        padding,
                        ..frame
                    }),
                    None => At::Lost,
                };
            }
            At::Before(left, frame) => {
                *left -= 1;
                if *left == 0 {
                    self.at = At::Fields(*frame);
                }
            }
            At::Fields(frame) => {
                frame.left -= 1;
                if self.fields.step(byte) == Err(Fault) {
                    self.at = At::Lost;
                }
            }
            At::Over(_) | At::Lost => {}
        }
    }

    fn end_of_fields(&mut self) {
        let At::Fields(frame) = &self.at else { return };
        let whole = !frame.last || self.fields.at_end();
        self.at = if whole { At::Over(frame.padding) } else { At::Lost };
    }
}

/// Where to go on after a frame's head.
fn frame(head: [u8; HEAD_BYTES]) -> At {
    let [a, b, c, kind, flags, ..] = head;
    let length = (usize::from(a) << 16) | (usize::from(b) << 8) | usize::from(c);
    if kind != HEADERS && kind != CONTINUATION {
        return At::Over(length);
    }
    let frame = Frame {
        left: length,
        padding: 0,
        priority: kind == HEADERS && flags & PRIORITY != 0,
        last: flags & END_HEADERS != 0,
    };
    if kind == HEADERS && flags & PADDED != 0 {
        match length {
            0 => At::Lost,
            _ => At::PadLength(frame),
        }
    } else {
        begin(frame)
    }
}

fn begin(frame: Frame) -> At {
    if !frame.priority {
        return At::Fields(frame);
    }
    match frame.left.checked_sub(PRIORITY_BYTES) {
        Some(left) => At::Before(PRIORITY_BYTES, Frame { left, ..frame }),
        None => At::Lost,
    }
}
