//! The few lines of DER and PEM that no library gives us.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One PEM block of 64-character lines, ended by a newline (RFC 7468 §2).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let base64 = STANDARD.encode(der);
    let lines = base64.len().div_ceil(LINE);
    let mut text = String::with_capacity(base64.len() + lines + 2 * label.len() + 32);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = base64.as_str();
    while let Some((line, more)) = rest.split_at_checked(LINE.min(rest.len()))
        && !line.is_empty()
    {
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The contents of a text that is nothing but one PEM block of `label` as [`pem`] writes it: the form
/// nearly every client sends. Nothing for any other, which is not to say that it is none.
pub(crate) fn plain_pem(label: &str, text: &str) -> Option<Vec<u8>> {
    let body = text
        .strip_prefix("-----BEGIN ")?
        .strip_prefix(label)?
        .strip_prefix("-----\n")?;
    let body = body.strip_suffix('\n').unwrap_or(body);
    let body = body
        .strip_suffix("-----")?
        .strip_suffix(label)?
        .strip_suffix("\n-----END ")?;
    let mut joined = String::with_capacity(body.len());
    joined.extend(body.split('\n'));
    STANDARD.decode(joined).ok()
}

/// One tag-length-value at the head of `input`: (whole element, contents, rest). Definite lengths of up
/// to four bytes, which is all that X.509 needs.
pub(crate) fn element(input: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = *input.get(1)?;
    let (header, len) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let len = input
            .get(2..2 + count)?
            .iter()
            .fold(0usize, |n, b| (n << 8) | usize::from(*b));
        (2 + count, len)
    };
    let end = header.checked_add(len)?;
    Some((input.get(..end)?, input.get(header..end)?, input.get(end..)?))
}

/// `contents` wrapped in a definite-length element with `tag`.
pub(crate) fn wrap(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(contents.len() + 6);
    nest(&mut out, tag, |out| out.extend_from_slice(contents));
    out
}

/// Appends an element with `tag` and whatever `contents` appends inside it.
pub(crate) fn nest(out: &mut Vec<u8>, tag: u8, contents: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[tag, 0]);
    let start = out.len();
    contents(out);
    let len = (out.len() - start).to_be_bytes();
    let zeros = len.iter().take_while(|b| **b == 0).count();
    let significant = len.get(zeros..).unwrap_or_default();
    let first = match significant {
        [] => 0,
        [short] if *short < 0x80 => *short,
        long => {
            out.splice(start..start, long.iter().copied());
            0x80 | u8::try_from(long.len()).unwrap_or(8)
        }
    };
    if let Some(place) = out.get_mut(start - 1) {
        *place = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_length_read_back_as_they_were_wrapped() {
        for len in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let contents = vec![7; len];
            let mut input = wrap(0x30, &contents);
            let whole = input.clone();
            input.extend_from_slice(b"rest");
            assert_eq!(
                element(&input),
                Some((&whole[..], &contents[..], &b"rest"[..])),
                "{len}"
            );
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_no_element() {
        let cases: [&[u8]; 7] = [
            &[],
            &[0x30],
            &[0x30, 2, 0],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x82, 1],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
        ];
        for input in cases {
            assert_eq!(element(input), None, "{input:?}");
        }
    }

    #[test]
    fn pem_lines_have_64_characters_and_none_is_empty() {
        for len in [0, 1, 47, 48, 49, 96, 100] {
            let text = pem("X", &vec![1; len]);
            let body: Vec<&str> = text.lines().filter(|line| !line.starts_with('-')).collect();
            assert!(body.iter().rev().skip(1).all(|line| line.len() == 64), "{text}");
            assert!(body.iter().all(|line| (1..=64).contains(&line.len())), "{text}");
            assert!(text.ends_with("-----END X-----\n"));
        }
    }
    #[test]
    fn a_plain_block_reads_back_and_nothing_else_does() {
        for len in [0, 1, 47, 48, 49, 96, 100, 400] {
            let der = vec![7; len];
            let text = pem("X", &der);
            let read = plain_pem("X", &text);
            assert_eq!(read, (len > 0).then_some(der), "{len}");
            assert_eq!(plain_pem("Y", &text), None);
            assert_eq!(plain_pem("X", &format!("{text}{text}")), None);
            assert_eq!(plain_pem("X", &format!(" {text}")), None);
            assert_eq!(plain_pem("X", &text.replace('\n', "\r\n")), None);
        }
    }
}
