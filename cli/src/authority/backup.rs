//! The backup file: a header in clear, then the state under AES-256-GCM. The key is PBKDF2-HMAC-SHA256
//! of the passphrase; the whole header is authenticated.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `SIGNETBK` |
//! | 2 | version, 1 |
//! | 4 | PBKDF2 iterations |
//! | 16 | salt |
//! | 12 | nonce |
//! | 4 | length of what follows |
//! | … | ciphertext and 16 bytes of tag |
//!
//! Numbers are big-endian.

use std::num::NonZeroU32;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

/// Iterations of new backups (OWASP's floor for PBKDF2-HMAC-SHA256, 2023).
pub const ITERATIONS: u32 = 600_000;
/// Largest state backed up, in bytes; Kubernetes keeps no larger Secret.
pub const MAX_STATE_BYTES: usize = 1024 * 1024;
/// Largest backup read, in bytes.
pub const MAX_FILE_BYTES: usize = HEADER_BYTES + MAX_STATE_BYTES + TAG_BYTES;

const MAGIC: &[u8; 8] = b"SIGNETBK";
const VERSION: u16 = 1;
/// Fewer protect nothing; more are a file made to keep this process busy.
const ACCEPTED_ITERATIONS: std::ops::RangeInclusive<u32> = ITERATIONS..=5_000_000;
const SALT_BYTES: usize = 16;
const HEADER_BYTES: usize = 8 + 2 + 4 + SALT_BYTES + NONCE_LEN + 4;
const TAG_BYTES: usize = 16;

/// Why a backup is not made or not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Another kind of file.
    #[error("is no signet backup")]
    Foreign,
    /// Written by a newer signet.
    #[error(
        "is a backup of version {found}, this signet reads version {VERSION}; use the signet that wrote it"
    )]
    Newer {
        /// The version found.
        found: u16,
    },
    /// Its end is missing.
    #[error("is cut off: {found} bytes are there, {expected} should be; copy it again")]
    Truncated {
        /// Bytes there.
        found: usize,
        /// Bytes its header promises.
        expected: usize,
    },
    /// Something follows its end.
    #[error("has {0} bytes after its end; copy it again")]
    Trailing(usize),
    /// An iteration count nobody writes.
    #[error("asks for {0} key iterations, which no signet writes; the file was altered")]
    Iterations(u32),
    /// The tag does not fit.
    #[error("cannot be decrypted: the passphrase is wrong, or the file was altered")]
    Sealed,
    /// More than [`MAX_STATE_BYTES`].
    #[error("state has {0} bytes, at most {MAX_STATE_BYTES} are backed up")]
    TooLarge(usize),
    /// The system's random source failed.
    #[error("the system's random source failed")]
    Random,
}

/// Encrypts `state` under `passphrase`.
///
/// # Errors
/// [`BackupError::TooLarge`] and [`BackupError::Random`].
pub fn seal(state: &[u8], passphrase: &[u8], iterations: u32) -> Result<Vec<u8>, BackupError> {
    if state.len() > MAX_STATE_BYTES {
        return Err(BackupError::TooLarge(state.len()));
    }
    let mut salt = [0; SALT_BYTES];
    let mut nonce = [0; NONCE_LEN];
    let random = SystemRandom::new();
    random
        .fill(&mut salt)
        .and_then(|()| random.fill(&mut nonce))
        .map_err(|_| BackupError::Random)?;
    let length = u32::try_from(state.len() + TAG_BYTES).map_err(|_| BackupError::TooLarge(state.len()))?;
    let mut file = Vec::with_capacity(HEADER_BYTES + state.len() + TAG_BYTES);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_be_bytes());
    file.extend_from_slice(&iterations.to_be_bytes());
    file.extend_from_slice(&salt);
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&length.to_be_bytes());
    // With room for the tag, so that the clear text is never left behind by a reallocation.
    let mut sealed = Zeroizing::new(Vec::with_capacity(state.len() + TAG_BYTES));
    sealed.extend_from_slice(state);
    key(passphrase, &salt, iterations)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&file),
            &mut *sealed,
        )
        .map_err(|_| BackupError::Random)?;
    file.extend_from_slice(&sealed);
    Ok(file)
}

