//! Single frames: their sizes, flags, streams and values.

use super::Comes::{Connection, Cut, Served, Stream};
use super::wire::{
    END_HEADERS, END_STREAM, PADDED, PRIORITY, SOUND, WHOLE, block, frame, get, post, settings,
};
use super::{CALM, CUT_OFF, FLOW_CONTROL, FRAME_SIZE, PROTOCOL, Row, row};

/// The library has one code for all frames that it cannot read.
const ONE_CODE: &str =
    "the connection ends all the same; only the code that the client is told is the general one";

fn wrong_size(section: &'static str, claim: &'static str, bytes: Vec<u8>) -> Row {
    row(section, claim, bytes, Connection(FRAME_SIZE)).but(Connection(PROTOCOL), ONE_CODE)
}

fn broken(section: &'static str, claim: &'static str, bytes: Vec<u8>) -> Row {
    row(section, claim, bytes, Connection(PROTOCOL))
}

fn fine(section: &'static str, claim: &'static str, bytes: Vec<u8>) -> Row {
    row(section, claim, bytes, Served(&[]))
}

pub(super) fn rows() -> Vec<Row> {
    let all = [
        sizes(),
        settings_rows(),
        pings(),
        windows(),
        priorities(),
        padding(),
        floods(),
        others(),
    ];
    all.into_iter().flatten().collect()
}

fn sizes() -> Vec<Row> {
    vec![
        row(
            "4.2",
            "a frame larger than SETTINGS_MAX_FRAME_SIZE is a connection error of type FRAME_SIZE_ERROR",
            [post(1, &[]), frame(0x0, END_STREAM, 1, &vec![0; 16_385])].concat(),
            Connection(FRAME_SIZE),
        ),
        row(
            "4.2",
            "a frame of exactly SETTINGS_MAX_FRAME_SIZE is taken",
            [post(1, &[]), frame(0x0, END_STREAM, 1, &vec![0; 16_384])].concat(),
            Served(&[1]),
        ),
        wrong_size(
            "6.3",
            "PRIORITY of another size than five",
            frame(0x2, 0, 1, &[0; 4]),
        ),
        wrong_size(
            "6.4",
            "RST_STREAM of another size than four",
            [post(1, &[]), frame(0x3, 0, 1, &[0; 3])].concat(),
        ),
        wrong_size(
            "6.9",
            "WINDOW_UPDATE of another size than four",
            frame(0x8, 0, 0, &[0; 3]),
        ),
        wrong_size("6.8", "GOAWAY shorter than eight", frame(0x7, 0, 0, &[0; 7])),
        broken(
            "6.2",
            "HEADERS with PRIORITY and too short for it",
            frame(0x1, WHOLE | PRIORITY, 1, &[0; 3]),
        ),
    ]
}

fn settings_rows() -> Vec<Row> {
    vec![
        wrong_size(
            "6.5",
            "SETTINGS with ACK and a payload",
            frame(0x4, 1, 0, &[0; 6]),
        ),
        wrong_size(
            "6.5",
            "SETTINGS of a size that is no multiple of six",
            frame(0x4, 0, 0, &[0; 5]),
        ),
        broken("6.5", "SETTINGS on a stream", frame(0x4, 0, 1, &[])),
        broken(
            "6.5.2",
            "SETTINGS_ENABLE_PUSH other than 0 and 1",
            settings(&[(2, 2)]),
        ),
        row(
            "6.5.2",
            "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1 is of type FLOW_CONTROL_ERROR",
            settings(&[(4, 0x8000_0000)]),
            Connection(FLOW_CONTROL),
        )
        .but(Connection(PROTOCOL), ONE_CODE),
        broken(
            "6.5.2",
            "SETTINGS_MAX_FRAME_SIZE below 2^14",
            settings(&[(5, 16_383)]),
        ),
        broken(
            "6.5.2",
            "SETTINGS_MAX_FRAME_SIZE above 2^24-1",
            settings(&[(5, 0x0100_0000)]),
        ),
        fine(
            "6.5.2",
            "settings that are not known are ignored",
            settings(&[(0xfefe, 7)]),
        ),
        fine(
            "6.5.3",
            "the last of several values counts",
            settings(&[(4, 1), (4, 65_535)]),
        ),
        row(
            "6.5",
            "an unsolicited ACK is no error that the RFC names",
            frame(0x4, 1, 0, &[]),
            Served(&[]),
        ),
        row(
            "6.9.2",
            "a window that a change of SETTINGS makes larger than 2^31-1 is of type FLOW_CONTROL_ERROR",
            [
                post(1, &[]),
                frame(0x8, 0, 1, &0x7fff_0000_u32.to_be_bytes()),
                settings(&[(4, 0x7fff_ffff)]),
            ]
            .concat(),
            Connection(FLOW_CONTROL),
        ),
    ]
}

