use proptest::prelude::*;

use super::*;

/// What is said of `text`, whichever way it is cut into reads.
fn verdict(text: &[u8]) -> Result<(), FramingFault> {
    let whole = Framing::default()
        .feed(text, || Upgrade::Undecided)
        .map_err(|(_, fault)| fault);
    let mut bytewise = Framing::default();
    let single = text
        .iter()
        .try_for_each(|byte| bytewise.feed(&[*byte], || Upgrade::Undecided))
        .map_err(|(_, fault)| fault);
    assert_eq!(whole, single, "{}", String::from_utf8_lossy(text));
    whole
}

#[test]
fn messages_without_a_doubt_pass_one_after_the_other() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\na\nb\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding:chunked \r\n\r\n0\r\nTrailer: a\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(verdict(text.as_bytes()), Ok(()), "{text:?}");
    }
}

#[test]
fn messages_that_two_servers_may_cut_in_two_ways_are_refused() {
    use FramingFault::*;
    for (text, fault) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed),
        ("\nGET / HTTP/1.1\r\n\r\n", BareLineFeed),
        (
            "P / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            SeveralLengths,
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
            SeveralLengths,
        ),
        ("P / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", BadLength),
        ("P / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", BadLength),
        ("P / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", BadLength),
        ("P / HTTP/1.1\r\nContent-Length:\r\n\r\n", BadLength),
        (
            "P / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
            BadLength,
        ),
        (
            "P / HTTP/1.1\r\nContent-Length : 1\r\ncontent-length: 1\r\n\r\n",
            SeveralLengths,
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            LengthAndEncoding,
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            LengthAndEncoding,
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            BadEncoding,
        ),
        ("P / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", BadEncoding),
        ("P / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", BadEncoding),
        ("P / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", BadEncoding),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadEncoding,
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            BadEncoding,
        ),
    ] {
        assert_eq!(verdict(text.as_bytes()), Err(fault), "{text:?}");
    }
    let padded = format!(
        "P / HTTP/1.1\r\nTransfer-Encoding: {}chunked\r\n\r\n",
        " ".repeat(300)
    );
    assert!(bytewise(&padded).is_err(), "a framing line too long to be kept");
}

fn bytewise(text: &str) -> Result<(), (usize, FramingFault)> {
    let mut framing = Framing::default();
    text.bytes()
        .try_for_each(|byte| framing.feed(&[byte], || Upgrade::Undecided))
}

#[test]
fn chunks_are_read_strictly() {
    for chunks in [
        "\r\n",
        "g\r\n",
        " 3\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "0x3\r\nabc\r\n",
        "-3\r\n",
        "3\nabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n0\r\n",
        "3;a\nb\r\n",
        "3;\x01\r\nabc\r\n",
        "1000000000000000\r\n",
        "3\r\nabc\r\r\n",
    ] {
        let text = format!("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(
            verdict(text.as_bytes()),
            Err(FramingFault::BadChunk),
            "{chunks:?}"
        );
    }
    let trailers = "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n";
    assert_eq!(verdict(trailers.as_bytes()), Err(FramingFault::BareLineFeed));
    let long = format!(
        "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n",
        "x".repeat(300)
    );
    assert_eq!(verdict(long.as_bytes()), Err(FramingFault::BadChunk));
}

#[test]
fn bytes_after_a_request_to_upgrade_wait_for_its_answer() {
    let head = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let mut early = Framing::default();
    early.feed(head, || Upgrade::Undecided).unwrap();
    assert_eq!(
        early.feed(b"x", || Upgrade::Undecided),
        Err((0, FramingFault::BeforeUpgrade))
    );
    let mut at_once = Framing::default();
    let both = [head.as_slice(), b"GET"].concat();
    assert_eq!(
        at_once.feed(&both, || Upgrade::Refused),
        Err((head.len(), FramingFault::BeforeUpgrade)),
        "what was said of an earlier request does not count"
    );
    let mut accepted = Framing::default();
    accepted.feed(head, || Upgrade::Undecided).unwrap();
    accepted.feed(b"\n\n\0", || Upgrade::Accepted).unwrap();
    accepted.feed(b"\n", || Upgrade::Undecided).unwrap();
    let mut refused = Framing::default();
    refused.feed(head, || Upgrade::Undecided).unwrap();
    assert_eq!(
        refused.feed(b"GET / HTTP/1.1\n", || Upgrade::Refused),
        Err((14, FramingFault::BareLineFeed))
    );
}

#[test]
fn a_head_is_under_way_from_its_first_byte_to_its_empty_line() {
    let mut framing = Framing::default();
    assert!(!framing.mid_head());
    for (bytes, under_way) in [
        ("G", true),
        ("ET / HTTP/1.1\r\n", true),
        ("A: b\r\n", true),
        ("\r\n", false),
    ] {
        framing.feed(bytes.as_bytes(), || Upgrade::Undecided).unwrap();
        assert_eq!(framing.mid_head(), under_way, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn how_bytes_are_cut_into_reads_changes_nothing(
        lines in prop::collection::vec(prop::sample::select(vec![
            "GET / HTTP/1.1\r\n", "Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n", "\r\n", "\n", "ab",
            "2\r\n", "0\r\n", "X: y\r\n",
        ]), 0..12),
        cut in 0..200_usize,
    ) {
        let text = lines.concat().into_bytes();
        let cut = cut.min(text.len());
        let mut whole = Framing::default();
        let mut halves = Framing::default();
        let once = whole.feed(&text, || Upgrade::Refused).map_err(|(_, fault)| fault);
        let twice = halves
            .feed(&text[..cut], || Upgrade::Refused)
            .and_then(|()| halves.feed(&text[cut..], || Upgrade::Refused))
            .map_err(|(_, fault)| fault);
        prop_assert_eq!(once, twice);
    }
}

#[test]
fn empty_lines_before_a_request_are_none_of_it_and_half_a_line_end_is() {
    for (bytes, begun) in [
        ("", ""),
        ("\r\n", ""),
        ("\r\n\r\nGET /\r\n", "GET /\r\n"),
        ("\r\n\r", "\r"),
        ("\n", "\n"),
        ("G\r\n", "G\r\n"),
    ] {
        assert_eq!(
            without_empty_lines(bytes.as_bytes()),
            begun.as_bytes(),
            "{bytes:?}"
        );
    }
}
