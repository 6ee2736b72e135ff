//! Dialling the CA: TCP, then TLS 1.3 by DNS name, under the newest roots there are.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use signet_certs::{TrustBundle, TrustDomain};
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use signet_runtime::files::FollowedFile;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::FailureKind;
use crate::config::Ca;
use crate::metrics::Metrics;
use crate::svids::Trust;

/// Bound of TCP connect and TLS handshake together. A CA on the same network answers in milliseconds.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// How often the root file is looked at. Kubelet itself needs about a minute to swap it.
const FOLLOW_EVERY: Duration = Duration::from_secs(10);
/// gRPC is HTTP/2 (RFC 9113 §3.2).
const H2: &[u8] = b"h2";

/// Why the CA could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No roots to accept it by.
    #[error("{0}")]
    Roots(String),
    /// No connection.
    #[error("{0}")]
    Connect(std::io::Error),
    /// Not in time.
    #[error("no connection within {} s", DIAL_DEADLINE.as_secs())]
    Late,
    /// Its certificate is not accepted.
    #[error("its certificate is not accepted as {name} under {roots}: {fault}")]
    Untrusted {
        /// The name it had to carry.
        name: String,
        /// Which roots judged.
        roots: String,
        /// What was wrong.
        fault: rustls::Error,
    },
    /// The handshake failed otherwise.
    #[error("TLS handshake: {0}")]
    Handshake(std::io::Error),
    /// It does not speak HTTP/2.
    #[error("it did not agree on HTTP/2; is this the port of the CA?")]
    NotH2,
}

impl DialError {
    /// What it means.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Roots(_) => FailureKind::RootsUnreadable,
            Self::Untrusted { .. } => FailureKind::TlsUntrusted,
            Self::Connect(_) | Self::Late | Self::Handshake(_) | Self::NotH2 => FailureKind::Unavailable,
        }
    }
}

/// Opens connections to the CA; tonic asks it whenever there is none.
#[derive(Clone)]
pub struct Dialer {
    ca: Arc<Ca>,
    roots: Arc<Mutex<DialRoots>>,
    clock: Arc<dyn Clock>,
}

impl Dialer {
    /// Dials `ca`, following its root file and the bundles.
    #[must_use]
    pub fn new(
        ca: Arc<Ca>,
        domain: TrustDomain,
        trust: watch::Receiver<Option<Arc<Trust>>>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let roots = Arc::new(Mutex::new(DialRoots::new(&ca, domain, trust, metrics)));
        Self { ca, roots, clock }
    }

    /// Follows the root file for ever, so that it is known which of file and bundle came last.
    pub async fn follow_root_file(self) {
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            self.roots().follow();
        }
    }

    fn roots(&self) -> MutexGuard<'_, DialRoots> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(self) -> Result<TokioIo<TlsStream<TcpStream>>, DialError> {
        tokio::time::timeout(DIAL_DEADLINE, self.dial_unbounded())
            .await
            .map_err(|_| DialError::Late)?
    }

    async fn dial_unbounded(self) -> Result<TokioIo<TlsStream<TcpStream>>, DialError> {
        let (bundle, told) = self.roots().current().map_err(DialError::Roots)?;
        let time = Arc::new(TlsTime(Arc::clone(&self.clock)));
        let config = signet_certs::tls::dns_client_config(&bundle, &[H2], time)
            .map_err(|e| DialError::Roots(format!("TLS configuration: {e}")))?;
        let tcp = TcpStream::connect((self.ca.host.as_str(), self.ca.port))
            .await
            .map_err(DialError::Connect)?;
        tcp.set_nodelay(true).map_err(DialError::Connect)?;
        let name = self.ca.server_name.clone();
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .map_err(|e| {
                match e
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                {
                    Some(fault @ rustls::Error::InvalidCertificate(_)) => {
                        self.roots().bundle_was_refused = true;
                        let name = self.ca.server_name.to_str().into_owned();
                        DialError::Untrusted {
                            name,
                            roots: told,
                            fault: fault.clone(),
                        }
                    }
                    _ => DialError::Handshake(e),
                }
            })?;
        if tls.get_ref().1.alpn_protocol() != Some(H2) {
            return Err(DialError::NotH2);
        }
        Ok(TokioIo::new(tls))
    }
}

