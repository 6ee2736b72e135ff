//! Our own serving certificate: an SVID of the CA's account with the service's DNS names, from our own
//! issuing authority, renewed at half its life and whenever the authority changes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use signet_certs::lifetime::{Jitter, plus, renew_at, renewal_floor, until};
use signet_certs::tls::IdentitySource;
use signet_certs::{LeafProfile, SigningKey, UnixTime, X509Svid, issue};
use signet_runtime::Clock;
use signet_runtime::clock::sleep_until;

use crate::config::Config;
use crate::metrics::{Metrics, Role};
use crate::slots::{Slots, Snapshot};

/// How long to wait after a renewal that failed.
const RETRY: Duration = Duration::from_secs(5);

/// The serving certificate in use. Clones share it.
#[derive(Clone, Debug)]
pub struct Serving {
    current: Arc<ArcSwap<CertifiedKey>>,
    profile: LeafProfile,
    end: Arc<std::sync::atomic::AtomicU64>,
}

impl IdentitySource for Serving {
    fn identity(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Serving {
    /// Issues the first one.
    ///
    /// # Errors
    /// A sentence; there is no serving without it.
    pub fn start(config: &Config, snapshot: &Snapshot, now: UnixTime) -> Result<Self, String> {
        let profile = LeafProfile {
            id: config.account.spiffe_id(&config.trust_domain),
            ttl: config.lifetimes.svid.max,
            min_left: Duration::from_secs(1),
            dns: config.endpoints.names.clone(),
        };
        let svid = make(&profile, snapshot, now)?;
        let end = Arc::new(svid.chain().not_after().as_secs().into());
        Ok(Self {
            current: Arc::new(ArcSwap::from(svid.certified_key())),
            profile,
            end,
        })
    }

    /// Renews until dropped.
    pub async fn run(self, slots: Slots, clock: Arc<dyn Clock>, metrics: Metrics) {
        use std::sync::atomic::Ordering;
        let mut changes = slots.subscribe();
        let mut received = clock.now();
        loop {
            let end = UnixTime::since_unix_epoch(Duration::from_secs(self.end.load(Ordering::Relaxed)));
            metrics
                .not_after
                .get_or_create(&Role { role: "serving" })
                .set(i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
            let floor = renewal_floor(until(end, received));
            let due = renew_at(received, end, Jitter::NONE, floor);
            tokio::select! {
                () = sleep_until(clock.as_ref(), due) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
            loop {
                let now = clock.now();
                match make(&self.profile, &slots.current(), now) {
                    Ok(svid) => {
                        self.end
                            .store(svid.chain().not_after().as_secs(), Ordering::Relaxed);
                        self.current.store(svid.certified_key());
                        received = now;
                        break;
                    }
                    Err(error) => {
                        tracing::error!(%error, "serving certificate not renewed; the old one stays");
                        sleep_until(clock.as_ref(), plus(now, RETRY)).await;
                    }
                }
            }
        }
    }
}

fn make(profile: &LeafProfile, snapshot: &Snapshot, now: UnixTime) -> Result<X509Svid, String> {
    let key = Arc::new(SigningKey::generate().map_err(|e| e.to_string())?);
    let chain = issue(profile, key.public_key(), &snapshot.issuing, now)
        .map_err(|e| format!("serving certificate: {e}"))?;
    X509Svid::new(chain, key).map_err(|e| format!("serving certificate: {e}"))
}
