//! Extensions and names in DER, right or wrong as a test wants them.

use rcgen::CustomExtension;

pub(crate) const SAN: &[u64] = &[2, 5, 29, 17];
pub(crate) const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
pub(crate) const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub(crate) const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];
pub(crate) const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

pub(crate) const DIGITAL_SIGNATURE: u8 = 0;
pub(crate) const KEY_ENCIPHERMENT: u8 = 2;
pub(crate) const CERT_SIGN: u8 = 5;
pub(crate) const CRL_SIGN: u8 = 6;

/// Last byte of id-kp-serverAuth and its neighbours (RFC 5280 §4.2.1.12).
pub(crate) const SERVER_AUTH: u8 = 1;
pub(crate) const CLIENT_AUTH: u8 = 2;
pub(crate) const CODE_SIGNING: u8 = 3;

/// One element of any length.
pub(crate) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = contents.len();
    if len < 0x80 {
        out.push(u8::try_from(len).unwrap());
    } else {
        let bytes: Vec<u8> = len.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        out.push(0x80 | u8::try_from(bytes.len()).unwrap());
        out.extend(bytes);
    }
    out.extend_from_slice(contents);
    out
}

pub(crate) fn seq(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn extension(oid: &[u64], critical: bool, value: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, value);
    extension.set_criticality(critical);
    extension
}

pub(crate) fn uri(name: &str) -> (u8, Vec<u8>) {
    (0x86, name.as_bytes().to_vec())
}

pub(crate) fn dns(name: &str) -> (u8, Vec<u8>) {
    (0x82, name.as_bytes().to_vec())
}

pub(crate) fn mail(name: &str) -> (u8, Vec<u8>) {
    (0x81, name.as_bytes().to_vec())
}

pub(crate) fn ip(octets: &[u8]) -> (u8, Vec<u8>) {
    (0x87, octets.to_vec())
}

pub(crate) fn san(critical: bool, names: &[(u8, Vec<u8>)]) -> CustomExtension {
    let names: Vec<_> = names.iter().map(|(tag, name)| tlv(*tag, name)).collect();
    extension(SAN, critical, seq(&names))
}

pub(crate) fn basic_constraints(ca: bool, path_len: Option<u8>) -> CustomExtension {
    let ca = if ca { tlv(0x01, &[0xff]) } else { Vec::new() };
    let path_len = path_len.map(|n| tlv(0x02, &[n])).unwrap_or_default();
    extension(BASIC_CONSTRAINTS, true, seq(&[ca, path_len]))
}

/// Named bits 0 to 7 in one byte, without trailing zeros (X.690 §11.2.2).
pub(crate) fn key_usage(critical: bool, bits: &[u8]) -> CustomExtension {
    let byte = bits.iter().fold(0u8, |all, bit| all | (0x80 >> bit));
    let unused = u8::try_from(byte.trailing_zeros().min(7)).unwrap();
    extension(KEY_USAGE, critical, tlv(0x03, &[unused, byte]))
}

/// Purposes below id-kp.
pub(crate) fn extended(purposes: &[u8]) -> CustomExtension {
    let purposes: Vec<_> = purposes
        .iter()
        .map(|last| tlv(0x06, &[0x2b, 6, 1, 5, 5, 7, 3, *last]))
        .collect();
    extension(EXTENDED_KEY_USAGE, false, seq(&purposes))
}

/// Permitted subtrees with one name of the given kind.
pub(crate) fn name_constraints(critical: bool, tag: u8, name: &str) -> CustomExtension {
    let subtree = seq(&[tlv(tag, name.as_bytes())]);
    extension(NAME_CONSTRAINTS, critical, seq(&[tlv(0xa0, &subtree)]))
}

/// An extension nobody knows.
pub(crate) fn unknown(critical: bool) -> CustomExtension {
    extension(&[1, 3, 6, 1, 4, 1, 99999, 1], critical, tlv(0x05, &[]))
}

/// One PEM block.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).unwrap());
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// The DER of the first PEM block.
pub(crate) fn unpem(pem: &str) -> Vec<u8> {
    use base64::Engine as _;
    let body: String = pem
        .lines()
        .skip_while(|l| !l.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|l| !l.starts_with("-----END"))
        .collect();
    base64::engine::general_purpose::STANDARD.decode(body).unwrap()
}
