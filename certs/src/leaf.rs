//! The one leaf we make, written in DER (RFC 5280 §4.1) and signed. What every leaf of an authority has in
//! common is written once, with the authority.
//!
//! The general library, which writes our CA certificates, is the oracle of the tests here: it must write
//! the same bytes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::authority::Authority;
use crate::der::nest;
use crate::issue::{END_OF_TIME, IssueError, LeafProfile};
use crate::key::{KeyError, KeyKind, PublicKey};
use crate::serial::{Serial, Serials};

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const BITS: u8 = 0x03;
/// Version 3, in its explicit tag.
const VERSION: &[u8] = b"\xa0\x03\x02\x01\x02";
/// A `Name` without attributes: the subject of every leaf.
const EMPTY_NAME: &[u8] = b"\x30\x00";
/// Critical: digitalSignature.
const KEY_USAGE: &[u8] = b"\x30\x0e\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x07\x80";
/// serverAuth and clientAuth.
const EXTENDED_KEY_USAGE: &[u8] = b"\x30\x1d\x06\x03\x55\x1d\x25\x04\x16\x30\x14\
    \x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02";
/// Critical: no CA.
const BASIC_CONSTRAINTS: &[u8] = b"\x30\x0c\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x02\x30\x00";
/// Head of a subject alternative name, critical since the subject is empty.
const SUBJECT_ALT_NAME: &[u8] = b"\x06\x03\x55\x1d\x11\x01\x01\xff";
/// Head of a subject key identifier of 20 bytes.
const SUBJECT_KEY_ID: &[u8] = b"\x30\x1d\x06\x03\x55\x1d\x0e\x04\x16\x04\x14";
const AUTHORITY_KEY_ID: &[u8] = b"\x06\x03\x55\x1d\x23";
/// Context tags of a URI and of a DNS name in a subject alternative name.
const URI: u8 = 0x86;
const DNS: u8 = 0x82;
/// Bytes of a key identifier (RFC 7093 §2, method 1: of the key's SHA-256).
const KEY_ID_BYTES: usize = 20;
/// Room for a leaf with one short name; longer ones grow.
const ROOM: usize = 640;

/// What the leaves of one authority have in common.
pub(crate) struct Common {
    algorithm: &'static [u8],
    authority_key_id: Vec<u8>,
    serials: Mutex<Serials>,
}

impl Common {
    /// For the authority with this key, whose certificate carries this subject key identifier.
    pub(crate) fn new(key: &PublicKey, subject_key_id: Option<&[u8]>) -> Self {
        let derived = key_id(key.spki_der());
        let id = subject_key_id.unwrap_or(&derived);
        let mut authority_key_id = Vec::new();
        nest(&mut authority_key_id, SEQUENCE, |out| {
            out.extend_from_slice(AUTHORITY_KEY_ID);
            nest(out, OCTETS, |out| {
                nest(out, SEQUENCE, |out| {
                    nest(out, 0x80, |out| out.extend_from_slice(id))
                });
            });
        });
        Self {
            algorithm: signature_algorithm(key.kind()),
            authority_key_id,
            serials: Mutex::default(),
        }
    }

    fn serial(&self) -> Result<Serial, KeyError> {
        self.serials.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// How an authority with a key of this kind signs, as an `AlgorithmIdentifier`.
fn signature_algorithm(kind: KeyKind) -> &'static [u8] {
    match kind {
        KeyKind::P256 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
        KeyKind::P384 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
        KeyKind::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
        KeyKind::Rsa(_) => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00",
    }
}

fn key_id(spki: &[u8]) -> [u8; KEY_ID_BYTES] {
    let mut id = [0; KEY_ID_BYTES];
    for (to, from) in id.iter_mut().zip(digest(&SHA256, spki).as_ref()) {
        *to = *from;
    }
    id
}

/// Writes and signs the leaf of `profile` for `key`, valid from and to the seconds given.
pub(crate) fn write(
    profile: &LeafProfile,
    key: &PublicKey,
    authority: &Authority,
    validity: (UnixTime, UnixTime),
) -> Result<CertificateDer<'static>, IssueError> {
    let common = authority.common();
    let serial = common.serial()?;
    let issuer = &authority.certificate().subject().der;
    let mut tbs = Vec::with_capacity(ROOM);
    to_be_signed(&mut tbs, profile, key, (common, issuer, &serial), validity)?;
    let signature = authority.key().sign(&tbs)?;
    let mut whole = Vec::with_capacity(tbs.len() + signature.len() + 32);
    nest(&mut whole, SEQUENCE, |out| {
        out.extend_from_slice(&tbs);
        out.extend_from_slice(common.algorithm);
        nest(out, BITS, |out| {
            out.push(0);
            out.extend_from_slice(&signature);
        });
    });
    Ok(whole.into())
}

