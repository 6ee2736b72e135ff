//! Frames in an order that their streams do not allow.

use super::Comes::{Connection, Cut, Served, Stream};
use super::wire::{END_HEADERS, END_STREAM, SOUND, WHOLE, block, frame, get, post};
use super::{CALM, COMPRESSION, CUT_OFF, PROTOCOL, Row, STREAM_CLOSED, row};

const RESET: [u8; 4] = [0, 0, 0, 8];

/// Of errors that the RFC has for a stream.
const HARDER: &str =
    "an error of a stream may be taken for one of the connection (RFC 9113 §5.4.2); only its client is hit";

pub(super) fn rows() -> Vec<Row> {
    idle()
        .into_iter()
        .chain(closed())
        .chain(numbers())
        .chain(continuations())
        .collect()
}

fn idle() -> Vec<Row> {
    [
        ("DATA on an idle stream", frame(0x0, END_STREAM, 1, b"x")),
        ("RST_STREAM on an idle stream", frame(0x3, 0, 1, &RESET)),
        ("WINDOW_UPDATE on an idle stream", frame(0x8, 0, 1, &[0, 0, 0, 1])),
    ]
    .into_iter()
    .map(|(claim, bytes)| row("5.1", claim, bytes, Connection(PROTOCOL)))
    .collect()
}

fn closed() -> Vec<Row> {
    let ended = [post(1, &[]), frame(0x0, END_STREAM, 1, b"x")].concat();
    vec![
        row(
            "5.1",
            "DATA after END_STREAM",
            [get(1, "/"), frame(0x0, END_STREAM, 1, b"x")].concat(),
            Stream(1, STREAM_CLOSED),
        )
        .but(Connection(PROTOCOL), HARDER),
        row(
            "5.1",
            "HEADERS after END_STREAM",
            [get(1, "/"), get(1, "/")].concat(),
            Stream(1, STREAM_CLOSED),
        )
        .but(Connection(PROTOCOL), HARDER),
        row(
            "5.1",
            "DATA after the DATA that ended the stream",
            [ended, frame(0x0, END_STREAM, 1, b"y")].concat(),
            Stream(1, STREAM_CLOSED),
        )
        .but(Connection(PROTOCOL), HARDER),
        row(
            "5.1",
            "WINDOW_UPDATE and PRIORITY after END_STREAM are taken",
            [
                get(1, "/"),
                frame(0x8, 0, 1, &[0, 0, 0, 9]),
                frame(0x2, 0, 1, &[0, 0, 0, 0, 7]),
            ]
            .concat(),
            Served(&[1]),
        ),
        row(
            "5.1",
            "DATA after RST_STREAM of the client",
            [
                post(1, &[]),
                frame(0x3, 0, 1, &RESET),
                frame(0x0, END_STREAM, 1, b"x"),
            ]
            .concat(),
            Stream(1, STREAM_CLOSED),
        ),
        row(
            "8.1",
            "a second block of headers without END_STREAM is malformed",
            [
                post(1, &[]),
                frame(0x1, END_HEADERS, 1, &block(&[("x", "y")])),
                frame(0x0, END_STREAM, 1, b"x"),
            ]
            .concat(),
            Stream(1, PROTOCOL),
        ),
    ]
}

fn numbers() -> Vec<Row> {
    vec![
        row(
            "5.1.1",
            "a stream of the client has an odd number",
            get(2, "/"),
            Connection(PROTOCOL),
        ),
        row(
            "5.1.1",
            "a new stream has a higher number than those before",
            [get(5, "/"), get(3, "/")].concat(),
            Connection(PROTOCOL),
        ),
        row(
            "5.1.1",
            "numbers may be left out",
            [get(1, "/"), get(99, "/")].concat(),
            Served(&[1, 99]),
        ),
    ]
}

fn continuations() -> Vec<Row> {
    let sound = block(&SOUND);
    let (first, rest) = sound.split_at(9);
    let begun = || frame(0x1, END_STREAM, 1, first);
    let refused = |claim, bytes| row("6.10", claim, bytes, Connection(PROTOCOL));
    vec![
        row(
            "6.10",
            "a block in pieces is one, wherever it is cut",
            [begun(), frame(0x9, 0, 1, &[]), frame(0x9, END_HEADERS, 1, rest)].concat(),
            Served(&[1]),
        ),
        refused("CONTINUATION without a block", frame(0x9, END_HEADERS, 1, rest)),
        refused(
            "CONTINUATION after END_HEADERS",
            [get(1, "/"), frame(0x9, END_HEADERS, 1, &[])].concat(),
        ),
        refused(
            "CONTINUATION of another stream",
            [begun(), frame(0x9, END_HEADERS, 3, rest)].concat(),
        ),
        refused(
            "CONTINUATION on stream 0",
            [begun(), frame(0x9, END_HEADERS, 0, rest)].concat(),
        ),
        refused(
            "DATA within a block",
            [begun(), frame(0x0, 0, 1, b"x"), frame(0x9, END_HEADERS, 1, rest)].concat(),
        ),
        refused("HEADERS within a block", [begun(), get(3, "/")].concat()),
        refused(
            "SETTINGS within a block",
            [begun(), frame(0x4, 0, 0, &[]), frame(0x9, END_HEADERS, 1, rest)].concat(),
        ),
        row(
            "4.3",
            "a block that cannot be decoded is of type COMPRESSION_ERROR",
            frame(0x1, WHOLE, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Connection(COMPRESSION),
        )
        .but(
            Connection(PROTOCOL),
            "the connection ends all the same; only the code that the client is told is the general one",
        ),
        row(
            "10.5.1",
            "a block in too many pieces is an abuse, of whatever code",
            [begun(), frame(0x9, 0, 1, &[]).repeat(40)].concat(),
            Connection(CALM),
        )
        .but(Cut, CUT_OFF),
    ]
}
