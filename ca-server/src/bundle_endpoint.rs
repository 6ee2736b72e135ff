//! The SPIFFE bundle endpoint (SPIFFE Federation §5): our newest bundle for whoever asks, over TLS that
//! asks nothing back. `https_web` proves itself by the operator's certificate, `https_spiffe` by the
//! CA's own SVID.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use rustls::sign::CertifiedKey;
use signet_certs::tls::{IdentitySource, WebCertificateError, web_identity};
use signet_runtime::files::FollowedFile;

use crate::metrics::Metrics;
use crate::slots::Slots;

/// How often the operator's files are looked at.
const FILES_POLL: Duration = Duration::from_secs(2);
/// Largest file of them, in bytes.
const MAX_FILE_BYTES: usize = 256 * 1024;

#[derive(Clone)]
struct Pages {
    slots: Slots,
    metrics: Metrics,
}

/// The one page, at `/`.
pub fn router(slots: Slots, metrics: Metrics) -> Router {
    Router::new()
        .route("/", get(bundle))
        .fallback(nothing)
        .method_not_allowed_fallback(not_that)
        .with_state(Pages { slots, metrics })
}

async fn bundle(State(pages): State<Pages>) -> Response {
    Metrics::count(&pages.metrics.trust.bundle_requests, "ok");
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        // The newest bundle at every GET; nobody in between may keep it.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, pages.slots.current().bundle.to_jwks()).into_response()
}

async fn nothing(State(pages): State<Pages>) -> Response {
    Metrics::count(&pages.metrics.trust.bundle_requests, "not_found");
    (StatusCode::NOT_FOUND, "the bundle is at /\n").into_response()
}

async fn not_that(State(pages): State<Pages>) -> Response {
    Metrics::count(&pages.metrics.trust.bundle_requests, "method");
    (StatusCode::METHOD_NOT_ALLOWED, "GET the bundle\n").into_response()
}

/// Why the operator's certificate is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebIdentityError {
    /// A file cannot be read.
    #[error("bundle_endpoint: {0}")]
    Io(#[from] std::io::Error),
    /// They make no identity.
    #[error("bundle_endpoint: certificate_file {path} {fault}")]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        fault: WebCertificateError,
    },
}

/// The operator's certificate, followed by the contents of its files.
#[derive(Clone)]
pub struct WebIdentity(Arc<ArcSwap<CertifiedKey>>);

/// The two files.
pub struct WebFiles {
    certificate: FollowedFile,
    key: FollowedFile,
    last: Option<(Vec<u8>, zeroize::Zeroizing<Vec<u8>>)>,
}

impl IdentitySource for WebIdentity {
    fn identity(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl WebIdentity {
    /// Reads both files for the first time.
    ///
    /// # Errors
    /// A [`WebIdentityError`].
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<(Self, WebFiles), WebIdentityError> {
        let mut files = WebFiles {
            certificate: FollowedFile::new(certificate, MAX_FILE_BYTES),
            key: FollowedFile::new(key, MAX_FILE_BYTES),
            last: None,
        };
        let first = files.poll()?;
        let path = files.certificate.path().to_owned();
        let first = first.ok_or(WebIdentityError::Certificate {
            path,
            fault: WebCertificateError::Pem,
        })?;
        Ok((Self(Arc::new(ArcSwap::from_pointee(first))), files))
    }

    /// Follows the files until dropped; what cannot be used leaves the last good pair in force.
    pub async fn follow(self, mut files: WebFiles, metrics: Metrics) {
        let mut told = None;
        loop {
            tokio::time::sleep(FILES_POLL).await;
            match files.poll() {
                Ok(None) => {}
                Ok(Some(next)) => {
                    told = None;
                    self.0.store(Arc::new(next));
                    Metrics::count(&metrics.trust.endpoint_certificates, "read");
                    tracing::info!("certificate of the bundle endpoint in use");
                }
                Err(error) => {
                    Metrics::count(&metrics.trust.endpoint_certificates, "unreadable");
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        tracing::error!(
                            error,
                            "certificate of the bundle endpoint cannot be used; the last good one stays"
                        );
                        told = Some(error);
                    }
                }
            }
        }
    }
}

impl WebFiles {
    /// A new pair, when either file changed. The two are not replaced in one instant: a pair that does not
    /// fit is looked at again with the next change.
    fn poll(&mut self) -> Result<Option<CertifiedKey>, WebIdentityError> {
        let (certificate, key) = (self.certificate.poll()?, self.key.poll()?);
        if certificate.is_none() && key.is_none() {
            return Ok(None);
        }
        let (old_certificate, old_key) = self.last.take().unwrap_or_default();
        let certificate = certificate.map_or(old_certificate, |new| new.to_vec());
        let key = key.unwrap_or(old_key);
        let made = web_identity(&certificate, &key);
        self.last = Some((certificate, key));
        made.map(Some).map_err(|fault| WebIdentityError::Certificate {
            path: self.certificate.path().to_owned(),
            fault,
        })
    }
}