fn to_be_signed(
    out: &mut Vec<u8>,
    profile: &LeafProfile,
    key: &PublicKey,
    (common, issuer, serial): (&Common, &[u8], &Serial),
    (not_before, not_after): (UnixTime, UnixTime),
) -> Result<(), IssueError> {
    let names = || std::iter::once(profile.id.as_str()).chain(profile.dns.iter().map(String::as_str));
    if let Some(name) = names().find(|name| !name.is_ascii()) {
        return Err(IssueError::Name(name.to_owned()));
    }
    nest(out, SEQUENCE, |out| {
        out.extend_from_slice(VERSION);
        nest(out, 0x02, |out| out.extend_from_slice(serial));
        out.extend_from_slice(common.algorithm);
        out.extend_from_slice(issuer);
        nest(out, SEQUENCE, |out| {
            time(out, not_before);
            time(out, not_after);
        });
        out.extend_from_slice(EMPTY_NAME);
        let start = out.len();
        key.write_spki(out);
        let subject_key_id = key_id(out.get(start..).unwrap_or_default());
        nest(out, 0xa3, |out| {
            nest(out, SEQUENCE, |out| {
                out.extend_from_slice(&common.authority_key_id);
                subject_alt_name(out, profile);
                out.extend_from_slice(KEY_USAGE);
                out.extend_from_slice(EXTENDED_KEY_USAGE);
                out.extend_from_slice(SUBJECT_KEY_ID);
                out.extend_from_slice(&subject_key_id);
                out.extend_from_slice(BASIC_CONSTRAINTS);
            });
        });
    });
    Ok(())
}

fn subject_alt_name(out: &mut Vec<u8>, profile: &LeafProfile) {
    nest(out, SEQUENCE, |out| {
        out.extend_from_slice(SUBJECT_ALT_NAME);
        nest(out, OCTETS, |out| {
            nest(out, SEQUENCE, |out| {
                nest(out, URI, |out| {
                    out.extend_from_slice(profile.id.as_str().as_bytes())
                });
                for name in &profile.dns {
                    nest(out, DNS, |out| out.extend_from_slice(name.as_bytes()));
                }
            });
        });
    });
}

/// UTCTime to the end of 2049, GeneralizedTime from then on (RFC 5280 §4.1.2.5).
fn time(out: &mut Vec<u8>, time: UnixTime) {
    let since = Duration::from_secs(time.min(END_OF_TIME).as_secs());
    let at = rcgen::date_time_ymd(1970, 1, 1) + since;
    let year = at.year().unsigned_abs();
    let (tag, century) = if year < 2050 {
        (0x17, None)
    } else {
        (0x18, Some(year / 100))
    };
    nest(out, tag, |out| {
        if let Some(century) = century {
            two_digits(out, century);
        }
        two_digits(out, year % 100);
        for part in [
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
        ] {
            two_digits(out, part.into());
        }
        out.push(b'Z');
    });
}

fn two_digits(out: &mut Vec<u8>, number: u32) {
    let digit = |n: u32| b"0123456789".get(n as usize % 10).copied().unwrap_or(b'0');
    out.extend_from_slice(&[digit(number / 10), digit(number)]);
}

#[cfg(test)]
mod tests;
