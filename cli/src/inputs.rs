//! Files an operator names: chains, bundles, tokens, passphrases. Each is read whole, with a bound.

use std::io::Read as _;
use std::path::Path;

use signet_certs::bundle::MAX_BUNDLE_BYTES;
use signet_certs::certificate::Certificate;
use signet_certs::{SpiffeId, TrustBundle, TrustDomain};
use signet_runtime::files::read_bounded;
use zeroize::Zeroizing;

use crate::fault::Fault;

/// Largest chain file read, in bytes.
const MAX_CHAIN_BYTES: usize = 1024 * 1024;
/// Largest token read, in bytes, as the CA's own bound.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Largest passphrase read, in bytes.
const MAX_PASSPHRASE_BYTES: usize = 4096;
/// Shortest passphrase that protects a CA's key.
const MIN_PASSPHRASE_BYTES: usize = 12;
/// Stands for standard input, or output, where a file is asked for.
pub(crate) const STDIN: &str = "-";

/// The certificates of a PEM file, in their order.
///
/// # Errors
/// [`Fault::Unanswered`] with the file and what is wrong with it.
pub fn certificates(path: &Path) -> Result<Vec<Certificate>, Fault> {
    let pem = read_bounded(path, MAX_CHAIN_BYTES).map_err(Fault::unanswered)?;
    Certificate::all_from_pem(&pem).map_err(|e| Fault::Unanswered(format!("{}: {e}", path.display())))
}

/// A bundle and where its trust domain is known from.
#[derive(Clone, Debug)]
pub struct NamedBundle {
    /// The bundle.
    pub bundle: TrustBundle,
    /// Who named its trust domain.
    pub named_by: NamedBy,
}

/// Who says which trust domain a bundle belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedBy {
    /// The operator.
    Operator,
    /// The CA that serves it.
    Ca,
    /// The roots carry its SPIFFE ID.
    Roots,
    /// Nobody but the chain or token that is looked at.
    Chain,
}

/// Reads a bundle: PEM certificates, or a SPIFFE JWK set. A PEM file does not say whose it is; the
/// operator does, or the roots do, or `fallback`, in this order.
///
/// # Errors
/// [`Fault::Unanswered`] with the file and what is wrong with it.
pub fn bundle(
    path: &Path,
    given: Option<&TrustDomain>,
    fallback: Option<TrustDomain>,
) -> Result<NamedBundle, Fault> {
    let bytes = read_bounded(path, MAX_BUNDLE_BYTES).map_err(Fault::unanswered)?;
    let shown = path.display();
    let wrong = |e: &dyn std::fmt::Display| Fault::Unanswered(format!("{shown}: {e}"));
    let unnamed = || wrong(&"the bundle does not say which trust domain it belongs to; pass --trust-domain");
    let operator = given.map(|domain| (domain.clone(), NamedBy::Operator));
    let fallback = fallback.map(|domain| (domain, NamedBy::Chain));
    if bytes.trim_ascii_start().starts_with(b"{") {
        let (domain, named_by) = operator.or(fallback).ok_or_else(unnamed)?;
        let bundle = TrustBundle::from_jwks(domain, &bytes).map_err(|e| wrong(&e))?;
        return Ok(NamedBundle { bundle, named_by });
    }
    let roots = Certificate::all_from_pem(&bytes).map_err(|e| wrong(&e))?;
    let by_roots = || domain_of(&roots).map(|domain| (domain, NamedBy::Roots));
    let (domain, named_by) = operator.or_else(by_roots).or(fallback).ok_or_else(unnamed)?;
    let bundle = TrustBundle::new(domain, roots, 0).map_err(|e| wrong(&e))?;
    Ok(NamedBundle { bundle, named_by })
}

/// The trust domain whose own SPIFFE ID every one of these roots carries.
fn domain_of(roots: &[Certificate]) -> Option<TrustDomain> {
    let mut domains = roots.iter().map(|root| match root.names().uris.as_slice() {
        [uri] => uri.parse::<SpiffeId>().ok().map(|id| id.trust_domain()),
        _ => None,
    });
    let first = domains.next()??;
    domains
        .all(|other| other.as_ref() == Some(&first))
        .then_some(first)
}

/// A file that holds no secret, or standard input for `-`.
///
/// # Errors
/// [`Fault::Unanswered`] when it cannot be read or is larger than `most` bytes.
pub fn data(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, Fault> {
    if path != Path::new(STDIN) {
        return read_bounded(path, most).map_err(Fault::unanswered);
    }
    let mut bytes = Zeroizing::default();
    read_stdin(&mut bytes, most)?;
    Ok(bytes)
}

/// A token, which is a `what`, from a file, or from standard input for `-`, without blanks around it.
///
/// # Errors
/// [`Fault::Unanswered`] when it cannot be read, is empty or too large.
pub fn token(path: &Path, what: &str) -> Result<Zeroizing<String>, Fault> {
    let bytes = secret(path, MAX_TOKEN_BYTES)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Fault::Unanswered(format!("{} is not text, so it holds no token", path.display())))?;
    let token = Zeroizing::new(text.trim().to_owned());
    if token.is_empty() {
        let text = format!("{} is empty; it should hold a {what}", path.display());
        return Err(Fault::Unanswered(text));
    }
    Ok(token)
}

/// A passphrase from a file, or from standard input for `-`, without the line break at its end.
///
/// # Errors
/// [`Fault::Unanswered`] when it cannot be read or is too short to protect anything.
pub fn passphrase(path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let bytes = secret(path, MAX_PASSPHRASE_BYTES)?;
    let end = bytes
        .iter()
        .rposition(|b| !matches!(b, b'\n' | b'\r'))
        .map_or(0, |last| last + 1);
    let phrase = Zeroizing::new(bytes.get(..end).unwrap_or_default().to_vec());
    if phrase.len() < MIN_PASSPHRASE_BYTES {
        return Err(Fault::Unanswered(format!(
            "the passphrase in {} has {} bytes; use at least {MIN_PASSPHRASE_BYTES}, for example from \
             `openssl rand -base64 24`",
            path.display(),
            phrase.len()
        )));
    }
    Ok(phrase)
}

fn secret(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, Fault> {
    if path != Path::new(STDIN) {
        return read_bounded(path, most).map_err(Fault::unanswered);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    read_stdin(&mut bytes, most)?;
    Ok(bytes)
}

fn read_stdin(bytes: &mut Vec<u8>, most: usize) -> Result<(), Fault> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(bytes)
        .map_err(|e| Fault::Unanswered(format!("read standard input: {e}")))?;
    if bytes.len() > most {
        return Err(Fault::Unanswered(format!(
            "standard input holds more than {most} bytes"
        )));
    }
    Ok(())
}