fn pings() -> Vec<Row> {
    vec![
        wrong_size(
            "6.7",
            "PING of another size than eight",
            frame(0x6, 0, 0, &[0; 7]),
        ),
        broken("6.7", "PING on a stream", frame(0x6, 0, 1, &[0; 8])),
        fine(
            "6.7",
            "a PING is answered, one with ACK is not",
            [frame(0x6, 0, 0, &[7; 8]), frame(0x6, 1, 0, &[8; 8])].concat(),
        ),
        fine(
            "4.1",
            "flags that mean nothing are ignored",
            frame(0x6, 0xfe, 0, &[7; 8]),
        ),
    ]
}

fn windows() -> Vec<Row> {
    let update = |stream: u32, by: u32| frame(0x8, 0, stream, &by.to_be_bytes());
    vec![
        broken("6.9", "WINDOW_UPDATE of 0 for the connection", update(0, 0)),
        row(
            "6.9",
            "WINDOW_UPDATE of 0 for a stream is an error of the stream",
            [post(1, &[]), update(1, 0)].concat(),
            Stream(1, PROTOCOL),
        )
        .but(
            Connection(PROTOCOL),
            "an error of a stream may be taken for one of the connection (RFC 9113 §5.4.2); only its client is hit",
        ),
        row(
            "6.9.1",
            "a window of the connection above 2^31-1",
            update(0, 0x7fff_ffff),
            Connection(FLOW_CONTROL),
        ),
        row(
            "6.9.1",
            "a window of a stream above 2^31-1 is an error of the stream",
            [post(1, &[]), update(1, 0x7fff_ffff)].concat(),
            Stream(1, FLOW_CONTROL),
        ),
        fine("6.9", "the reserved bit of an increment is ignored", update(0, 0x8000_0001)),
    ]
}

fn priorities() -> Vec<Row> {
    let priority = |stream: u32, on: u32| frame(0x2, 0, stream, &[&on.to_be_bytes()[..], &[7]].concat());
    let depends = |stream: u32, on: u32| {
        let payload = [&on.to_be_bytes()[..], &[7], &block(&SOUND)].concat();
        frame(0x1, WHOLE | PRIORITY, stream, &payload)
    };
    vec![
        broken("6.3", "PRIORITY on stream 0", priority(0, 3)),
        fine(
            "5.3.2",
            "PRIORITY for a stream that is not open is taken and ignored",
            priority(9, 3),
        ),
        row(
            "5.3",
            "priority in HEADERS is taken and ignored",
            depends(1, 0),
            Served(&[1]),
        ),
        // RFC 7540 §5.3.1 had this; RFC 9113 deprecates priorities and leaves it open.
        row(
            "5.3",
            "HEADERS that depend on themselves",
            depends(1, 1),
            Stream(1, PROTOCOL),
        ),
    ]
}

