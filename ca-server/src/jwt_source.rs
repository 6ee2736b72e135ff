//! Where keys for JWT-SVIDs come from: made here, or the operator's file.
//!
//! The file holds one or more private keys in PEM. The first is to sign, all are published; the operator
//! rotates by appending a key, moving it to the front once it has been published long enough, and
//! removing the old one when its last token is over. It is followed by its contents.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use signet_certs::jwt::JwtKeyError;
use signet_certs::key::KeyError;
use signet_certs::{JwtAuthority, JwtKey, SigningKey};
use signet_runtime::files::FollowedFile;

use crate::jwt_rotation::Supply;

/// Largest file read, in bytes.
const MAX_FILE_BYTES: usize = 64 * 1024;
/// Most keys in it: a rotation needs two.
const MAX_FILE_KEYS: usize = 4;
/// Most keys kept in memory after they left the file.
const MAX_HELD: usize = 8;

/// Why the operator's file is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("jwt_svid.key_file: {0}")]
    Io(#[from] std::io::Error),
    /// It holds no private key, or more than are read.
    #[error("jwt_svid.key_file {path}: {found} private keys in PEM, 1 to {MAX_FILE_KEYS} are read")]
    Count {
        /// The file.
        path: PathBuf,
        /// How many.
        found: usize,
    },
    /// One of its blocks is damaged.
    #[error("jwt_svid.key_file {path}: it is not PEM throughout")]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// A key that is weak or of a kind that signs no tokens.
    #[error("jwt_svid.key_file {path}: key {position}: {fault}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Its place, from 0.
        position: usize,
        /// What is wrong with it.
        fault: JwtKeyError,
    },
}

/// The source the configuration chose.
#[derive(Debug)]
pub enum JwtSource {
    /// We make keys and keep them with the root.
    Own,
    /// The operator's file.
    File(KeyFile),
}

/// The operator's file, and what it held before.
#[derive(Debug)]
pub struct KeyFile {
    file: FollowedFile,
    wanted: Vec<Arc<JwtAuthority>>,
    held: Vec<Arc<JwtAuthority>>,
    turning: bool,
}

impl JwtSource {
    /// Reads the operator's file, if there is one.
    ///
    /// # Errors
    /// A [`KeyFileError`]: a configured file that cannot be used is no reason to sign with another key.
    pub fn open(key_file: Option<&Path>) -> Result<Self, KeyFileError> {
        let Some(path) = key_file else {
            return Ok(Self::Own);
        };
        let mut source = KeyFile {
            file: FollowedFile::new(path.to_owned(), MAX_FILE_BYTES),
            wanted: Vec::new(),
            held: Vec::new(),
            turning: false,
        };
        source.poll()?;
        Ok(Self::File(source))
    }

    /// Whether the file has new contents.
    ///
    /// # Errors
    /// A [`KeyFileError`]; the last good contents stay in force.
    pub fn poll(&mut self) -> Result<bool, KeyFileError> {
        match self {
            Self::Own => Ok(false),
            Self::File(file) => file.poll(),
        }
    }

    /// What the rotation has to know of it.
    #[must_use]
    pub fn supply(&self) -> Supply {
        let public = |keys: &[Arc<JwtAuthority>]| keys.iter().map(|key| key.public().clone()).collect();
        match self {
            Self::Own => Supply::Own,
            Self::File(file) => Supply::File {
                wanted: public(&file.wanted),
                held: public(&file.held),
                turning: file.turning,
            },
        }
    }

    /// Learns which key signs: once it is the first of the file, the file has had its way, and a later
    /// change is another replica's.
    pub fn signs(&mut self, key: &JwtKey) {
        if let Self::File(file) = self
            && file.wanted.first().is_some_and(|first| first.public() == key)
        {
            file.turning = false;
        }
    }

    /// The private half of `key`, if the file holds or held it.
    #[must_use]
    pub fn find(&self, key: &JwtKey) -> Option<Arc<JwtAuthority>> {
        match self {
            Self::Own => None,
            Self::File(file) => file.held.iter().find(|held| held.public() == key).cloned(),
        }
    }
}

impl KeyFile {
    fn poll(&mut self) -> Result<bool, KeyFileError> {
        let Some(pem) = self.file.poll()? else {
            return Ok(false);
        };
        let wanted = parse(&pem, self.file.path())?;
        let mut held = wanted.clone();
        for key in &self.held {
            if held.len() < MAX_HELD && !held.iter().any(|known| known.public() == key.public()) {
                held.push(Arc::clone(key));
            }
        }
        (self.wanted, self.held, self.turning) = (wanted, held, true);
        Ok(true)
    }
}

fn parse(pem: &[u8], path: &Path) -> Result<Vec<Arc<JwtAuthority>>, KeyFileError> {
    let mut keys: Vec<Arc<JwtAuthority>> = Vec::new();
    let mut position = 0;
    for der in PrivateKeyDer::pem_slice_iter(pem) {
        let der = der.map_err(|_| KeyFileError::Pem { path: path.into() })?;
        let key = SigningKey::from_der(der)
            .map_err(|e: KeyError| JwtKeyError::from(e))
            .and_then(|key| JwtAuthority::new(Arc::new(key)))
            .map_err(|fault| KeyFileError::Key {
                path: path.into(),
                position,
                fault,
            })?;
        position += 1;
        if !keys.iter().any(|known| known.public() == key.public()) {
            keys.push(Arc::new(key));
        }
        if position > MAX_FILE_KEYS {
            break;
        }
    }
    if (1..=MAX_FILE_KEYS).contains(&position) {
        Ok(keys)
    } else {
        Err(KeyFileError::Count {
            path: path.into(),
            found: position,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        SigningKey::generate().unwrap().expose_pem().to_string()
    }

    #[test]
    fn the_first_key_of_the_file_is_to_sign_and_what_left_it_is_still_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwt.pem");
        let (a, b) = (pem(), pem());
        std::fs::write(&path, format!("{a}{b}")).unwrap();
        let mut source = JwtSource::open(Some(&path)).unwrap();
        let Supply::File { wanted: first, .. } = source.supply() else {
            panic!("a file");
        };
        assert_eq!(first.len(), 2);
        std::fs::write(&path, &b).unwrap();
        assert!(source.poll().unwrap() && !source.poll().unwrap());
        let Supply::File { wanted, held, .. } = source.supply() else {
            panic!("a file");
        };
        assert_eq!((wanted.as_slice(), held.len()), (&first[1..], 2));
        assert!(source.find(&first[0]).is_some());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_a_fault_and_its_last_good_contents_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwt.pem");
        assert!(matches!(JwtSource::open(Some(&path)), Err(KeyFileError::Io(_))));
        std::fs::write(&path, pem()).unwrap();
        let mut source = JwtSource::open(Some(&path)).unwrap();
        let before = source.supply();
        let ed25519 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
        for (bad, reason) in [
            (String::new(), "0 private keys in PEM, 1 to 4 are read"),
            (pem().repeat(5), "5 private keys in PEM, 1 to 4 are read"),
            (ed25519.to_owned(), "with which no JWT-SVID is signed"),
            (
                "-----BEGIN PRIVATE KEY-----\n?".to_owned(),
                "it is not PEM throughout",
            ),
        ] {
            std::fs::write(&path, &bad).unwrap();
            let fault = source.poll().unwrap_err().to_string();
            assert!(fault.contains(reason) && !fault.contains("MC4C"), "{fault}");
            assert_eq!(source.supply(), before);
        }
    }
}
