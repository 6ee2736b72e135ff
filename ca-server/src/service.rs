//! `CreateCertificate` in five steps, each handing one typed value to the next: receive, authenticate,
//! authorize, issue, respond.

mod refusal;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use prometheus_client::metrics::gauge::Gauge;
use signet_certs::lifetime::TtlBounds;
use signet_certs::{Authority, Csr, LeafProfile, SpiffeId, SvidChain, issue};
use signet_policy::issuance::Asked;
use signet_policy::{Caller, IssuancePermit};
use signet_proto::issue::{IssueRequest, read, respond_in_frame};
use signet_runtime::Clock;
use tokio::time::Instant;
use tonic::Status;

use crate::audit::{Audit, Record};
use crate::authn::Presented;
use crate::authorizer::Gate;
use crate::config::Config;
use crate::gather::Records;
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::serve::MessageError;
use crate::slots::Slots;
use refusal::Refusal;
pub(crate) use refusal::{pushback, unauthenticated, unauthorized};

/// The service.
pub struct Issuing {
    gate: Gate,
    slots: Slots,
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    audit: Arc<Audit>,
    metrics: Metrics,
    under_way: Arc<AtomicUsize>,
}

impl Issuing {
    /// Puts it together.
    #[must_use]
    pub fn new(
        gate: Gate,
        slots: Slots,
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let audit = Arc::new(Audit::new(config.logs.0, metrics.clone()));
        Self {
            gate,
            slots,
            config,
            clock,
            audit,
            metrics,
            under_way: Arc::default(),
        }
    }

    /// One call of `CreateCertificate`: the message that answers, which may leave once
    /// [`Issuing::records`] are written.
    ///
    /// # Errors
    /// What the caller is told; it is counted and recorded.
    pub async fn create(&self, headers: &HeaderMap, message: Bytes, peer: &Peer) -> Result<Bytes, Status> {
        let started = Instant::now();
        let answer = self.answer(headers, message, peer, started).await;
        self.metrics.csr_seconds.observe(started.elapsed().as_secs_f64());
        match answer {
            Ok(message) => {
                self.metrics.usual.issued.inc();
                Ok(message)
            }
            Err(refusal) => Err(self.refuse(&refusal, peer)),
        }
    }

    async fn answer(
        &self,
        headers: &HeaderMap,
        message: Bytes,
        peer: &Peer,
        started: Instant,
    ) -> Result<Bytes, Refusal> {
        let _place = self.place()?;
        let token = Presented::from_headers(headers);
        let asked = read(message)?;
        let authenticator = &self.gate.authenticator;
        let caller = authenticator
            .authenticate(token.as_ref(), peer.ip(), &peer.recent)
            .await?;
        let permit = self.authorize(&caller, &asked, peer.certificate.as_ref()).await;
        // The roots answered are those that this issuing authority was verified against (I6).
        let snapshot = self.slots.current();
        let issued = permit.and_then(|permit| self.issue(&permit, &asked, &snapshot.issuing));
        match issued {
            Ok((csr, chain)) => {
                let answer = respond_in_frame(&chain, &snapshot.bundle);
                self.audit.issued(&Record {
                    caller,
                    chain,
                    csr_hash: csr.into_hash(),
                    peer: peer.address,
                    elapsed: started.elapsed(),
                });
                Ok(answer)
            }
            Err(refusal) => {
                self.audit
                    .refused(&caller, refusal.as_str(), &refusal, peer.address);
                Err(refusal)
            }
        }
    }

    /// The records of what was issued, to be written before any answer leaves.
    #[must_use]
    pub fn records(&self) -> Arc<dyn Records> {
        Arc::clone(&self.audit) as Arc<dyn Records>
    }

    /// A request whose message could not be read.
    pub fn unreadable(&self, error: MessageError, peer: &Peer) -> Status {
        self.refuse(&Refusal::Unreadable(error), peer)
    }

    /// A call that was not answered in time.
    pub fn late(&self, peer: &Peer) -> Status {
        self.refuse(&Refusal::Late, peer)
    }

    /// Counts a refusal, and records it unless that is done: refusals of authenticated callers are
    /// recorded where the caller is known.
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Status {
        Metrics::count(&self.metrics.csrs, refusal.as_str());
        if refusal.is_of_a_stranger() {
            self.audit
                .stranger(refusal.as_str(), refusal, peer.address, self.clock.now());
        }
        refusal.status()
    }

    /// Step 3. Only impersonation may have to wait, for a lookup.
    async fn authorize(
        &self,
        caller: &Caller,
        asked: &IssueRequest,
        certificate: Option<&SpiffeId>,
    ) -> Result<IssuancePermit, Refusal> {
        let asked = Asked {
            impersonated: asked.impersonated.as_deref(),
            certificate,
        };
        Ok(self.gate.authorizer.authorize(caller, asked).await?)
    }

    /// Step 4. The CSR is read only now: proving possession costs more than anything before it.
    fn issue(
        &self,
        permit: &IssuancePermit,
        asked: &IssueRequest,
        issuing: &Authority,
    ) -> Result<(Csr, SvidChain), Refusal> {
        let csr = Csr::from_pem(&asked.csr)?;
        csr.check_names(permit.id())?;
        let bounds = self.config.lifetimes.svid;
        let dns = self.config.extra_dns.get(permit.account());
        let profile = profile(permit, asked.validity_seconds, bounds, dns);
        let chain = issue(&profile, csr.public_key(), issuing, self.clock.now())?;
        Ok((csr, chain))
    }

    /// A place among the bounded number of requests under way, given back on drop.
    fn place(&self) -> Result<Place, Refusal> {
        let place = Place {
            under_way: Arc::clone(&self.under_way),
            gauge: self.metrics.requests_in_flight.clone(),
        };
        let before = self.under_way.fetch_add(1, Ordering::AcqRel);
        place.gauge.inc();
        if before >= self.config.limits.requests {
            Err(Refusal::Overloaded)
        } else {
            Ok(place)
        }
    }
}

struct Place {
    under_way: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        self.gauge.dec();
    }
}

/// The leaf a permit stands for. Every name in it comes from the permit or the configuration.
fn profile(
    permit: &IssuancePermit,
    seconds: i64,
    bounds: TtlBounds,
    dns: Option<&Vec<String>>,
) -> LeafProfile {
    LeafProfile {
        id: permit.id().clone(),
        ttl: bounds.clamp(seconds),
        min_left: bounds.min,
        dns: dns.cloned().unwrap_or_default(),
    }
}
