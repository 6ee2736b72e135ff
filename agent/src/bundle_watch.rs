//! Following the CA's trust bundle: the newest sequence seen wins, and nothing takes it back (I5).

use std::sync::Arc;
use std::time::Duration;

use signet_certs::{TrustBundle, TrustDomain};
use signet_proto::wire::signet::ca::v1::WatchBundleResponse;
use signet_runtime::backoff::{Backoff, random_share};
use tokio::sync::watch;

use crate::ca_client::{CaClient, Failure, FailureKind};
use crate::metrics::{Metrics, gauge};

/// Waits between attempts to open the stream. The cap bounds how late a root change is learnt after
/// the CA is back.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(15),
};
/// The same while there is no bundle at all: nothing can be served without one, and an attempt costs the
/// CA a connection it needs anyway.
const FIRST_BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(2),
};

/// What a received bundle is, next to the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first, or of a higher sequence.
    Newer,
    /// The same sequence and roots.
    Same,
    /// Of a lower sequence.
    Older,
    /// The same sequence with other roots: two CAs do not agree.
    Conflicting,
    /// Of a trust domain that is not ours.
    Foreign,
    /// Without a root: it would trust nobody.
    Empty,
}

impl Verdict {
    fn code(self) -> &'static str {
        match self {
            Self::Newer => "accepted",
            Self::Same => "unchanged",
            Self::Older => "older",
            Self::Conflicting => "conflicting",
            Self::Foreign => "foreign",
            Self::Empty => "empty",
        }
    }
}

/// Judges `offered` next to `current`, for the trust domain `own`.
#[must_use]
pub fn judge(current: Option<&TrustBundle>, offered: &TrustBundle, own: &TrustDomain) -> Verdict {
    if offered.trust_domain() != own {
        return Verdict::Foreign;
    }
    if offered.roots().is_empty() {
        return Verdict::Empty;
    }
    let Some(current) = current else {
        return Verdict::Newer;
    };
    match offered.sequence().cmp(&current.sequence()) {
        std::cmp::Ordering::Greater => Verdict::Newer,
        std::cmp::Ordering::Less => Verdict::Older,
        std::cmp::Ordering::Equal if offered.same_roots(current) => Verdict::Same,
        std::cmp::Ordering::Equal => Verdict::Conflicting,
    }
}

/// Follows the CA.
pub struct BundleWatch {
    /// Where bundles come from.
    pub ca: CaClient,
    /// Our trust domain.
    pub domain: TrustDomain,
    /// Where the newest one goes.
    pub newest: watch::Sender<Option<Arc<TrustBundle>>>,
    /// Where outcomes are counted.
    pub metrics: Metrics,
}

impl BundleWatch {
    /// Follows the stream and opens it again for ever; dropped at shutdown.
    pub async fn run(self) {
        let mut attempts = 0u32;
        let mut warned = None;
        loop {
            let failure = self.follow(&mut attempts).await;
            Metrics::blame(&self.metrics.bundle_watch_failures, failure.kind.code());
            let none_yet = self.newest.borrow().is_none();
            let wait = if none_yet { FIRST_BACKOFF } else { BACKOFF }
                .delay(attempts, random_share())
                .max(failure.retry_after.unwrap_or_default());
            // A restart of the CA ends every stream; that is worth a warning only when it lasts.
            let reason = failure.kind.code();
            if attempts == 0 {
                warned = None;
                tracing::info!(reason, error = %failure, "bundle watch interrupted");
            } else if warned.replace(reason) == Some(reason) {
                tracing::debug!(reason, error = %failure, "bundle watch fails");
            } else {
                tracing::warn!(reason, error = %failure, "bundle watch fails");
            }
            attempts = attempts.saturating_add(1);
            tokio::time::sleep(wait).await;
        }
    }

    /// One stream, from opening to its end.
    async fn follow(&self, attempts: &mut u32) -> Failure {
        let mut stream = match self.ca.watch_bundle().await {
            Ok(stream) => stream,
            Err(failure) => return failure,
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    self.receive(&message);
                    *attempts = 0;
                }
                Ok(None) => return Failure::new(FailureKind::Unavailable, "the CA ended the stream"),
                Err(status) => return self.ca.meaning(&status),
            }
        }
    }

    fn receive(&self, message: &WatchBundleResponse) {
        let offered = match signet_proto::authority::from_wire(message) {
            Ok(offered) => offered,
            Err(error) => {
                Metrics::count(&self.metrics.bundles, "malformed");
                tracing::error!(%error, "bundle refused as a whole; the last good one stays in force");
                return;
            }
        };
        let current = self.newest.borrow().clone();
        let verdict = judge(current.as_deref(), &offered, &self.domain);
        Metrics::count(&self.metrics.bundles, verdict.code());
        let (sequence, roots) = (offered.sequence(), offered.roots().len());
        match verdict {
            Verdict::Newer => {
                tracing::info!(sequence, roots, "bundle accepted");
                self.metrics.bundle_sequence.set(gauge(sequence));
                self.newest.send_replace(Some(Arc::new(offered)));
            }
            Verdict::Same => tracing::debug!(sequence, "bundle unchanged"),
            Verdict::Older | Verdict::Conflicting | Verdict::Foreign | Verdict::Empty => {
                let in_force = current.map(|c| c.sequence());
                let domain = offered.trust_domain();
                tracing::warn!(
                    reason = verdict.code(), sequence, in_force, %domain,
                    "bundle ignored; the one in force stays"
                );
            }
        }
    }
}
