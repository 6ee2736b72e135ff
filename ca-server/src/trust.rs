//! Starts what JWT-SVIDs and other trust domains need beside the gRPC service: federation, the bundle
//! endpoint, the OIDC pages.

use std::net::SocketAddr;
use std::sync::Arc;

use signet_certs::tls::{IdentitySource, public_server_config};
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use signet_runtime::shutdown::Tasks;

use crate::bundle_endpoint::{self, WebIdentity};
use crate::config::{Config, EndpointProfile};
use crate::federation::Foreign;
use crate::federation::follow::Follow;
use crate::federation::source::Source;
use crate::metrics::Metrics;
use crate::serving::Serving;
use crate::slots::Slots;
use crate::store::Store;
use crate::{endpoint, oidc};

/// The name every cluster has until it is given one.
const EVERYONES_DOMAIN: &str = "cluster.local";

/// What all of them work with.
pub struct Surroundings<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Authorities in use.
    pub slots: &'a Slots,
    /// The time.
    pub clock: &'a Arc<dyn Clock>,
    /// Counters.
    pub metrics: &'a Metrics,
    /// Owner of what runs.
    pub tasks: &'a Tasks,
}

/// Addresses bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bound {
    /// Of the OIDC pages.
    pub oidc: Option<SocketAddr>,
    /// Of the bundle endpoint.
    pub bundle: Option<SocketAddr>,
}

impl Surroundings<'_> {
    /// Puts in force what is known of the federated trust domains, and follows each from now on.
    pub async fn federate(&self, store: &Store) -> Foreign {
        let foreign = Foreign::default();
        let federation = &self.config.trust.federation;
        let domains: Vec<_> = federation.iter().map(|entry| entry.domain.clone()).collect();
        if let Err(error) = store.keep_foreign(&domains).await {
            tracing::warn!(%error, "foreign bundles that are not configured any more are not forgotten");
        }
        if self.config.trust_domain.as_str() == EVERYONES_DOMAIN && !domains.is_empty() {
            tracing::warn!(
                trust_domain = EVERYONES_DOMAIN,
                "federating under a name that every default cluster has: two of them can never federate with each other"
            );
        }
        for entry in federation {
            let follow = Follow {
                domain: entry.domain.clone(),
                source: Source::new(
                    entry.domain.clone(),
                    entry.source.clone(),
                    Arc::clone(self.clock),
                    self.slots.clone(),
                    foreign.clone(),
                ),
                store: store.clone(),
                foreign: foreign.clone(),
                clock: Arc::clone(self.clock),
                metrics: self.metrics.clone(),
            };
            let poll = follow.recall().await;
            self.tasks
                .spawn_essential("federation", async move { follow.run(poll).await });
        }
        foreign
    }

    /// Serves the bundle endpoint and the OIDC pages, where configured.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn serve(&self, serving: &Serving) -> Result<Bound, String> {
        let mut bound = Bound::default();
        let trust = &self.config.trust;
        if let Some(configured) = &trust.endpoint {
            let identity: Arc<dyn IdentitySource> = match &configured.profile {
                EndpointProfile::Spiffe => Arc::new(serving.clone()),
                EndpointProfile::Web { certificate, key } => {
                    let (identity, files) =
                        WebIdentity::open(certificate.clone(), key.clone()).map_err(|e| e.to_string())?;
                    let following = identity.clone().follow(files, self.metrics.clone());
                    self.tasks
                        .spawn_essential("certificate of the bundle endpoint", following);
                    Arc::new(identity)
                }
            };
            let time = Arc::new(TlsTime(Arc::clone(self.clock)));
            let tls =
                public_server_config(identity, &[b"http/1.1"], time).map_err(|e| format!("tls: {e}"))?;
            let router = bundle_endpoint::router(self.slots.clone(), self.metrics.clone());
            let owners = (self.tasks, self.metrics);
            let served = endpoint::serve(
                "bundle_endpoint",
                configured.listen,
                Some(Arc::new(tls)),
                router,
                owners,
            );
            bound.bundle = Some(served.await.map_err(|e| e.to_string())?);
        }
        if let (Some(address), Some(issuer)) = (trust.oidc, &trust.jwt.issuer) {
            let router = oidc::router(issuer, self.slots.clone(), self.metrics.clone());
            let owners = (self.tasks, self.metrics);
            let served = endpoint::serve("oidc_listen", address, None, router, owners);
            bound.oidc = Some(served.await.map_err(|e| e.to_string())?);
        }
        Ok(bound)
    }
}
