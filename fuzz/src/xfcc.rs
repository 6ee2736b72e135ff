//! What the application is told of a client, read as the application reads it.

use std::str::FromStr as _;

use signet_certs::SpiffeId;
use signet_proxy::http::xfcc;

/// One hop's word about its client: keys and values in their order, unquoted.
type Element = Vec<(String, String)>;

/// Two lines that are SPIFFE IDs, ours and the client's: what is told of them is one element, which names both as they
/// are and nobody else.
pub fn xfcc(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (by, uri) = text.split_once('\n').unwrap_or(("", text));
    let (by, Ok(uri)) = (SpiffeId::from_str(by).ok(), SpiffeId::from_str(uri)) else {
        return;
    };
    let mut hash = [0; 32];
    for (place, byte) in hash.iter_mut().zip(data) {
        *place = *byte;
    }
    let Some(header) = xfcc::header(by.as_ref(), &hash, &uri) else {
        panic!("nothing is told of {uri}")
    };
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let by = by.iter().map(|by| ("By".to_owned(), by.to_string()));
    let told = [("Hash".to_owned(), hash), ("URI".to_owned(), uri.to_string())];
    let expected: Element = by.chain(told).collect();
    assert_eq!(
        header.to_str().ok().and_then(read),
        Some(vec![expected]),
        "{header:?}"
    );
}

/// Reads the header as Envoy writes it: elements separated by commas, pairs by semicolons, values perhaps quoted, and
/// quotes in them escaped. Nothing where it is none.
fn read(text: &str) -> Option<Vec<Element>> {
    let element = |element: &str| split(element.trim(), ';')?.into_iter().map(pair).collect();
    split(text, ',')?.into_iter().map(element).collect()
}

fn pair(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let sound = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric());
    sound.then_some((key.to_owned(), unquote(value)?))
}

/// Cuts at `at`, except in quotations.
fn split(text: &str, at: char) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == at && !quoted => {
                parts.push(text.get(start..index)?);
                start = index + at.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(start..)?);
    (!quoted).then_some(parts)
}

fn unquote(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else {
        let plain = !value.contains(['"', '=']);
        return plain.then(|| value.to_owned());
    };
    let mut out = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '\\' => out.push(chars.next()?),
            '"' => break,
            c => out.push(c),
        }
    }
    chars.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Element {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        list.iter().map(owned).collect()
    }

    #[test]
    fn quotations_hide_separators_from_the_reader() {
        let text = r#"By=a;Subject="CN=x,O=\"y;z\"",Hash=1;Subject="""#;
        let expected = vec![
            pairs(&[("By", "a"), ("Subject", "CN=x,O=\"y;z\"")]),
            pairs(&[("Hash", "1"), ("Subject", "")]),
        ];
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn the_reader_reads_no_more_than_there_is() {
        for text in [
            "",
            "By",
            "=x",
            "By=a,",
            "B y=a",
            "By=\"a",
            "By=\"a\"b",
            "By=a\"b\"",
            "By=\"a\\",
            "By=a=b",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
