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
    /// Since a pair was made of them.
    changed: bool,
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
            changed: false,
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
        let (certificate, key) = (self.certificate.poll(), self.key.poll());
        let (mut last_certificate, mut last_key) = self.last.take().unwrap_or_default();
        // A file tells of a change once: what one says is kept although the other cannot be read now.
        if let Ok(Some(new)) = &certificate {
            last_certificate = new.to_vec();
            self.changed = true;
        }
        let key = key.map(|new| {
            if let Some(new) = new {
                last_key = new;
                self.changed = true;
            }
        });
        let (last_certificate, last_key) = self.last.insert((last_certificate, last_key));
        certificate?;
        key?;
        if !std::mem::take(&mut self.changed) {
            return Ok(None);
        }
        let made = web_identity(last_certificate, last_key);
        made.map(Some).map_err(|fault| WebIdentityError::Certificate {
            path: self.certificate.path().to_owned(),
            fault,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_came_while_the_key_could_not_be_read_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let write = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            (made.cert.der().clone(), made.signing_key.serialize_pem())
        };
        let (_, first_key) = write("first.test");
        std::fs::write(&key, first_key).unwrap();
        let (_, mut files) = WebIdentity::open(certificate.clone(), key.clone()).unwrap();
        assert!(files.poll().unwrap().is_none());

        std::fs::remove_file(&key).unwrap();
        let (second, second_key) = write("second.test");
        assert!(files.poll().is_err());
        std::fs::write(&key, second_key).unwrap();
        let served = files.poll().unwrap().unwrap();
        assert_eq!(served.cert.first(), Some(&second));
        assert!(files.poll().unwrap().is_none());
    }
}