/// Decrypts a backup.
///
/// # Errors
/// A [`BackupError`].
pub fn open(file: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    if file.first_chunk::<8>() != Some(MAGIC) {
        return Err(BackupError::Foreign);
    }
    let cut = || BackupError::Truncated {
        found: file.len(),
        expected: HEADER_BYTES + TAG_BYTES,
    };
    // The version comes first: a newer header may have another length.
    let (version, _) = take::<2>(file.get(8..).unwrap_or_default()).ok_or_else(cut)?;
    match u16::from_be_bytes(version) {
        VERSION => {}
        0 => return Err(BackupError::Foreign),
        found => return Err(BackupError::Newer { found }),
    }
    let (header, sealed) = file.split_at_checked(HEADER_BYTES).ok_or_else(cut)?;
    let fields = header.get(10..).unwrap_or_default();
    let (iterations, fields) = take::<4>(fields).ok_or_else(cut)?;
    let (salt, fields) = take::<SALT_BYTES>(fields).ok_or_else(cut)?;
    let (nonce, fields) = take::<NONCE_LEN>(fields).ok_or_else(cut)?;
    let (length, _) = take::<4>(fields).ok_or_else(cut)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    match sealed.len().cmp(&length) {
        std::cmp::Ordering::Less => {
            let expected = HEADER_BYTES.saturating_add(length);
            return Err(BackupError::Truncated {
                found: file.len(),
                expected,
            });
        }
        std::cmp::Ordering::Greater => return Err(BackupError::Trailing(sealed.len() - length)),
        std::cmp::Ordering::Equal => {}
    }
    let iterations = u32::from_be_bytes(iterations);
    if !ACCEPTED_ITERATIONS.contains(&iterations) {
        return Err(BackupError::Iterations(iterations));
    }
    let mut state = Zeroizing::new(sealed.to_vec());
    let clear = key(passphrase, &salt, iterations)?
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut state)
        .map_err(|_| BackupError::Sealed)?
        .len();
    state.truncate(clear);
    Ok(state)
}

fn key(passphrase: &[u8], salt: &[u8], iterations: u32) -> Result<LessSafeKey, BackupError> {
    let rounds = NonZeroU32::new(iterations).ok_or(BackupError::Iterations(0))?;
    let mut bytes = Zeroizing::new([0u8; 32]);
    pbkdf2::derive(PBKDF2_HMAC_SHA256, rounds, salt, passphrase, &mut *bytes);
    UnboundKey::new(&AES_256_GCM, &*bytes)
        .map(LessSafeKey::new)
        .map_err(|_| BackupError::Random)
}

fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSPHRASE: &[u8] = b"correct horse battery";

    fn sealed() -> Vec<u8> {
        seal(b"{\"schema\":1}", PASSPHRASE, ITERATIONS).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_again_and_holds_no_clear_text() {
        let file = sealed();
        assert_eq!(open(&file, PASSPHRASE).unwrap().as_slice(), b"{\"schema\":1}");
        assert!(!file.windows(6).any(|w| w == b"schema"));
        assert_ne!(file, sealed(), "salt and nonce are fresh");
    }

    #[test]
    fn a_wrong_passphrase_and_every_altered_byte_are_refused() {
        let file = sealed();
        assert_eq!(
            open(&file, b"wrong horse battery!").unwrap_err(),
            BackupError::Sealed
        );
        // One byte of each field: magic, version, iterations, salt, nonce, length, body, tag.
        for at in [0, 9, 10, 14, 30, 45, file.len() - 1] {
            let mut altered = file.clone();
            altered[at] ^= 1;
            let refused = open(&altered, PASSPHRASE).unwrap_err();
            let expected: &[BackupError] = match at {
                0 => &[BackupError::Foreign],
                9 => &[BackupError::Foreign],
                10 => &[
                    BackupError::Iterations(ITERATIONS ^ 0x0100_0000),
                    BackupError::Sealed,
                ],
                45 => &[
                    BackupError::Trailing(1),
                    BackupError::Truncated {
                        found: file.len(),
                        expected: file.len() + 1,
                    },
                ],
                _ => &[BackupError::Sealed],
            };
            assert!(expected.contains(&refused), "byte {at}: {refused}");
        }
    }

    #[test]
    fn truncated_trailing_newer_and_foreign_files_are_told_apart() {
        let file = sealed();
        for end in [9, 20, HEADER_BYTES, file.len() - 1] {
            let refused = open(&file[..end], PASSPHRASE).unwrap_err();
            assert!(
                matches!(refused, BackupError::Truncated { found, .. } if found == end),
                "{end}: {refused}"
            );
        }
        let mut longer = file.clone();
        longer.extend_from_slice(b"xx");
        assert_eq!(open(&longer, PASSPHRASE).unwrap_err(), BackupError::Trailing(2));
        let mut newer = file.clone();
        newer[9] = 2;
        let text = open(&newer, PASSPHRASE).unwrap_err().to_string();
        assert_eq!(
            text,
            "is a backup of version 2, this signet reads version 1; use the signet that wrote it"
        );
        assert_eq!(
            open(b"{}", PASSPHRASE).unwrap_err().to_string(),
            "is no signet backup"
        );
        let weak = seal(b"x", PASSPHRASE, 1000).unwrap();
        assert_eq!(
            open(&weak, PASSPHRASE).unwrap_err(),
            BackupError::Iterations(1000)
        );
    }

    #[test]
    fn state_that_no_secret_could_hold_is_not_sealed() {
        let big = vec![0; MAX_STATE_BYTES + 1];
        assert_eq!(
            seal(&big, PASSPHRASE, 1).unwrap_err(),
            BackupError::TooLarge(MAX_STATE_BYTES + 1)
        );
    }
}
