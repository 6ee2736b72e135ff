//! The loop that feeds the store and publishes its view. What comes at once is taken in at once, so that a
//! thousand changes make one view and not a thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use signet_policy::decision::PolicyName;
use signet_policy::model::Kind;
use signet_runtime::Clock;
use signet_runtime::http::Readiness;
use tokio::sync::{Notify, mpsc, watch};

use super::space::Digest;
use super::status::{Part, Sources, State};
use super::store::{BOUNDS, Change, Event, Store, View};
use super::{KINDS, Mesh, Policies, services};
use crate::metrics::{InState, Metrics, Outcome, gauge};

/// Name of the readiness condition.
pub const READY: &str = "policies";
/// Most messages of sources that wait to be taken in.
const QUEUE: usize = 64;
/// What objects can be: sound, or what stands in for their newest version.
pub const STATES: [&str; 7] = [
    "sound",
    "last_good",
    "allows_nothing",
    "denies_all",
    "strict",
    "refuses_tokens",
    "nothing",
];

/// What a source says.
#[derive(Debug)]
pub enum Heard {
    /// It goes well: what happened, and what is known since.
    Well(Part, State, Event),
    /// It goes well again, and nothing has changed.
    Recovered(Part),
    /// It failed; what is known stays in use.
    Failed(Part, &'static str, String),
}

/// Where sources say it.
pub type Ear = mpsc::Sender<Heard>;

/// The loop.
pub struct Keeper {
    store: Store,
    queue: mpsc::Receiver<Heard>,
    view: watch::Sender<Option<View>>,
    sources: watch::Sender<Arc<Sources>>,
    parts: Parts,
    /// Rung where a list may show what had no room.
    bells: BTreeMap<Kind, Arc<Notify>>,
    /// Faulty objects that were logged, as they were.
    told: BTreeMap<PolicyName, Digest>,
}

/// What the loop works with besides.
#[derive(Clone)]
pub struct Parts {
    /// For metrics.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Metrics,
    /// Where [`READY`] holds once everything is known.
    pub readiness: Readiness,
}

impl Keeper {
    /// The loop, to be run; where sources speak; the readers' end.
    #[must_use]
    pub fn new(mesh: Mesh, parts: Parts) -> (Self, Ear, Policies) {
        let (ear, queue) = mpsc::channel(QUEUE);
        let (view, views) = watch::channel(None);
        let (sources, all) = watch::channel(Arc::new(Sources::new(&mesh.settings.source)));
        let this = Self {
            store: Store::bounded(BOUNDS, mesh.settings.root_namespace.clone()),
            queue,
            view,
            sources,
            parts,
            bells: KINDS.map(|kind| (kind, Arc::default())).into(),
            told: BTreeMap::new(),
        };
        let policies = Policies {
            mesh: Arc::new(mesh),
            view: views,
            sources: all,
            issuers: None,
        };
        (this, ear, policies)
    }

    /// What rings when a kind should be listed anew.
    #[must_use]
    pub fn bell(&self, kind: Kind) -> Arc<Notify> {
        self.bells.get(&kind).cloned().unwrap_or_default()
    }

    /// Runs until the sources are gone.
    pub async fn run(mut self) {
        let mut heard = Vec::with_capacity(QUEUE);
        while self.queue.recv_many(&mut heard, QUEUE).await > 0 {
            self.take(heard.drain(..));
        }
    }

    /// Takes in what was heard, and publishes what came of it.
    pub fn take(&mut self, heard: impl IntoIterator<Item = Heard>) {
        let mut sources = Sources::clone(&self.sources.borrow());
        let mut events = Vec::new();
        for heard in heard {
            match heard {
                Heard::Well(part, state, event) => {
                    Metrics::count(&self.parts.metrics.policy_events, outcome(&state, &event));
                    sources.well(part, state);
                    events.push(event);
                }
                Heard::Recovered(part) => sources.recovered(part),
                Heard::Failed(part, reason, error) => sources.failed(part, reason, error),
            }
        }
        let change = self.store.apply(events);
        self.no_room(&change);
        let synced = sources.synced();
        self.sources.send_if_modified(|before| {
            let changed = **before != sources;
            *before = Arc::new(sources);
            changed
        });
        let first = self.view.borrow().is_none();
        if synced && (first || change.view) {
            self.publish(first);
        } else if !synced {
            let missing = self.sources.borrow().missing();
            self.parts.readiness.lacks(READY, missing);
        }
    }

    fn no_room(&self, change: &Change) {
        for bell in change.list_again.iter().filter_map(|kind| self.bells.get(kind)) {
            bell.notify_one();
        }
        if change.no_room > 0 {
            let events = &self.parts.metrics.policy_events;
            let count = u64::try_from(change.no_room).unwrap_or(u64::MAX);
            events
                .get_or_create(&Outcome { outcome: "no_room" })
                .inc_by(count);
            tracing::error!(
                policies = count,
                "there is no room for policies; they count as the strictest in their namespaces"
            );
        }
        if change.services_left_out > 0 {
            let services = u64::try_from(change.services_left_out).unwrap_or(u64::MAX);
            let outcome = "services_no_room";
            let events = &self.parts.metrics.policy_events;
            events.get_or_create(&Outcome { outcome }).inc_by(services);
            tracing::error!(
                services,
                "there is no room for services; what they say of ports does not count"
            );
        }
    }

    fn publish(&mut self, first: bool) {
        let view = self.store.view().clone();
        let mut counts = BTreeMap::new();
        let mut policies = 0_u64;
        let mut standing = BTreeSet::new();
        for (name, item) in view.spaces.items() {
            policies += 1;
            *counts.entry(item.state()).or_insert(0_u64) += 1;
            if item.state() == "sound" {
                continue;
            }
            standing.insert(name.clone());
            if self.told.insert(name.clone(), item.digest) != Some(item.digest) {
                tracing::warn!(
                    policy = %name, origin = item.origin, outcome = item.state(),
                    error = %item.faults().join("; "), "a policy cannot be read"
                );
            }
        }
        self.told.retain(|name, _| standing.contains(name));
        let metrics = &self.parts.metrics;
        for state in STATES {
            let count = counts.get(state).copied().unwrap_or_default();
            metrics
                .policies
                .get_or_create(&InState { state })
                .set(gauge(count));
        }
        metrics
            .policies_changed
            .set(gauge(self.parts.clock.now().as_secs()));
        self.parts.metrics.services.set(gauge_of(view.services.len()));
        self.view.send_replace(Some(view));
        if first {
            self.parts.readiness.holds(READY);
            tracing::info!(policies, "the policies are known");
        }
    }
}

fn outcome(state: &State, event: &Event) -> &'static str {
    match (state, event) {
        (State::Absent, _) => "absent",
        (_, Event::Listed(..) | Event::Files(_) | Event::Services(services::Event::Listed(_))) => "listed",
        (_, Event::Applied(_) | Event::Services(services::Event::Applied(_))) => "applied",
        (_, Event::Deleted(_) | Event::Services(services::Event::Deleted(..))) => "deleted",
    }
}

fn gauge_of(count: usize) -> i64 {
    gauge(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
