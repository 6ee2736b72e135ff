//! The loop that keeps the SVID fresh: it waits for time, bundles, answers and operators, and does
//! what [`rotation`] decides. It holds no decisions of its own.

mod request;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::lifetime::{Jitter, until};
use signet_certs::{SpiffeId, TrustBundle, TrustDomain, UnixTime};
use signet_runtime::Clock;
use signet_runtime::backoff::random_share;
use signet_runtime::clock::{LONGEST_NAP, rfc3339};
use signet_runtime::http::Readiness;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ca_client::{CaClient, Failure, FailureKind};
use crate::metrics::{Metrics, gauge};
use crate::rotation::{self, Action, Chance, Event, State};
use crate::svids::{Shelf, Snapshot, Verified};
use request::{Fresh, Requester};

/// Name of the readiness condition.
pub const READY: &str = "svid";

/// The last failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// When.
    pub at: UnixTime,
    /// What it means.
    pub kind: FailureKind,
    /// As a sentence.
    pub text: String,
}

/// How rotation goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When the next request is due.
    pub renews_at: Option<UnixTime>,
    /// SVIDs received after the first.
    pub renewals: u64,
    /// When the last SVID came.
    pub last_success: Option<UnixTime>,
    /// The last failure, even if a success followed.
    pub last_failure: Option<LastFailure>,
}

impl Status {
    /// Why there is no SVID, as far as is known.
    #[must_use]
    pub fn cause(&self) -> String {
        match &self.last_failure {
            Some(failure) => format!(
                "{} ({}, {})",
                failure.text,
                failure.kind.code(),
                rfc3339(failure.at)
            ),
            None => "the CA has not answered yet".into(),
        }
    }
}

/// Why an operator's request for a renewal came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The floor after the last success is not over.
    #[error("the last SVID is too young: the next may be asked for at {}", rfc3339(*.0))]
    TooSoon(UnixTime),
    /// The request failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// An operator's request for a renewal, answered when its outcome is known.
pub type Ask = oneshot::Sender<Result<(), AskError>>;

/// What the loop is given.
pub struct Parts {
    /// The CA.
    pub ca: CaClient,
    /// Our trust domain.
    pub domain: TrustDomain,
    /// The life asked for.
    pub ttl: Duration,
    /// The newest bundle.
    pub bundles: watch::Receiver<Option<Arc<TrustBundle>>>,
    /// Where snapshots go.
    pub shelf: Shelf,
    /// Where operators ask.
    pub asks: mpsc::Receiver<Ask>,
    /// Where the status goes.
    pub status: watch::Sender<Arc<Status>>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where outcomes are counted.
    pub metrics: Metrics,
    /// Told when the first SVID is served, and when there is none.
    pub readiness: Readiness,
}

type Answer = Pin<Box<dyn Future<Output = Result<Fresh, Failure>> + Send>>;

/// The loop.
pub struct Rotator {
    parts: Parts,
    requester: Requester,
    state: State,
    identity: Option<SpiffeId>,
    held: Option<Verified>,
    bundle: Option<Arc<TrustBundle>>,
    answer: Option<Answer>,
    askers: Vec<Ask>,
    /// A success is told to those who asked once the snapshot is out.
    owes_success: bool,
    wake: UnixTime,
    roots_differ: bool,
}

/// Most operators kept waiting at once.
const MAX_ASKERS: usize = 16;

