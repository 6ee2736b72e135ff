use super::*;

const PADDED: u8 = 0x8;

fn frame_of(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
    frame_of(1, kind, flags, &vec![0xff; payload])
}

/// DATA of which `padding` bytes are none.
fn padded(flags: u8, data: usize, padding: u8) -> Vec<u8> {
    let payload = [vec![padding], vec![0; data + usize::from(padding)]].concat();
    frame_of(1, DATA, PADDED | flags, &payload)
}

fn begun() -> Frames {
    let mut frames = Frames::default();
    frames
        .feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || Duration::ZERO)
        .unwrap();
    frames
}

fn many(count: usize, one: &[u8]) -> Result<(), FrameFault> {
    begun().feed(&one.repeat(count), || Duration::ZERO)
}

/// So many streams one after the other, each with these frames after the HEADERS that begin it.
fn streams(count: u32, flags: u8, rest: &[(u8, u8, usize)]) -> Result<(), FrameFault> {
    let mut frames = begun();
    (0..count).try_for_each(|number| {
        let stream = 2 * number + 1;
        let mut bytes = frame_of(stream, HEADERS, flags, &[0x82; 9]);
        for (kind, flags, payload) in rest {
            bytes.extend(frame_of(stream, *kind, *flags, &vec![0; *payload]));
        }
        frames.feed(&bytes, || Duration::ZERO)
    })
}

#[test]
fn frames_that_bring_nothing_are_let_pass_in_a_burst_and_not_in_a_flood() {
    for (name, one) in [
        ("ping", frame(0x6, 0, 8)),
        ("answers to pings that were not sent", frame(0x6, 1, 8)),
        ("settings", frame(0x4, 0, 6)),
        ("answers to settings that were not sent", frame(0x4, 1, 0)),
        ("priority", frame(0x2, 0, 5)),
        ("updates of priority", frame(0x10, 0, 5)),
        ("windows for nothing", frame(0x8, 0, 4)),
        ("goaway", frame(0x7, 0, 8)),
        ("empty data", frame(0x0, 0, 0)),
        ("data that is padding", padded(0, 0, 255)),
        ("data that is the length of no padding", padded(0, 0, 0)),
        (
            "data with more padding than bytes",
            frame_of(1, DATA, PADDED, &[9, 0, 0]),
        ),
        (
            "padded data without a length of padding",
            frame_of(1, DATA, PADDED, &[]),
        ),
        ("unknown", frame(0xee, 0, 3)),
    ] {
        assert_eq!(many(200, &one), Ok(()), "{name}");
        assert_eq!(many(201, &one), Err(FrameFault::Flood), "{name}");
    }
}

#[test]
fn what_a_busy_honest_client_sends_is_no_flood() {
    for (name, one) in [
        ("data", frame(0x0, 0, 10)),
        ("end of data", frame(0x0, 1, 0)),
        ("data with padding", padded(0, 1, 255)),
        ("end of data with padding", padded(1, 0, 255)),
    ] {
        assert_eq!(many(10_000, &one), Ok(()), "{name}");
    }
    for (name, rest) in [
        ("requests", &[][..]),
        ("requests with bodies", &[(DATA, 1, 10)]),
        ("requests with trailers", &[(HEADERS, 5, 9)]),
        (
            "a window and a priority for each, told twice",
            &[(0x8, 0, 4), (0x2, 0, 5), (0x8, 0, 4), (0x10, 0, 5)],
        ),
    ] {
        assert_eq!(streams(10_000, 5, rest), Ok(()), "{name}");
    }
}

#[test]
fn windows_and_pings_that_answer_our_data_are_no_flood_however_small_it_is() {
    let window = frame(0x8, 0, 4);
    let ping = frame(0x6, 0, 8);
    for (name, size, answer) in [
        // Two windows and the ping of one who measures, for each frame of a single byte.
        ("a window of a byte", 1, [window.repeat(2), ping.clone()].concat()),
        ("windows for each KiB", 16_384, window.repeat(32)),
    ] {
        let mut frames = begun();
        let ours = frame(DATA, 0, size);
        for _ in 0..10_000 {
            // As it is written: the head apart from the payload.
            let (head, payload) = ours.split_at(9);
            frames.sent(head);
            frames.sent(payload);
            let fed = frames.feed(&answer, || Duration::ZERO);
            assert_eq!(fed, Ok(()), "{name}");
        }
    }
}

#[test]
fn more_windows_than_our_data_explains_are_a_flood() {
    let mut frames = begun();
    frames.sent(&frame(0x4, 0, 36));
    frames.sent(&frame(HEADERS, 4, 50));
    frames.sent(&frame(DATA, 0, 16_384).repeat(10));
    // Four for each of the ten, two for each of their 160 KiB, and the burst.
    let most = 40 + 320 + 200;
    let window = frame(0x8, 0, 4);
    frames.feed(&window.repeat(most), || Duration::ZERO).unwrap();
    assert_eq!(frames.feed(&window, || Duration::ZERO), Err(FrameFault::Flood));
}