fn padding() -> Vec<Row> {
    let padded = |pad: u8, rest: &[u8]| [&[pad], rest].concat();
    let sound = [block(&SOUND), vec![0; 5]].concat();
    vec![
        broken(
            "6.1",
            "DATA whose padding is as long as its payload",
            [
                post(1, &[]),
                frame(0x0, PADDED | END_STREAM, 1, &padded(5, &[0; 4])),
            ]
            .concat(),
        ),
        broken(
            "6.1",
            "DATA that is padded and has no room for the length",
            [post(1, &[]), frame(0x0, PADDED, 1, &[])].concat(),
        ),
        broken(
            "6.2",
            "HEADERS whose padding is longer than the frame",
            frame(0x1, WHOLE | PADDED, 1, &padded(200, &sound)),
        ),
        row(
            "6.2",
            "HEADERS with padding",
            frame(0x1, WHOLE | PADDED, 1, &padded(5, &sound)),
            Served(&[1]),
        ),
        row(
            "6.1",
            "DATA with padding, all of it",
            [
                post(1, &[("content-length", "3")]),
                frame(0x0, PADDED | END_STREAM, 1, &padded(4, b"abc\0\0\0\0")),
            ]
            .concat(),
            Served(&[1]),
        ),
    ]
}

/// More than a burst of frames that bring nothing. RFC 9113 leaves it to the server what is too much.
fn floods() -> Vec<Row> {
    const MANY: usize = 250;
    let flood = |claim, begin: Vec<u8>, one: Vec<u8>| {
        row(
            "10.5",
            claim,
            [begin, one.repeat(MANY)].concat(),
            Connection(CALM),
        )
        .but(Cut, CUT_OFF)
    };
    vec![
        flood(
            "DATA of padding alone, again and again",
            post(1, &[]),
            frame(0x0, PADDED, 1, &[7; 8]),
        ),
        flood("windows for nothing", vec![], frame(0x8, 0, 0, &[0, 0, 0, 1])),
        flood(
            "answers to a PING that was not sent",
            vec![],
            frame(0x6, 1, 0, &[0; 8]),
        ),
        row(
            "10.5",
            "windows for a request, and a burst of them",
            [get(1, "/"), frame(0x8, 0, 0, &[0, 0, 0, 1]).repeat(150)].concat(),
            Served(&[1]),
        ),
    ]
}

fn others() -> Vec<Row> {
    vec![
        fine(
            "4.1",
            "frames of unknown types are ignored",
            frame(0xee, 0xff, 0, b"anything"),
        ),
        row(
            "5.5",
            "frames of unknown types are ignored on streams too",
            [
                post(1, &[]),
                frame(0xee, 0, 1, b"anything"),
                frame(0x0, END_STREAM, 1, b"x"),
            ]
            .concat(),
            Served(&[1]),
        ),
        broken(
            "5.5",
            "a frame of an unknown type within a header block",
            [
                frame(0x1, END_STREAM, 1, &block(&SOUND)),
                frame(0xee, 0, 1, b"anything"),
                frame(0x9, END_HEADERS, 1, &[]),
            ]
            .concat(),
        ),
        broken(
            "8.4",
            "a client cannot push",
            [
                post(1, &[]),
                frame(
                    0x5,
                    END_HEADERS,
                    1,
                    &[&2_u32.to_be_bytes()[..], &block(&SOUND)].concat(),
                ),
            ]
            .concat(),
        ),
        row(
            "4.1",
            "the reserved bit of a stream's number is ignored",
            {
                let mut bytes = get(1, "/");
                bytes[5] |= 0x80;
                bytes
            },
            Served(&[1]),
        ),
        broken("6.8", "GOAWAY on a stream", frame(0x7, 0, 1, &[0; 8])),
        broken("6.1", "DATA on stream 0", frame(0x0, 0, 0, b"x")),
        broken("6.2", "HEADERS on stream 0", frame(0x1, WHOLE, 0, &block(&SOUND))),
        broken("6.4", "RST_STREAM on stream 0", frame(0x3, 0, 0, &[0; 4])),
    ]
}
