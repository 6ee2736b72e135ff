//! Following the CA's trust bundles: the newest sequence seen wins, and nothing takes it back (I5).

mod follow;

use std::sync::Arc;
use std::time::Duration;

use signet_certs::TrustDomain;
use signet_proto::authority::RefusedBundle;
use signet_proto::wire::signet::ca::v1::WatchBundleResponse;
use signet_runtime::backoff::{Backoff, random_share};
use signet_runtime::http::Readiness;
use tokio::sync::watch;

use crate::ca_client::{CaClient, StreamEnd};
use crate::metrics::{Metrics, gauge};
use crate::svids::Trust;
pub use follow::{Followed, Verdict, follow, judge};

/// Name of the readiness condition of an agent that serves workloads other than itself.
pub const READY: &str = "bundle";

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

/// Follows the CA.
pub struct BundleWatch {
    /// Where bundles come from.
    pub ca: CaClient,
    /// Our trust domain.
    pub domain: TrustDomain,
    /// Where the newest ones go.
    pub newest: watch::Sender<Option<Arc<Trust>>>,
    /// Where outcomes are counted.
    pub metrics: Metrics,
    /// Told whether there is a bundle, where that makes the agent ready.
    pub readiness: Option<Readiness>,
}

impl BundleWatch {
    /// Follows the stream and opens it again for ever; dropped at shutdown.
    pub async fn run(self) {
        let mut attempts = 0u32;
        let mut warned = None;
        loop {
            let failure = match self.follow(&mut attempts).await {
                StreamEnd::Failed(failure) => failure,
                // The next one is opened at once; that a connection is left was told there.
                StreamEnd::Left => continue,
                StreamEnd::Ended => {
                    tracing::info!("bundle watch ended by the CA; opening it again");
                    tokio::time::sleep(BACKOFF.delay(0, random_share())).await;
                    continue;
                }
            };
            Metrics::blame(&self.metrics.bundle_watch_failures, failure.kind.code());
            let none_yet = self.newest.borrow().is_none();
            if let (true, Some(readiness)) = (none_yet, &self.readiness) {
                readiness.lacks(READY, format!("no bundle yet: {failure}"));
            }
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
    async fn follow(&self, attempts: &mut u32) -> StreamEnd {
        let mut stream = match self.ca.watch_bundle().await {
            Ok(stream) => stream,
            Err(failure) => return StreamEnd::Failed(failure),
        };
        loop {
            match stream.next().await {
                Ok(message) => {
                    self.receive(&message);
                    *attempts = 0;
                }
                Err(end) => return end,
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
        for RefusedBundle { trust_domain, fault } in &offered.refused {
            let domain = trust_domain.as_ref().map(tracing::field::display);
            tracing::error!(domain, error = %fault, "foreign bundle refused; the last good one stays in force");
            if trust_domain.is_none() {
                Metrics::count(&self.metrics.foreign_bundles, Verdict::Malformed.code());
            }
        }
        let current = self.newest.borrow().clone();
        let (sequence, roots) = (offered.own.sequence(), offered.own.roots().len());
        let domain = offered.own.trust_domain().clone();
        let followed = follow(current.as_deref(), offered, &self.domain);
        Metrics::count(&self.metrics.bundles, followed.own.code());
        match followed.own {
            Verdict::Newer => {
                tracing::info!(sequence, roots, "bundle accepted");
                self.metrics.bundle_sequence.set(gauge(sequence));
            }
            Verdict::Same => tracing::debug!(sequence, "bundle unchanged"),
            verdict => {
                let own = current.as_deref().and_then(Trust::own);
                let in_force = own.map(|own| own.sequence());
                tracing::warn!(
                    reason = verdict.code(), sequence, in_force, %domain,
                    "bundle ignored; the one in force stays"
                );
            }
        }
        self.tell_foreign(&followed);
        if let Some(trust) = followed.trust {
            let domains = u64::try_from(trust.foreign().len()).unwrap_or(u64::MAX);
            self.metrics.federated_domains.set(gauge(domains));
            self.newest.send_replace(Some(Arc::new(trust)));
            if let Some(readiness) = &self.readiness {
                readiness.holds(READY);
            }
        }
    }

    fn tell_foreign(&self, followed: &Followed) {
        for (domain, verdict) in &followed.foreign {
            let reason = verdict.code();
            Metrics::count(&self.metrics.foreign_bundles, reason);
            match verdict {
                Verdict::Newer => tracing::info!(%domain, "foreign bundle accepted"),
                Verdict::Withdrawn => {
                    tracing::info!(%domain, "trust domain no longer federated with; its bundle is withdrawn");
                }
                Verdict::Same | Verdict::Malformed => {}
                _ => tracing::warn!(reason, %domain, "foreign bundle ignored; the one in force stays"),
            }
        }
    }
}
