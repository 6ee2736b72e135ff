//! Where one foreign bundle comes from, ready to be asked: a file, or an endpoint with the TLS its
//! profile asks for. No profile falls back to another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use signet_certs::bundle::{BundleError, MAX_BUNDLE_BYTES};
use signet_certs::tls::{WebCertificateError, spiffe_client_config, web_client_config, web_roots};
use signet_certs::verify::Expected;
use signet_certs::{TrustBundle, TrustDomain};
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use signet_runtime::files::read_bounded;

use super::Foreign;
use super::fetch::{EndpointError, fetch};
use super::proof::Proof;
use super::url::EndpointUrl;
use crate::config::ForeignSource;
use crate::slots::Slots;

/// How often a bundle file is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(10);
/// Largest file of CAs; a distribution's has about 250 KiB.
const MAX_CA_FILE_BYTES: usize = 2 * 1024 * 1024;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file cannot be read.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The CAs for `https_web` cannot be used.
    #[error("ca_file {path}: {fault}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: WebCertificateError,
    },
    /// This machine has none of its own.
    #[error("this machine has no CA certificates of its own; name a ca_file")]
    NoRoots,
    /// There is no bundle by which the endpoint could prove itself.
    #[error("no bundle of {0} is in force, so its endpoint cannot prove itself")]
    Unprovable(TrustDomain),
    /// rustls refuses the settings.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// The endpoint gave nothing.
    #[error(transparent)]
    Fetch(#[from] EndpointError),
    /// What it gave is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// One source.
pub struct Source {
    domain: TrustDomain,
    configured: ForeignSource,
    clock: Arc<dyn Clock>,
    slots: Slots,
    foreign: Foreign,
}

impl Source {
    /// The source of the bundle of `domain`.
    #[must_use]
    pub fn new(
        domain: TrustDomain,
        configured: ForeignSource,
        clock: Arc<dyn Clock>,
        slots: Slots,
        foreign: Foreign,
    ) -> Self {
        Self {
            domain,
            configured,
            clock,
            slots,
            foreign,
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// A [`SourceError`].
    pub async fn bundle(&self) -> Result<TrustBundle, SourceError> {
        let (url, tls) = match &self.configured {
            ForeignSource::File(path) => return self.file(path),
            ForeignSource::Web { url, ca_file, .. } => (url, self.web(ca_file.as_deref())?),
            ForeignSource::Spiffe { url, id, .. } => {
                let domain = id.trust_domain();
                let proof = Proof::of(domain.clone(), self.slots.clone(), self.foreign.clone());
                if !proof.is_there() {
                    return Err(SourceError::Unprovable(domain));
                }
                let (expected, time) = (Expected::Id(id.clone()), Arc::new(self.time()));
                let tls = spiffe_client_config(None, Arc::new(proof), expected, &[b"http/1.1"], time)?;
                (url, tls)
            }
        };
        let body = fetch(url, Arc::new(tls)).await?;
        Ok(TrustBundle::from_jwks(self.domain.clone(), &body)?)
    }

    /// The bundle that the operator gave to begin with, if any: SPIFFE JWKS or PEM.
    ///
    /// # Errors
    /// A [`SourceError`].
    pub fn first(&self) -> Result<Option<TrustBundle>, SourceError> {
        let (ForeignSource::Web { bundle_file, .. } | ForeignSource::Spiffe { bundle_file, .. }) =
            &self.configured
        else {
            return Ok(None);
        };
        bundle_file.as_deref().map(|path| self.file(path)).transpose()
    }

    /// The interval of a source that gives no hints.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        matches!(self.configured, ForeignSource::File(_)).then_some(FILE_INTERVAL)
    }

    /// Whether what it gives is to be stored: a file lies with the operator already.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.url().is_some()
    }

    /// Its URL, for the log.
    #[must_use]
    pub fn url(&self) -> Option<&EndpointUrl> {
        match &self.configured {
            ForeignSource::File(_) => None,
            ForeignSource::Web { url, .. } | ForeignSource::Spiffe { url, .. } => Some(url),
        }
    }

    fn file(&self, path: &Path) -> Result<TrustBundle, SourceError> {
        let contents = read_bounded(path, MAX_BUNDLE_BYTES)?;
        let is_pem = contents.windows(11).any(|window| window == b"-----BEGIN ");
        Ok(if is_pem {
            TrustBundle::from_pem(self.domain.clone(), &contents, 0)?
        } else {
            TrustBundle::from_jwks(self.domain.clone(), &contents)?
        })
    }

    fn web(&self, ca_file: Option<&Path>) -> Result<ClientConfig, SourceError> {
        let roots = match ca_file {
            Some(path) => {
                let pem = read_bounded(path, MAX_CA_FILE_BYTES)?;
                web_roots(&pem).map_err(|fault| SourceError::CaFile {
                    path: path.to_owned(),
                    fault,
                })?
            }
            None => machine_roots()?,
        };
        Ok(web_client_config(roots, &[b"http/1.1"], Arc::new(self.time()))?)
    }

    fn time(&self) -> TlsTime {
        TlsTime(Arc::clone(&self.clock))
    }
}

/// The machine's own CAs; those that rustls cannot read are left out, as every client does.
fn machine_roots() -> Result<RootCertStore, SourceError> {
    let roots = signet_runtime::fetch::machine_roots();
    if roots.is_empty() {
        return Err(SourceError::NoRoots);
    }
    Ok(roots)
}
