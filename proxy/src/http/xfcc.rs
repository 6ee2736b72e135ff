//! `X-Forwarded-Client-Cert` in Envoy's form: who the client proved to be, told to the application.
//!
//! Elements are separated by commas, one per hop; each is `Key=value` pairs separated by semicolons. A value that
//! holds `,`, `;`, `=` or a quote is quoted, quotes in it are escaped by a backslash (Envoy: *HTTP header
//! manipulation*, `x-forwarded-client-cert`).

use std::fmt;

use http::HeaderValue;
use signet_certs::SpiffeId;

/// Longest header that is read.
const MAX_BYTES: usize = 16 * 1024;
/// Most elements, and most pairs of one.
const MAX_ELEMENTS: usize = 32;

/// One hop's word about its client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Keys and values in their order, unquoted.
    pub pairs: Vec<(String, String)>,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XfccFault {
    /// Longer, or in more pieces, than anyone has hops.
    #[error("x-forwarded-client-cert is too long")]
    TooLong,
    /// A pair without `=`, or without a key.
    #[error("x-forwarded-client-cert has a pair that is not Key=value")]
    Pair,
    /// A quote that does not end, or text after one.
    #[error("x-forwarded-client-cert has a broken quotation")]
    Quote,
}

impl Element {
    /// The value of a key, whose case does not matter.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(key))?;
        Some(value)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.pairs.iter().enumerate() {
            f.write_str(if at > 0 { ";" } else { "" })?;
            write!(f, "{key}=")?;
            quote(value, f)?;
        }
        Ok(())
    }
}

fn quote(value: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // Blanks around an element are no part of it, so those in a value have to be told from them.
    let plain = |c: char| !matches!(c, ',' | ';' | '=' | '"' | '\\') && !c.is_whitespace();
    if !value.is_empty() && value.chars().all(plain) {
        return f.write_str(value);
    }
    f.write_str("\"")?;
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}

/// The header for a client with a verified certificate: `By=…;Hash=…;URI=…`.
#[must_use]
pub fn header(by: Option<&SpiffeId>, leaf_sha256: &[u8; 32], uri: &SpiffeId) -> Option<HeaderValue> {
    use fmt::Write as _;
    let mut hash = String::with_capacity(64);
    for byte in leaf_sha256 {
        write!(hash, "{byte:02x}").ok()?;
    }
    let mut pairs = Vec::with_capacity(3);
    if let Some(by) = by {
        pairs.push(("By".to_owned(), by.as_str().to_owned()));
    }
    pairs.push(("Hash".to_owned(), hash));
    pairs.push(("URI".to_owned(), uri.as_str().to_owned()));
    HeaderValue::from_str(&Element { pairs }.to_string()).ok()
}

/// Reads a header.
///
/// # Errors
/// [`XfccFault`].
pub fn parse(text: &str) -> Result<Vec<Element>, XfccFault> {
    if text.len() > MAX_BYTES {
        return Err(XfccFault::TooLong);
    }
    let mut elements = Vec::new();
    for element in split(text, ',')? {
        let mut pairs = Vec::new();
        for pair in split(element.trim(), ';')? {
            let (key, value) = pair.split_once('=').ok_or(XfccFault::Pair)?;
            let key_is_sound = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric());
            if !key_is_sound {
                return Err(XfccFault::Pair);
            }
            pairs.push((key.to_owned(), unquote(value)?));
            if pairs.len() > MAX_ELEMENTS {
                return Err(XfccFault::TooLong);
            }
        }
        elements.push(Element { pairs });
        if elements.len() > MAX_ELEMENTS {
            return Err(XfccFault::TooLong);
        }
    }
    Ok(elements)
}

/// Cuts at `at`, except in quotations.
fn split(text: &str, at: char) -> Result<Vec<&str>, XfccFault> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == at && !quoted => {
                parts.push(text.get(start..index).unwrap_or_default());
                start = index + at.len_utf8();
            }
            _ => {}
        }
    }
    if quoted {
        return Err(XfccFault::Quote);
    }
    parts.push(text.get(start..).unwrap_or_default());
    Ok(parts)
}

fn unquote(value: &str) -> Result<String, XfccFault> {
    let Some(rest) = value.strip_prefix('"') else {
        return if value.contains('"') {
            Err(XfccFault::Quote)
        } else {
            Ok(value.to_owned())
        };
    };
    let mut out = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            Some('\\') => out.push(chars.next().ok_or(XfccFault::Quote)?),
            Some('"') => break,
            Some(c) => out.push(c),
            None => return Err(XfccFault::Quote),
        }
    }
    if chars.next().is_some() {
        return Err(XfccFault::Quote);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clients_identity_is_told_as_envoy_tells_it() {
        let by: SpiffeId = "spiffe://cluster.local/ns/b/sa/back".parse().unwrap();
        let uri: SpiffeId = "spiffe://cluster.local/ns/a/sa/front".parse().unwrap();
        let value = header(Some(&by), &[0xab; 32], &uri).unwrap();
        let hash = "ab".repeat(32);
        let text = format!(
            "By=spiffe://cluster.local/ns/b/sa/back;Hash={hash};URI=spiffe://cluster.local/ns/a/sa/front"
        );
        assert_eq!(value, text);
        let elements = parse(&text).unwrap();
        assert_eq!(elements.len(), 1);
        assert_eq!(elements[0].get("uri"), Some(uri.as_str()));
        assert_eq!(elements[0].get("hash"), Some(hash.as_str()));
    }

    #[test]
    fn quotations_hide_separators() {
        let text = r#"By=a;Subject="CN=x,O=\"y;z\"",Hash=1;Subject="""#;
        let elements = parse(text).unwrap();
        assert_eq!(elements.len(), 2);
        assert_eq!(elements[0].get("Subject"), Some("CN=x,O=\"y;z\""));
        assert_eq!(elements[1].get("Subject"), Some(""));
    }

    #[test]
    fn what_is_no_such_header_is_refused() {
        for (text, fault) in [
            ("", XfccFault::Pair),
            ("By", XfccFault::Pair),
            ("=x", XfccFault::Pair),
            ("By=a,", XfccFault::Pair),
            ("B y=a", XfccFault::Pair),
            ("By=\"a", XfccFault::Quote),
            ("By=\"a\"b", XfccFault::Quote),
            ("By=a\"b\"", XfccFault::Quote),
            ("By=\"a\\", XfccFault::Quote),
        ] {
            assert_eq!(parse(text), Err(fault), "{text}");
        }
        assert_eq!(parse(&"By=a,".repeat(40)), Err(XfccFault::TooLong));
        assert_eq!(
            parse(&format!("By={}", "a".repeat(MAX_BYTES))),
            Err(XfccFault::TooLong)
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_alike(
            elements in prop::collection::vec(
                prop::collection::vec(("[A-Za-z0-9]{1,8}", r#"[\t\r -~é\u{a0}]{0,20}"#), 1..5),
                1..4,
            ),
        ) {
            let elements: Vec<Element> = elements.into_iter().map(|pairs| Element { pairs }).collect();
            let text: Vec<String> = elements.iter().map(Element::to_string).collect();
            prop_assert_eq!(parse(&text.join(",")), Ok(elements));
        }
    }
}
