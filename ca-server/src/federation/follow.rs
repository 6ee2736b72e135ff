//! The driver of one relationship: waits, asks, stores what is new and puts it in force.

use std::sync::Arc;

use signet_certs::lifetime::Jitter;
use signet_certs::{TrustBundle, TrustDomain, UnixTime};
use signet_runtime::Clock;
use signet_runtime::backoff::random_share;
use signet_runtime::clock::sleep_until;

use super::poll::{Action, Event, Kept, Poll, step};
use super::source::{Source, SourceError};
use super::{Foreign, Status, stored};
use crate::metrics::Metrics;
use crate::store::Store;

/// One relationship.
pub struct Follow {
    /// With whom.
    pub domain: TrustDomain,
    /// Where their bundle comes from.
    pub source: Source,
    /// Where the newest one is kept.
    pub store: Store,
    /// Where it is put in force.
    pub foreign: Foreign,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Metrics,
}

impl Follow {
    /// Puts in force what is known without asking: what was stored last, or what the operator gave to
    /// begin with, whichever is newer. A fault in one of them leaves the other.
    pub async fn recall(&self) -> Poll {
        let given = self.source.first().unwrap_or_else(|error| {
            tracing::error!(domain = %self.domain, %error, "the bundle given to begin with cannot be used");
            None
        });
        let kept = if self.source.is_remote() {
            self.stored().await
        } else {
            None
        };
        let held = match (given, kept) {
            (Some(given), Some(kept)) if given.sequence() > kept.sequence() => Some(given),
            (given, kept) => kept.or(given),
        };
        let held = held.map(Arc::new);
        if let Some(bundle) = &held {
            self.put_in_force(bundle);
        }
        Poll { held, due: None }
    }

    /// Follows until dropped.
    pub async fn run(self, mut poll: Poll) {
        let mut failing = false;
        let mut told = None;
        loop {
            let (next, action) = self.step(poll, Event::Woke);
            poll = next;
            if let Action::WakeAt(due) = action {
                sleep_until(self.clock.as_ref(), due).await;
                continue;
            }
            // What the operator gives to begin with may come late.
            if poll.held.is_none() && self.source.is_remote() {
                poll = self.recall().await;
            }
            let (event, error) = match self.source.bundle().await {
                Ok(bundle) => (Event::Fetched(Arc::new(bundle)), None),
                Err(error) => (Event::Failed, Some(error)),
            };
            let (next, action) = self.step(poll, event);
            poll = next;
            let failed = self.conclude(&poll, &action, error.as_ref(), &mut told).await;
            if failed != failing {
                self.metrics
                    .trust
                    .federation_failing
                    .inc_by(if failed { 1 } else { -1 });
                failing = failed;
            }
        }
    }

    fn step(&self, poll: Poll, event: Event) -> (Poll, Action) {
        let jitter = Jitter::new(random_share());
        step(poll, event, self.source.interval(), jitter, self.clock.now())
    }

    /// Counts and logs what came of a poll, stores and publishes what is new; says whether it failed. The
    /// same fault is told aloud once, however often it comes.
    async fn conclude(
        &self,
        poll: &Poll,
        action: &Action,
        error: Option<&SourceError>,
        told: &mut Option<String>,
    ) -> bool {
        let (outcome, next) = match action {
            Action::Adopt(next) => ("updated", *next),
            Action::Keep(kept, next) => (kept.as_str(), *next),
            Action::Fetch | Action::WakeAt(_) => return false,
        };
        Metrics::count(&self.metrics.trust.federation_polls, outcome);
        let (domain, url) = (&self.domain, self.source.url().map(tracing::field::display));
        let sequence = poll.held.as_ref().map(|held| held.sequence());
        let fault = match (outcome, error) {
            ("updated" | "unchanged", _) => None,
            (_, Some(error)) => Some(error.to_string()),
            (outcome, None) => Some(outcome.to_owned()),
        };
        let news = fault != *told;
        *told = fault;
        match (action, &poll.held, error) {
            (Action::Adopt(_), Some(bundle), _) => {
                tracing::info!(%domain, url, sequence, outcome, "foreign bundle fetched");
                self.store(bundle).await;
                self.put_in_force(bundle);
            }
            (_, _, Some(error)) if news => {
                tracing::warn!(%domain, url, sequence, outcome, %error, "foreign bundle not fetched; the last good one stays");
            }
            (Action::Keep(Kept::Older | Kept::Conflicting, _), ..) if news => {
                tracing::error!(%domain, url, in_force = sequence, outcome, "foreign bundle ignored; the one in force stays");
            }
            _ => tracing::debug!(%domain, url, sequence, outcome, "foreign bundle polled"),
        }
        let bad = !matches!(outcome, "updated" | "unchanged");
        self.note(outcome, next, error.map(ToString::to_string), bad);
        bad
    }

    fn note(&self, outcome: &'static str, next: UnixTime, error: Option<String>, bad: bool) {
        let before = self.foreign.status().get(&self.domain).cloned();
        let last_success = if bad {
            before.and_then(|before| before.last_success)
        } else {
            Some(self.clock.now())
        };
        let status = Status {
            last_success,
            next_poll: Some(next),
            outcome,
            error,
        };
        self.foreign.note(&self.domain, status);
    }

    fn put_in_force(&self, bundle: &Arc<TrustBundle>) {
        self.foreign.publish(Arc::clone(bundle));
        let count = self.foreign.current().len();
        self.metrics
            .trust
            .federated_domains
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    async fn stored(&self) -> Option<TrustBundle> {
        let read = match self.store.load_foreign(&self.domain).await {
            Ok(None) => return None,
            Ok(Some(json)) => stored::read(&json, &self.domain).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        read.map_err(|error| {
            tracing::error!(domain = %self.domain, error, "the foreign bundle stored last cannot be used");
        })
        .ok()
    }

    /// Stores the newest bundle; one that cannot be stored is in force all the same.
    async fn store(&self, bundle: &TrustBundle) {
        if !self.source.is_remote() {
            return;
        }
        let outcome = match self.store.store_foreign(bundle, self.clock.now()).await {
            Ok(true) => "stored",
            Ok(false) => "superseded",
            Err(error) => {
                tracing::warn!(domain = %self.domain, %error, "foreign bundle not stored; a restart would not know it");
                "failed"
            }
        };
        Metrics::count(&self.metrics.trust.federation_stores, outcome);
    }
}