impl Rotator {
    /// Made of its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let requester = Requester {
            ca: parts.ca.clone(),
            domain: parts.domain.clone(),
            ttl: parts.ttl,
            bundles: parts.bundles.clone(),
            clock: Arc::clone(&parts.clock),
        };
        let wake = parts.clock.now();
        Self {
            parts,
            requester,
            state: State::new(),
            identity: None,
            held: None,
            bundle: None,
            answer: None,
            askers: Vec::new(),
            owes_success: false,
            wake,
            roots_differ: false,
        }
    }

    /// Runs for ever; dropped at shutdown.
    pub async fn run(mut self) {
        let mut event = Event::Woke;
        loop {
            self.carry_out(event);
            event = self.wait().await;
        }
    }

    /// Steps the machine with `event` until it says how long to wait.
    fn carry_out(&mut self, mut event: Event) {
        loop {
            let chance = Chance {
                jitter: Jitter::new(random_share()),
                backoff: random_share(),
            };
            let now = self.parts.clock.now();
            let (state, action) = rotation::step(self.state, event, now, chance);
            self.state = state;
            event = Event::Woke;
            match action {
                Action::Request => {
                    self.learn_identity();
                    let previous = self.held.as_ref().map(|held| held.svid().id().clone());
                    self.answer = Some(Box::pin(self.requester.clone().request(previous)));
                }
                Action::Publish => self.publish(),
                Action::TooSoon(when) => self.reply(&Err(AskError::TooSoon(when))),
                Action::WakeAt(when) => {
                    self.wake = when;
                    if std::mem::take(&mut self.owes_success) {
                        self.reply(&Ok(()));
                    }
                    self.show(now);
                    return;
                }
            }
        }
    }

    /// The next event. Bundles come before answers, so that a wider bundle is out before a leaf that
    /// needs it; and no nap is longer than the clock may be left unwatched.
    async fn wait(&mut self) -> Event {
        let nap = until(self.wake, self.parts.clock.now()).min(LONGEST_NAP);
        tokio::select! {
            biased;
            Ok(()) = self.parts.bundles.changed() => self.take_bundle(),
            outcome = answered(&mut self.answer) => self.take_answer(outcome),
            Some(ask) = self.parts.asks.recv() => {
                if self.askers.len() < MAX_ASKERS {
                    self.askers.push(ask);
                }
                Event::Asked
            }
            () = tokio::time::sleep(nap) => Event::Woke,
        }
    }

    fn take_bundle(&mut self) -> Event {
        self.bundle.clone_from(&self.parts.bundles.borrow_and_update());
        let now = self.parts.clock.now();
        let (Some(bundle), Some(held)) = (&self.bundle, &self.held) else {
            return Event::BundleChanged { usable_until: None };
        };
        match Verified::check(held.svid().clone(), Arc::clone(bundle), held.received(), now) {
            Ok(verified) => {
                let usable_until = Some(verified.facts().usable_until);
                self.held = Some(verified);
                Event::BundleChanged { usable_until }
            }
            Err(error) => {
                tracing::warn!(
                    spiffe_id = %held.svid().id(), serial = held.svid().chain().serial(), %error,
                    "svid does not verify under the new bundle; asking for another"
                );
                Event::BundleChanged { usable_until: None }
            }
        }
    }

    fn take_answer(&mut self, outcome: Result<Fresh, Failure>) -> Event {
        let now = self.parts.clock.now();
        match outcome.and_then(|fresh| self.check_again(fresh, now)) {
            Ok(verified) => {
                let facts = verified.facts();
                self.succeeded(&verified, now);
                self.identity = Some(verified.svid().id().clone());
                self.held = Some(verified);
                self.owes_success = true;
                Event::Issued(facts)
            }
            Err(failure) => {
                self.failed(&failure, now);
                let retry_after = failure.retry_after;
                self.reply(&Err(AskError::Failed(failure)));
                Event::Failed { retry_after }
            }
        }
    }

    /// The bundle may have changed since the request verified its answer.
    fn check_again(&mut self, fresh: Fresh, now: UnixTime) -> Result<Verified, Failure> {
        let Some(bundle) = self
            .bundle
            .clone()
            .or_else(|| self.parts.bundles.borrow().clone())
        else {
            return Err(Failure::new(
                FailureKind::NoBundle,
                "there is no bundle to verify the svid under",
            ));
        };
        self.compare_roots(&fresh.roots_pem, &bundle);
        Verified::check(fresh.svid, bundle, now, now)
            .map_err(|error| Failure::new(FailureKind::NotVerified, error.to_string()))
    }

    /// Roots in an answer are compared with the bundle, never added to it.
    fn compare_roots(&mut self, pem: &str, bundle: &TrustBundle) {
        let differ = match TrustBundle::from_pem(self.parts.domain.clone(), pem.as_bytes(), 0) {
            Ok(roots) => !roots.same_roots(bundle),
            Err(_) => true,
        };
        Metrics::count(
            &self.parts.metrics.answer_roots,
            if differ { "different" } else { "same" },
        );
        if differ && !self.roots_differ {
            tracing::warn!(
                sequence = bundle.sequence(),
                "the roots that came with the svid are not those of the bundle; the bundle is what is served"
            );
        }
        self.roots_differ = differ;
    }

    fn publish(&mut self) {
        let before = self.parts.shelf.current();
        let snapshot = match (&self.held, &self.bundle) {
            (Some(held), _) if self.state.serves() => Snapshot::of_svid(held.clone()),
            (_, Some(bundle)) => Snapshot::of_bundle(Arc::clone(bundle), self.identity.clone()),
            _ => return,
        };
        let (served, serves) = (before.verified().is_some(), snapshot.verified().is_some());
        let metrics = &self.parts.metrics;
        metrics.svid_not_after.set(
            snapshot
                .verified()
                .map_or(0, |v| gauge(v.facts().usable_until.as_secs())),
        );
        self.parts.shelf.put(snapshot);
        if serves {
            self.parts.readiness.holds(READY);
        } else if served {
            metrics.svid_withdrawn.inc();
            let cause = self.parts.status.borrow().cause();
            tracing::error!(reason = "withdrawn", error = %cause, "no svid is served until the next is issued");
            self.parts.readiness.lacks(
                READY,
                format!("the last SVID is over or no longer verifies; {cause}"),
            );
        }
    }

    /// Until there is an SVID, the token's claim tells which SPIFFE ID may be asked for over SDS.
    fn learn_identity(&mut self) {
        if self.identity.is_some() {
            return;
        }
        self.identity = self.parts.ca.claimed_identity();
        if self.identity.is_some() {
            let identity = self.identity.clone();
            self.parts.shelf.put(match &self.bundle {
                Some(bundle) => Snapshot::of_bundle(Arc::clone(bundle), identity),
                None => Snapshot::empty(self.parts.domain.clone(), identity),
            });
        }
    }

    fn succeeded(&self, verified: &Verified, now: UnixTime) {
        let metrics = &self.parts.metrics;
        metrics.svid_issued.inc();
        metrics.svid_last_success.set(gauge(now.as_secs()));
        let chain = verified.svid().chain();
        tracing::info!(
            spiffe_id = %chain.id(), serial = chain.serial(), not_after = rfc3339(chain.not_after()),
            authority_id = chain.leaf().authority_key_id().unwrap_or("unknown"), outcome = "issued",
            "svid received"
        );
        self.parts.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            status.renewals += u64::from(status.last_success.is_some());
            status.last_success = Some(now);
        });
    }

    fn failed(&self, failure: &Failure, now: UnixTime) {
        Metrics::blame(&self.parts.metrics.svid_failures, failure.kind.code());
        let left = self.parts.shelf.current().seconds_left(now);
        tracing::warn!(
            reason = failure.kind.code(), error = %failure, attempt = self.state.failures() + 1,
            seconds_left = left, "svid not renewed; trying again"
        );
        if left.is_none() {
            self.parts
                .readiness
                .lacks(READY, format!("no SVID yet: {failure}"));
        }
        let last = LastFailure {
            at: now,
            kind: failure.kind,
            text: failure.to_string(),
        };
        self.parts
            .status
            .send_modify(|status| Arc::make_mut(status).last_failure = Some(last));
    }

    fn reply(&mut self, outcome: &Result<(), AskError>) {
        for ask in self.askers.drain(..) {
            let _ = ask.send(outcome.clone());
        }
    }

    /// Tells when the next request is due.
    fn show(&self, now: UnixTime) {
        let due = self.state.due(now);
        let metrics = &self.parts.metrics;
        metrics.svid_renews_at.set(gauge(due.as_secs()));
        metrics
            .svid_next_renewal
            .set(gauge(due.as_secs()).saturating_sub(gauge(now.as_secs())));
        if due > now {
            self.parts.status.send_if_modified(|status| {
                let changed = status.renews_at != Some(due);
                if changed {
                    Arc::make_mut(status).renews_at = Some(due);
                }
                changed
            });
        }
    }
}

/// The outcome of the request under way; pending when there is none.
async fn answered(answer: &mut Option<Answer>) -> Result<Fresh, Failure> {
    match answer {
        Some(pending) => {
            let outcome = pending.await;
            *answer = None;
            outcome
        }
        None => std::future::pending().await,
    }
}
