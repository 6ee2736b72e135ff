//! Requests that are malformed (RFC 9113 §8): they are not forwarded, whatever the upstream would make of them.

use super::Comes::{Connection, Refused, Served, Stream};
use super::wire::{END_HEADERS, END_STREAM, SOUND, WHOLE, block, exactly, frame, post, with};
use super::{PROTOCOL, Row, row};

/// Tells the test that the request went on.
const NEVER: (&str, &str) = ("x-never", "1");

/// The library reads names and values while it decodes them, and has one error for all of that.
const UNREADABLE: &str =
    "an error of a stream may be taken for one of the connection (RFC 9113 §5.4.2); nothing goes on";

pub(super) fn rows() -> Vec<Row> {
    pseudo()
        .into_iter()
        .chain(fields())
        .chain(lengths())
        .chain(targets())
        .chain(trailers())
        .collect()
}

fn malformed(section: &'static str, claim: &'static str, headers: &[(&str, &str)]) -> Row {
    row(section, claim, exactly(1, headers), Stream(1, PROTOCOL))
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    let mut headers: Vec<_> = SOUND.into_iter().filter(|(one, _)| *one != name).collect();
    headers.push(NEVER);
    headers
}

fn twice(name: &str) -> Vec<(&'static str, &'static str)> {
    let again = SOUND.into_iter().find(|(one, _)| *one == name);
    [&SOUND[..], &[again.unwrap(), NEVER]].concat()
}

fn pseudo() -> Vec<Row> {
    let [method, scheme, authority, path] = SOUND;
    vec![
        row(
            "8.3",
            "a sound request is served",
            exactly(1, &SOUND),
            Served(&[1]),
        ),
        malformed("8.3.1", "no :method", &without(":method")),
        malformed("8.3.1", "no :scheme", &without(":scheme")),
        malformed("8.3.1", "no :path", &without(":path")),
        malformed(
            "8.3.1",
            ":path is empty",
            &[method, scheme, authority, (":path", ""), NEVER],
        ),
        malformed("8.3", "two :method", &twice(":method")),
        malformed("8.3", "two :path", &twice(":path")),
        malformed("8.3", "two :authority", &twice(":authority")),
        malformed("8.3", "two :scheme", &twice(":scheme")),
        malformed(
            "8.3",
            "a pseudo-header of an answer",
            &[method, scheme, authority, path, (":status", "200"), NEVER],
        ),
        row(
            "8.3",
            "a pseudo-header that nobody knows",
            exactly(1, &[method, scheme, authority, path, (":nobody", "1"), NEVER]),
            Stream(1, PROTOCOL),
        )
        .but(Connection(PROTOCOL), UNREADABLE),
        malformed(
            "8.3",
            "a pseudo-header after a header",
            &[method, scheme, ("x", "y"), authority, path, NEVER],
        ),
        malformed(
            "8.5",
            ":protocol without CONNECT",
            &[method, scheme, authority, path, (":protocol", "x"), NEVER],
        ),
    ]
}

fn fields() -> Vec<Row> {
    let bad = |section, claim, name: &'static str, value: &'static str| {
        row(
            section,
            claim,
            with(1, &[(name, value), NEVER]),
            Stream(1, PROTOCOL),
        )
    };
    let unreadable =
        |claim, name, value| bad("8.2.1", claim, name, value).but(Connection(PROTOCOL), UNREADABLE);
    vec![
        unreadable("a name with a capital letter", "X-Upper", "a"),
        unreadable("a name with a space", "x y", "a"),
        unreadable("a name with a colon", "x:y", "a"),
        unreadable("an empty name", "", "a"),
        unreadable("a value with a line feed", "x", "a\nb"),
        unreadable("a value with a carriage return", "x", "a\rb"),
        unreadable("a value with NUL", "x", "a\0b"),
        bad("8.2.2", "Connection", "connection", "close"),
        bad("8.2.2", "Keep-Alive", "keep-alive", "1"),
        bad("8.2.2", "Proxy-Connection", "proxy-connection", "close"),
        bad("8.2.2", "Transfer-Encoding", "transfer-encoding", "chunked"),
        bad("8.2.2", "Upgrade", "upgrade", "x"),
        bad("8.2.2", "TE other than trailers", "te", "gzip"),
        row(
            "8.2.2",
            "TE: trailers",
            with(1, &[("te", "trailers")]),
            Served(&[1]),
        ),
    ]
}

fn lengths() -> Vec<Row> {
    let body = |length: &str, body: &[u8]| {
        [
            post(1, &[("content-length", length)]),
            frame(0x0, END_STREAM, 1, body),
        ]
        .concat()
    };
    let wrong = |claim, bytes| row("8.1.1", claim, bytes, Stream(1, PROTOCOL));
    vec![
        row(
            "8.1.1",
            "a body as long as it says",
            body("3", b"abc"),
            Served(&[1]),
        ),
        wrong("a body longer than it says", body("2", b"abc")),
        wrong("a body shorter than it says", body("4", b"abc")),
        wrong(
            "no body, and a length",
            with(1, &[("content-length", "4"), NEVER]),
        ),
        wrong("a length that is no number", body("+3", b"abc")),
        wrong(
            "two lengths that differ",
            [
                post(1, &[("content-length", "3"), ("content-length", "4")]),
                frame(0x0, END_STREAM, 1, b"abc"),
            ]
            .concat(),
        ),
    ]
}

fn targets() -> Vec<Row> {
    let [method, scheme, authority, path] = SOUND;
    let refused = |section, claim, headers: &[(&'static str, &'static str)]| {
        row(
            section,
            claim,
            exactly(1, &[headers, &[NEVER]].concat()),
            Refused(1),
        )
    };
    vec![
        refused("8.3.1", "neither :authority nor Host", &[method, scheme, path]),
        refused(
            "8.3.1",
            ":authority with a user",
            &[method, scheme, (":authority", "a@b"), path],
        ),
        refused(
            "8.3.1",
            ":authority and Host that differ",
            &[method, scheme, authority, path, ("host", "other")],
        ),
        row(
            "8.3.1",
            "Host without :authority counts",
            exactly(1, &[method, scheme, path, ("host", "b")]),
            Served(&[1]),
        ),
        malformed(
            "8.3.1",
            ":path that is none",
            &[method, scheme, authority, (":path", "a b"), NEVER],
        ),
        refused("8.5", "CONNECT", &[(":method", "CONNECT"), authority]),
    ]
}

fn trailers() -> Vec<Row> {
    let trailed = |trailers: &[(&str, &str)]| {
        [
            post(1, &[]),
            frame(0x0, 0, 1, b"abc"),
            frame(0x1, WHOLE, 1, &block(trailers)),
        ]
        .concat()
    };
    vec![
        row("8.1", "trailers", trailed(&[("x-checksum", "1")]), Served(&[1])),
        row(
            "8.1",
            "a pseudo-header in trailers",
            trailed(&[(":path", "/other")]),
            Stream(1, PROTOCOL),
        )
        .but(
            Served(&[1]),
            "the library leaves it out, so that nobody is told: policy judged the head, and the upstream gets the rest",
        ),
        row(
            "8.2.2",
            "Connection in trailers",
            trailed(&[("connection", "x")]),
            Stream(1, PROTOCOL),
        ),
        row(
            "8.1",
            "trailers that do not end the stream",
            [
                post(1, &[]),
                frame(0x0, 0, 1, b"abc"),
                frame(0x1, END_HEADERS, 1, &block(&[("x", "y")])),
            ]
            .concat(),
            Stream(1, PROTOCOL),
        ),
    ]
}
