use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::scan::Scanner;
use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A number in the low bits of a byte whose high bits are `head` (RFC 7541 §5.1).
fn number(head: u8, bits: u32, mut value: usize, out: &mut Vec<u8>) {
    let full = (1_usize << bits) - 1;
    let low = |value: usize| u8::try_from(value).unwrap();
    if value < full {
        out.push(head | low(value));
        return;
    }
    out.push(head | low(full));
    value -= full;
    while value >= 128 {
        out.push(low(value % 128) | 0x80);
        value /= 128;
    }
    out.push(low(value));
}

fn text(text: &str, out: &mut Vec<u8>) {
    number(0, 7, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// A field as a client may write it.
#[derive(Clone, Debug)]
enum Field {
    Indexed(usize),
    TableSize(usize),
    /// Head and bits of the representation, place of the name, value.
    Named(u8, u32, usize, String),
    /// The same with the name written out.
    Literal(u8, u32, String, String),
}

impl Field {
    fn write(&self, mend: bool, out: &mut Vec<u8>) {
        let value = |value: &str, authority: bool| match mend && authority {
            true => value.replace('%', "-"),
            false => value.to_owned(),
        };
        match self {
            Self::Indexed(place) => number(0x80, 7, *place, out),
            Self::TableSize(size) => number(0x20, 5, *size, out),
            Self::Named(head, bits, place, written) => {
                number(*head, *bits, *place, out);
                text(&value(written, *place == 1), out);
            }
            Self::Literal(head, bits, name, written) => {
                number(*head, *bits, 0, out);
                text(name, out);
                text(&value(written, name == ":authority"), out);
            }
        }
    }
}

fn frame(kind: u8, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
    out.extend_from_slice(payload);
}

/// A connection with these blocks of fields, between frames of other kinds.
fn connection(blocks: &[(Vec<Field>, u8, Option<usize>)], mend: bool) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame(4, 0, &[0, 3, 0, 0, 0, 100], &mut out);
    for (fields, padding, cut) in blocks {
        let mut block = Vec::new();
        fields.iter().for_each(|field| field.write(mend, &mut block));
        let cut = cut.map(|cut| cut.min(block.len()));
        let (first, second) = block.split_at(cut.unwrap_or(block.len()));
        let mut payload = vec![*padding, 0, 0, 0, 0, 9];
        payload.extend_from_slice(first);
        payload.extend(vec![0; usize::from(*padding)]);
        let end = if cut.is_some() { 0 } else { 0x4 };
        frame(1, 0x8 | 0x20 | end, &payload, &mut out);
        if cut.is_some() {
            frame(9, 0x4, second, &mut out);
        }
        frame(0, 0x1, b"\x00\x00\x00\x00\x05%:authority%", &mut out);
    }
    out
}

fn passed(mut bytes: Vec<u8>, cuts: &[usize]) -> Vec<u8> {
    let mut scanner = Scanner::default();
    let mut rest = bytes.as_mut_slice();
    for cut in cuts {
        let (now, later) = rest.split_at_mut((*cut).min(rest.len()));
        scanner.pass(now);
        rest = later;
    }
    scanner.pass(rest);
    bytes
}

fn fields() -> impl Strategy<Value = Field> {
    let kinds = prop_oneof![Just((0x40_u8, 6_u32)), Just((0x10, 4)), Just((0x00, 4))];
    let names = prop_oneof![
        Just(":authority".to_owned()),
        Just(":path".to_owned()),
        "[a-z:]{1,12}",
        "[a-z]{120,140}",
    ];
    let values = prop_oneof!["[a-z0-9%./]{0,20}", "[a-z%]{120,300}"];
    prop_oneof![
        (1..300_usize).prop_map(Field::Indexed),
        (0..5_000_usize).prop_map(Field::TableSize),
        (kinds.clone(), 1..80_usize, values.clone())
            .prop_map(|((head, bits), place, value)| Field::Named(head, bits, place, value)),
        (kinds, names, values)
            .prop_map(|((head, bits), name, value)| Field::Literal(head, bits, name, value)),
    ]
}

proptest! {
    #[test]
    fn the_percent_signs_of_every_authority_go_and_not_a_byte_beside(
        blocks in prop::collection::vec(
            (prop::collection::vec(fields(), 0..6), 0..9_u8, prop::option::of(0..40_usize)), 1..4),
        cuts in prop::collection::vec(0..60_usize, 0..12),
    ) {
        prop_assert_eq!(passed(connection(&blocks, false), &cuts), connection(&blocks, true));
    }

    #[test]
    fn whatever_comes_only_percent_signs_change_and_cuts_make_no_difference(
        noise in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'%'), Just(1), Just(0x41)], 0..400),
        cuts in prop::collection::vec(0..40_usize, 0..12),
        with_preface in any::<bool>(),
    ) {
        let mut bytes = if with_preface { PREFACE.to_vec() } else { Vec::new() };
        bytes.extend(noise);
        let whole = passed(bytes.clone(), &[]);
        prop_assert_eq!(&whole, &passed(bytes.clone(), &cuts));
        for (before, after) in bytes.iter().zip(&whole) {
            prop_assert!(before == after || (*before, *after) == (b'%', b'-'));
        }
    }
}

/// As grpcio 1.85 sends it: name and value written out, new to the table.
const OF_C_CORE: &[u8] =
    b"@\x05:path\x20/SpiffeWorkloadAPI/FetchX509SVID@\n:authority\x11tmp%2Fwl%2Fd.sock\x83\x86";

#[tokio::test]
async fn what_grpcs_c_core_sends_is_mended_on_the_way_in() {
    let mut sent = PREFACE.to_vec();
    frame(4, 0, b"", &mut sent);
    frame(1, 0x4, OF_C_CORE, &mut sent);
    let mut read = Vec::new();
    Lenient::new(sent.as_slice())
        .read_to_end(&mut read)
        .await
        .unwrap();
    let expected = String::from_utf8_lossy(&sent).replace("tmp%2Fwl%2Fd.sock", "tmp-2Fwl-2Fd.sock");
    assert_eq!(String::from_utf8_lossy(&read), expected);
}

#[test]
fn numbers_that_no_request_holds_end_the_walk_and_not_the_process() {
    for block in [
        &b"\x41\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x7f%"[..],
        b"\x40\x00%",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x41\x20%%",
    ] {
        let mut sent = PREFACE.to_vec();
        frame(1, 0x4, block, &mut sent);
        frame(1, 0x4, OF_C_CORE, &mut sent);
        let after = sent.len() - OF_C_CORE.len();
        assert_eq!(passed(sent.clone(), &[])[after..], sent[after..], "{block:?}");
    }
}
