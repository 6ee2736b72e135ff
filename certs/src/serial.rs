//! Serial numbers, drawn from the system's random source several at a time: a system call for each costs
//! as much as writing the certificate.

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::key::KeyError;

/// Random bytes of a serial number; two bits are fixed, which leaves 126 (CA/B BR §7.1 asks for 64,
/// signet for 120).
pub(crate) const SERIAL_BYTES: usize = 16;
/// How many are drawn at once.
const DRAWN: usize = 32;

/// A serial number as it stands in a certificate: positive, and of fixed length.
pub(crate) type Serial = [u8; SERIAL_BYTES];

/// Serial numbers drawn and not yet given out. Each is given out once.
#[derive(Default)]
pub(crate) struct Serials {
    drawn: Vec<Serial>,
}

impl Serials {
    /// A serial number nobody has seen.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system's random source fails.
    pub(crate) fn next(&mut self) -> Result<Serial, KeyError> {
        if self.drawn.is_empty() {
            let mut bytes = [0; DRAWN * SERIAL_BYTES];
            SystemRandom::new()
                .fill(&mut bytes)
                .map_err(|_| KeyError::Random)?;
            self.drawn.extend(bytes.as_chunks().0);
        }
        let mut serial = self.drawn.pop().ok_or(KeyError::Random)?;
        // Top bit clear so that it is positive, the next set so that the length is fixed.
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        Ok(serial)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_serial_is_given_out_twice_and_each_is_positive_and_of_full_length() {
        let mut serials = Serials::default();
        let mut seen = HashSet::new();
        for _ in 0..DRAWN * 4 + 1 {
            let serial = serials.next().unwrap();
            assert_eq!(serial[0] & 0xc0, 0x40);
            assert!(seen.insert(serial));
        }
    }
}
