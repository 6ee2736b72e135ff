//! A search for secrets in what a process let out, in every form they could have taken.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

/// Bytes of a secret that make a find. Shorter ones would be chance.
const WINDOW: usize = 12;
/// Between the algorithm and the scalar of any P-256 key in PKCS#8: a key we never saw is found by it.
const PKCS8_P256: &[u8] = &[
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01,
    0x04, 0x20,
];

/// What must not be found.
#[derive(Debug, Default)]
pub struct Secrets {
    /// Needles of one length each, with the name of what they are part of.
    needles: HashMap<usize, HashSet<Vec<u8>>>,
    names: HashMap<Vec<u8>, String>,
    /// Which three bytes one of them begins with: most places in a text are not looked at any further.
    starts: Vec<bool>,
}

impl Secrets {
    /// Nothing but the forms that any private key has.
    #[must_use]
    pub fn any_key() -> Self {
        let mut secrets = Self::default();
        secrets.needle("a private key in PEM", b"PRIVATE KEY");
        for form in forms(PKCS8_P256) {
            secrets.needle("the frame of a P-256 key", &form);
        }
        secrets
    }

    /// A private key, PEM.
    ///
    /// # Panics
    /// When it is none.
    pub fn key(&mut self, name: &str, pem: &str) {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key in PEM");
        // The frame is the same for all keys and the public half is no secret: the scalar is what counts.
        let scalar = scalar(der.secret_der()).expect("an elliptic-curve key");
        for window in scalar.windows(WINDOW) {
            for form in forms(window) {
                self.needle(name, &form);
            }
        }
        // Base64 of the whole file, from any of its characters on.
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let secret = STANDARD.encode(der.secret_der());
        assert_eq!(body, secret, "PEM without attributes");
        let from = secret_part(der.secret_der(), scalar);
        for window in secret.as_bytes()[from.0..from.1].windows(WINDOW + 4) {
            self.needle(name, window);
        }
    }

    /// As [`Secrets::key`], in DER.
    ///
    /// # Panics
    /// As [`Secrets::key`].
    pub fn key_der(&mut self, name: &str, der: &[u8]) {
        let body = STANDARD.encode(der);
        self.key(
            name,
            &format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"),
        );
    }

    /// A token: as a whole, and any part of its signature.
    pub fn token(&mut self, name: &str, token: &str) {
        let signature = token.rsplit('.').next().unwrap_or_default();
        self.needle(name, token.as_bytes());
        for window in signature.as_bytes().windows(WINDOW + 4) {
            self.needle(name, window);
        }
    }

    fn needle(&mut self, name: &str, bytes: &[u8]) {
        self.starts.resize(1 << 24, false);
        self.starts[start(bytes).expect("more than three bytes")] = true;
        self.needles
            .entry(bytes.len())
            .or_default()
            .insert(bytes.to_vec());
        self.names
            .entry(bytes.to_vec())
            .or_insert_with(|| name.to_owned());
    }

    /// What of the secrets is in `text`, if anything.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Option<String> {
        for at in 0..text.len() {
            let rest = &text[at..];
            if !start(rest).is_some_and(|start| self.starts[start]) {
                continue;
            }
            for (length, needles) in &self.needles {
                let Some(window) = rest.get(..*length).filter(|window| needles.contains(*window)) else {
                    continue;
                };
                let name = self.names.get(window).map_or("?", String::as_str);
                return Some(format!(
                    "{name} at byte {at}, in the line that begins {:?}",
                    line(text, at)
                ));
            }
        }
        None
    }
}

/// The first three bytes, as a number.
fn start(bytes: &[u8]) -> Option<usize> {
    let [a, b, c] = *bytes.first_chunk()?;
    Some(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c))
}

/// The beginning of the line in which `at` is.
fn line(text: &[u8], at: usize) -> String {
    let before = &text[..at];
    let begin = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    String::from_utf8_lossy(&before[begin..])
        .chars()
        .take(300)
        .collect()
}

/// The private scalar inside a PKCS#8 or SEC1 key: an octet string of 32 bytes.
fn scalar(der: &[u8]) -> Option<&[u8]> {
    let at = der.windows(5).position(|w| w == [0x02, 0x01, 0x01, 0x04, 0x20])?;
    der.get(at + 5..at + 37)
}

/// Where in the base64 text of `der` the characters are that depend on `scalar` alone.
fn secret_part(der: &[u8], scalar: &[u8]) -> (usize, usize) {
    let start = der.windows(scalar.len()).position(|w| w == scalar).unwrap_or(0);
    let end = start + scalar.len();
    (start.div_ceil(3) * 4, end / 3 * 4)
}

/// Bytes as they are, as hex, as base64 at each alignment, and as a list of numbers.
fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let mut forms = vec![
        bytes.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        numbers.join(", ").into_bytes(),
        numbers.join(",").into_bytes(),
    ];
    for shift in 0..3 {
        let padded = [vec![0; shift], bytes.to_vec()].concat();
        for encoded in [STANDARD.encode(&padded), URL_SAFE.encode(&padded)] {
            // Characters that also depend on the neighbours are left out.
            let first = (shift * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            forms.push(encoded.as_bytes()[first..last].to_vec());
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_every_form_and_nothing_is_found_in_others() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = key.serialize_pem();
        let mut secrets = Secrets::default();
        secrets.key("key", &pem);
        let scalar = scalar(key.serialized_der()).unwrap();
        for form in forms(scalar) {
            assert!(secrets.find(&[b"before ".to_vec(), form].concat()).is_some());
        }
        let body: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        assert!(secrets.find(body.as_bytes()).is_some());
        assert!(Secrets::any_key().find(pem.as_bytes()).is_some());
        assert!(
            Secrets::any_key()
                .find(format!("{:?}", key.serialized_der()).as_bytes())
                .is_some()
        );
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(secrets.find(other.as_bytes()), None);
        assert_eq!(secrets.find(key.public_key_pem().as_bytes()), None);
    }

    #[test]
    fn part_of_a_token_is_found() {
        let mut secrets = Secrets::default();
        secrets.token("token", "head.body.c2lnbmF0dXJlc2lnbmF0dXJl");
        assert!(secrets.find(b"x c2lnbmF0dXJlc2lnbmF0 y").is_some());
        assert_eq!(secrets.find(b"head.body."), None);
    }
}