#[test]
fn a_ping_now_and_then_goes_on_for_ever() {
    let mut frames = begun();
    for second in 0..100_000 {
        frames
            .feed(&frame(0x6, 0, 8), || Duration::from_millis(60 * second))
            .unwrap();
    }
}

#[test]
fn requests_that_are_reset_at_once_end_the_connection_whatever_else_they_have() {
    const RESET: (u8, u8, usize) = (0x3, 0, 4);
    for (name, flags, rest) in [
        ("nothing", 5, &[RESET][..]),
        ("data", 4, &[(DATA, 1, 3), RESET]),
        ("trailers", 4, &[(HEADERS, 5, 9), RESET]),
        (
            "trailers that go on",
            4,
            &[(HEADERS, 1, 9), (CONTINUATION, 4, 9), RESET],
        ),
    ] {
        assert_eq!(streams(200, flags, rest), Ok(()), "{name}");
        assert_eq!(streams(201, flags, rest), Err(FrameFault::RapidReset), "{name}");
    }
}

#[test]
fn what_was_answered_may_be_reset() {
    let mut frames = begun();
    for number in 0..10_000 {
        let stream = 2 * number + 1;
        frames
            .feed(&frame_of(stream, HEADERS, 4, &[0x82]), || Duration::ZERO)
            .unwrap();
        frames.sent(&frame_of(stream, HEADERS, 5, &[0x88]));
        frames
            .feed(&frame_of(stream, 0x3, 0, &[0; 4]), || Duration::ZERO)
            .unwrap();
    }
}

#[test]
fn one_request_in_two_may_be_reset() {
    let mut frames = begun();
    for number in 0..10_000 {
        let (one, two) = (4 * number + 1, 4 * number + 3);
        let bytes = [
            frame_of(one, HEADERS, 5, &[0x82]),
            frame_of(two, HEADERS, 5, &[0x82]),
            frame_of(one, 0x3, 0, &[0; 4]),
        ];
        frames.feed(&bytes.concat(), || Duration::ZERO).unwrap();
    }
}

#[test]
fn header_blocks_that_begin_no_stream_are_let_pass_once_for_each_stream() {
    let again = frame(HEADERS, 5, 9);
    // The one that begins it, and its trailers.
    assert_eq!(many(2 + 200, &again), Ok(()));
    assert_eq!(many(2 + 201, &again), Err(FrameFault::Flood));
}

#[test]
fn a_header_block_has_so_many_pieces() {
    let pieces = |count: usize| [frame(0x1, 0, 1), frame(0x9, 0, 0).repeat(count)].concat();
    assert_eq!(many(10, &pieces(32)), Ok(()));
    assert_eq!(many(1, &pieces(33)), Err(FrameFault::Continuations));
}

#[test]
fn how_bytes_are_cut_into_reads_changes_nothing() {
    let bytes = [frame(0x1, 5, 30), padded(0, 7, 9), frame(0x4, 0, 6).repeat(201)].concat();
    let mut frames = begun();
    let cut = bytes
        .iter()
        .position(|byte| frames.feed(&[*byte], || Duration::ZERO).is_err());
    let last_head = bytes.len() - 6 - 1;
    assert_eq!(
        cut,
        Some(last_head),
        "at the head of the frame that is one too many"
    );
}

#[test]
fn what_cannot_be_acted_upon_yet_is_counted_until_it_can() {
    let mut frames = begun();
    let mut feed = |bytes: &[u8]| {
        frames.feed(bytes, || Duration::ZERO).unwrap();
        frames.unread()
    };
    let whole = frame_of(1, HEADERS, END_HEADERS, &[0; 1000]);
    let (some, rest) = whole.split_at(9 + 400);
    assert_eq!([feed(some), feed(rest)], [400, 0]);
    assert_eq!(feed(&frame_of(3, HEADERS, 0, &[0; 1000])), 1000);
    let more = frame_of(3, CONTINUATION, END_HEADERS, &[0; 500]);
    let (some, rest) = more.split_at(9 + 100);
    assert_eq!([feed(some), feed(rest)], [1100, 0]);
    let (some, rest) = whole.split_at(3);
    assert_eq!([feed(some), feed(rest)], [0, 0]);
    let unknown = frame(0xee, 0, 200);
    let (some, rest) = unknown.split_at(109);
    assert_eq!([feed(some), feed(rest)], [100, 0]);
    let data = frame(DATA, 0, 200);
    assert_eq!(feed(&data[..100]), 0, "what the windows are for");
}