impl tower::Service<http::Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _address: http::Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

/// The roots to accept the CA by. The newest bundle wins over the file, which only bootstraps the
/// first dial. There is one more use of the file: an agent that was cut off while the root was rotated
/// holds a bundle that no longer knows its CA; then a file that changed after that bundle came is
/// believed beside it.
struct DialRoots {
    domain: TrustDomain,
    file: FollowedFile,
    from_file: Option<TrustBundle>,
    file_is_newer: bool,
    bundle_was_refused: bool,
    bundle: Option<Arc<TrustBundle>>,
    trust: watch::Receiver<Option<Arc<Trust>>>,
    metrics: Metrics,
    last_fault: Option<String>,
}

impl DialRoots {
    fn new(
        ca: &Ca,
        domain: TrustDomain,
        trust: watch::Receiver<Option<Arc<Trust>>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            domain,
            file: FollowedFile::new(ca.root_file.clone(), signet_certs::bundle::MAX_BUNDLE_BYTES),
            from_file: None,
            file_is_newer: false,
            bundle_was_refused: false,
            bundle: None,
            trust,
            metrics,
            last_fault: None,
        }
    }

    /// The roots, and how to call them in an error.
    fn current(&mut self) -> Result<(TrustBundle, String), String> {
        self.follow();
        let newest = self.bundle.clone();
        let path = self.file.path().display();
        match (newest, &self.from_file) {
            (Some(bundle), Some(file)) if self.file_is_newer && self.bundle_was_refused => {
                let all = bundle
                    .roots()
                    .iter()
                    .chain(file.roots())
                    .map(|r| r.certificate().clone())
                    .collect();
                let both = TrustBundle::new(self.domain.clone(), all, bundle.sequence());
                let told = format!("the bundle (sequence {}) and {path}", bundle.sequence());
                both.map(|both| (both, told)).map_err(|e| e.to_string())
            }
            (Some(bundle), _) => Ok((
                (*bundle).clone(),
                format!("the bundle (sequence {})", bundle.sequence()),
            )),
            (None, Some(file)) => Ok((file.clone(), format!("the roots in {path}"))),
            (None, None) => Err(self
                .last_fault
                .clone()
                .unwrap_or_else(|| format!("{path} holds no root certificate"))),
        }
    }

    /// Looks for a newer bundle and for new contents of the file, and notes which came last. Contents
    /// that cannot be read leave the last good ones in force.
    fn follow(&mut self) {
        let newest = self
            .trust
            .borrow()
            .as_ref()
            .and_then(|trust| trust.own())
            .cloned();
        let same = match (&newest, &self.bundle) {
            (Some(newest), Some(known)) => Arc::ptr_eq(newest, known),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.bundle = newest;
            self.file_is_newer = false;
            self.bundle_was_refused = false;
        }
        match self.read_file() {
            Ok(None) => {}
            Ok(Some(bundle)) => {
                Metrics::count(&self.metrics.root_file, "read");
                self.file_is_newer = self.from_file.is_some();
                self.from_file = Some(bundle);
                self.last_fault = None;
            }
            Err(fault) => {
                Metrics::count(&self.metrics.root_file, "unreadable");
                if self.last_fault.as_ref() != Some(&fault) {
                    tracing::warn!(error = %fault, "root file not usable");
                }
                self.last_fault = Some(fault);
            }
        }
    }

    fn read_file(&mut self) -> Result<Option<TrustBundle>, String> {
        let contents = self
            .file
            .poll()
            .map_err(|e| format!("{e}; mount the CA's roots there, or set ca_root_file"))?;
        let Some(contents) = contents else { return Ok(None) };
        let path = self.file.path().display();
        if contents.trim_ascii().is_empty() {
            return Err(format!(
                "{path} is empty; it should hold the CA's root certificates as PEM"
            ));
        }
        match TrustBundle::from_pem(self.domain.clone(), &contents, 0) {
            Ok(bundle) if bundle.roots().is_empty() => Err(format!("{path} holds no root certificate")),
            Ok(bundle) => Ok(Some(bundle)),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_certs::{Authority, SigningKey};
    use std::path::Path;

    fn root() -> signet_certs::certificate::Certificate {
        let key = Arc::new(SigningKey::generate().unwrap());
        let now = signet_runtime::SystemClock.now();
        let day = Duration::from_secs(86_400);
        let domain = "cluster.local".parse().unwrap();
        Authority::self_signed_root(&domain, key, day, now)
            .unwrap()
            .certificate()
            .clone()
    }

    fn roots(file: &Path) -> (DialRoots, watch::Sender<Option<Arc<Trust>>>) {
        let (newest, bundles) = watch::channel(None);
        let ca = Ca {
            host: "ca".into(),
            port: 1,
            server_name: "ca".try_into().unwrap(),
            root_file: file.to_owned(),
            token_file: file.to_owned(),
            deadline: DIAL_DEADLINE,
        };
        (
            DialRoots::new(&ca, "cluster.local".parse().unwrap(), bundles, Metrics::default()),
            newest,
        )
    }

    #[test]
    fn the_newest_bundle_wins_and_a_newer_file_helps_only_when_the_bundle_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("root.pem");
        let (old, new) = (root(), root());
        std::fs::write(&file, old.to_pem()).unwrap();
        let (mut roots, newest) = roots(&file);
        assert!(roots.current().unwrap().1.starts_with("the roots in "));
        let bundle = TrustBundle::new("cluster.local".parse().unwrap(), vec![old.clone()], 4).unwrap();
        newest.send_replace(Some(Arc::new(Trust::new(Arc::new(bundle), Vec::new()))));
        assert_eq!(roots.current().unwrap().1, "the bundle (sequence 4)");
        roots.bundle_was_refused = true;
        assert_eq!(
            roots.current().unwrap().1,
            "the bundle (sequence 4)",
            "the file is as old as the bundle"
        );
        std::fs::write(&file, new.to_pem()).unwrap();
        roots.bundle_was_refused = false;
        assert_eq!(
            roots.current().unwrap().1,
            "the bundle (sequence 4)",
            "nobody refused the bundle"
        );
        roots.bundle_was_refused = true;
        let (both, told) = roots.current().unwrap();
        assert!(told.starts_with("the bundle (sequence 4) and "), "{told}");
        assert_eq!(both.roots().len(), 2);
        let newer = TrustBundle::new("cluster.local".parse().unwrap(), vec![new], 5).unwrap();
        newest.send_replace(Some(Arc::new(Trust::new(Arc::new(newer), Vec::new()))));
        assert_eq!(roots.current().unwrap().1, "the bundle (sequence 5)");
    }

    #[test]
    fn a_file_that_goes_bad_leaves_the_last_good_roots_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("root.pem");
        let (mut roots, _newest) = roots(&file);
        assert!(
            roots
                .current()
                .unwrap_err()
                .ends_with("mount the CA's roots there, or set ca_root_file")
        );
        std::fs::write(&file, "").unwrap();
        assert!(
            roots
                .current()
                .unwrap_err()
                .ends_with("it should hold the CA's root certificates as PEM")
        );
        let good = root();
        std::fs::write(&file, good.to_pem()).unwrap();
        roots.current().unwrap();
        std::fs::write(
            &file,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        assert_eq!(
            roots.current().unwrap().0.roots()[0].certificate().der(),
            good.der()
        );
    }
}
