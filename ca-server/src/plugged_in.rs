//! CAs that the operator brings, in Istio's `cacerts` layout or a Kubernetes TLS Secret's.
//!
//! | layout | signing certificate | key | chain above it | roots |
//! |---|---|---|---|---|
//! | Istio | `ca-cert.pem` | `ca-key.pem` | `cert-chain.pem` | `root-cert.pem` |
//! | Kubernetes TLS (wins) | `tls.crt`, first block | `tls.key` | `tls.crt`, further blocks | `ca.crt` |
//!
//! A partial set is an error, never a fall-back to a root of our own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use signet_certs::authority::AuthorityError;
use signet_certs::bundle::BundleError;
use signet_certs::certificate::{Certificate, CertificateError};
use signet_certs::key::{KeyError, KeyKind};
use signet_certs::verify::VerifyError;
use signet_certs::{Authority, SigningKey, TrustBundle, TrustDomain, UnixTime};
use signet_runtime::files::read_bounded;
use zeroize::Zeroizing;

/// Largest file read, in bytes.
const MAX_FILE: usize = 512 * 1024;

/// Why a plugged-in CA is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluggedInError {
    /// Files of a layout are missing.
    #[error(
        "{directory} has {found} but not {missing}; give all of ca-cert.pem, ca-key.pem, root-cert.pem \
         (and cert-chain.pem for an intermediate), or all of tls.crt, tls.key, ca.crt"
    )]
    Partial {
        /// The directory.
        directory: String,
        /// What is there.
        found: String,
        /// What is not.
        missing: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file holds no certificates.
    #[error("{file}: {fault}")]
    Certificate {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        fault: CertificateError,
    },
    /// The key file holds no usable key.
    #[error("{file}: {fault}")]
    Key {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        fault: KeyError,
    },
    /// The files do not fit together.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The roots are no roots.
    #[error("roots: {0}")]
    Bundle(#[from] BundleError),
    /// The signing certificate does not lead to the roots.
    #[error("the signing certificate does not lead to the roots: {0}")]
    Unverified(VerifyError),
}

/// A plugged-in CA whose parts fit together and lead to its roots.
#[derive(Debug)]
pub struct PluggedIn {
    /// The signing authority.
    pub authority: Authority,
    /// Its roots, at sequence 0: the state knows the real one.
    pub bundle: TrustBundle,
}

struct Layout {
    certificate: &'static str,
    key: &'static str,
    chain: Option<&'static str>,
    roots: &'static str,
}

const KUBERNETES: Layout = Layout {
    certificate: "tls.crt",
    key: "tls.key",
    chain: None,
    roots: "ca.crt",
};
const ISTIO: Layout = Layout {
    certificate: "ca-cert.pem",
    key: "ca-key.pem",
    chain: Some("cert-chain.pem"),
    roots: "root-cert.pem",
};

/// Reads and checks the CA in `directory`.
///
/// # Errors
/// A [`PluggedInError`] naming the file and the fix.
pub fn load(directory: &Path, domain: &TrustDomain, now: UnixTime) -> Result<PluggedIn, PluggedInError> {
    let layout = choose(directory)?;
    let read = |file: &str| read_bounded(&directory.join(file), MAX_FILE);
    let parse = |file: &'static str, pem: &[u8]| {
        Certificate::all_from_pem(pem).map_err(|fault| PluggedInError::Certificate { file, fault })
    };
    let mut signing = parse(layout.certificate, &read(layout.certificate)?)?;
    let mut above = signing.split_off(1);
    if let Some(chain) = layout.chain
        && directory.join(chain).exists()
    {
        above = parse(chain, &read(chain)?)?;
    }
    let certificate = signing.remove(0);
    // Istio's chain file begins with the signing certificate itself and may end with the root.
    above.retain(|c| c.der() != certificate.der() && !c.is_self_issued());
    let key: Zeroizing<Vec<u8>> = read(layout.key)?;
    let key = SigningKey::from_pem(&key).map_err(|fault| PluggedInError::Key {
        file: layout.key,
        fault,
    })?;
    let authority = Authority::new(Arc::new(key), certificate, above)?;
    let roots = parse(layout.roots, &read(layout.roots)?)?;
    let bundle = TrustBundle::new(domain.clone(), roots, 0)?;
    signet_certs::verify::verify_authority(&authority, &bundle, now).map_err(PluggedInError::Unverified)?;
    Ok(PluggedIn { authority, bundle })
}

/// The files that make a CA, for following changes.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    [KUBERNETES, ISTIO]
        .iter()
        .flat_map(|l| [Some(l.certificate), Some(l.key), l.chain, Some(l.roots)])
        .flatten()
        .map(|name| directory.join(name))
        .collect()
}

fn choose(directory: &Path) -> Result<Layout, PluggedInError> {
    let there = |name: &&str| directory.join(name).exists();
    let needed = |layout: &Layout| [layout.certificate, layout.key, layout.roots];
    let kubernetes = needed(&KUBERNETES);
    let istio = needed(&ISTIO);
    if kubernetes.iter().all(there) {
        return Ok(KUBERNETES);
    }
    if istio.iter().all(there) {
        return Ok(ISTIO);
    }
    let some_kubernetes = kubernetes.iter().any(there);
    let names = if some_kubernetes { kubernetes } else { istio };
    let (found, missing): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|n| there(n));
    Err(PluggedInError::Partial {
        directory: directory.display().to_string(),
        found: if found.is_empty() {
            "none of the files".into()
        } else {
            found.join(", ")
        },
        missing: missing.join(", "),
    })
}

/// What issuing directly from this key costs, when it costs something worth a warning.
#[must_use]
pub fn direct_cost(kind: KeyKind) -> Option<&'static str> {
    match kind {
        KeyKind::P256 | KeyKind::Ed25519 => None,
        KeyKind::P384 => Some(
            "each signature costs about 19 times one of P-256, and each handshake one slow verification more",
        ),
        KeyKind::Rsa(bits) if bits <= 2048 => Some("each signature costs about 30 times one of P-256"),
        KeyKind::Rsa(_) => {
            Some("an RSA-4096 key signs about 145 times a second on one core, where P-256 reaches 9,000")
        }
    }
}
