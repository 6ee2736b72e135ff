//! Random names, uids and tokens from the system's generator.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

/// Letters and digits a generated name may end in: no vowels and no look-alikes, so no words appear.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How many letters Kubernetes appends to `generateName`.
const SUFFIX_LENGTH: usize = 5;

/// The system's random generator gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("the system's random generator gave nothing")]
pub(crate) struct NoRandom;

fn bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0_u8; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// A random UUID (version 4) in its usual text form.
pub(crate) fn uid() -> Result<String, NoRandom> {
    let number = u128::from_be_bytes(bytes::<16>()?);
    // RFC 9562 §5.4: four version bits and two variant bits are fixed.
    let number = (number & !(0xf_u128 << 76)) | (0x4_u128 << 76);
    let number = (number & !(0x3_u128 << 62)) | (0x2_u128 << 62);
    let hex = format!("{number:032x}");
    let mut text = String::with_capacity(36);
    for (position, digit) in hex.chars().enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    Ok(text)
}

/// The random end of a generated name.
pub(crate) fn name_suffix() -> Result<String, NoRandom> {
    let letters = bytes::<SUFFIX_LENGTH>()?;
    let letter = |byte: u8| {
        SUFFIX_ALPHABET
            .get(usize::from(byte) % SUFFIX_ALPHABET.len())
            .copied()
    };
    Ok(letters.into_iter().filter_map(letter).map(char::from).collect())
}

/// A bearer secret of 256 random bits.
pub(crate) fn secret() -> Result<Zeroizing<String>, NoRandom> {
    let mut raw = bytes::<32>()?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(raw));
    raw.zeroize();
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_four() {
        let uid = uid().unwrap();
        let parts: Vec<&str> = uid.split('-').collect();
        assert_eq!(
            parts.iter().map(|p| p.len()).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12]
        );
        assert!(parts[2].starts_with('4'), "{uid}");
        assert!(
            matches!(parts[3].as_bytes()[0], b'8' | b'9' | b'a' | b'b'),
            "{uid}"
        );
    }
}
