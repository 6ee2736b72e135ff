//! The one watch that feeds the index: the pods whose `spec.nodeName` is this node. While it is broken
//! the index stays in use, as old as it is.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod as CorePod;
use kube::api::{Api, ApiResource};
use kube::runtime::watcher;
use signet_certs::TrustDomain;
use signet_runtime::Clock;
use signet_runtime::backoff::{Backoff, random_share};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::api::WATCH_SECONDS;
use super::facts::{self, FactsError, PodFacts, PodObject};
use super::index::Event;
use super::{Reader, View};
use crate::attest::Wanted;
use crate::attest::cgroup::PodUid;
use crate::metrics::{Metrics, Outcome, gauge};
use crate::quiet::Quiet;

/// Waits after a failure. The API server's herd after a restart of its own is every node at once; but a pod
/// that was deleted meanwhile keeps its SVID for as long as is waited here.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(5),
};
/// After so long without one, a failure is a first one again: a quiet watch shows no event that says so.
const FORGIVEN: Duration = Duration::from_secs(30);
/// A list that does not go on for this long is begun anew: the client waits for an answer for ever.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// Shortest time between two lists that were asked for.
const RELIST_FLOOR: Duration = Duration::from_secs(5);
/// Shortest time between two announcements of the identities in use: each is made of all pods, and pods may
/// come and go by the hundred. The first after a while goes out at once.
const ANNOUNCED_EVERY: Duration = Duration::from_millis(20);

/// What the watch is made of.
pub struct Parts {
    /// How to reach the API server.
    pub client: kube::Client,
    /// The node's name.
    pub node: String,
    /// The agent's own pod.
    pub own: Option<PodUid>,
    /// The trust domain of identities.
    pub domain: TrustDomain,
    /// For the metric of the last event.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Metrics,
}

/// The writer's end.
pub struct PodWatch {
    parts: Parts,
    view: watch::Sender<View>,
    relist: Arc<Notify>,
    wanted: watch::Sender<Arc<Wanted>>,
    /// What the list under way has shown so far.
    listing: Vec<PodFacts>,
    /// When the identities in use were announced last.
    announced: Option<Instant>,
    /// When they are to be announced next, if they may have changed since.
    announce_at: Option<Instant>,
    quiet: Quiet<&'static str>,
}

impl PodWatch {
    /// The writer, to be run; the pods' reader; the identities in use.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, Reader, watch::Receiver<Arc<Wanted>>) {
        let (view, views) = watch::channel(View::empty());
        let (wanted, wants) = watch::channel(Arc::new(Wanted::default()));
        let relist = Arc::new(Notify::new());
        let reader = Reader {
            view: views,
            relist: Arc::clone(&relist),
        };
        let this = Self {
            parts,
            view,
            relist,
            wanted,
            listing: Vec::new(),
            announced: None,
            announce_at: None,
            quiet: Quiet::default(),
        };
        (this, reader, wants)
    }

    /// Follows the pods until dropped. Each round begins with a complete list.
    pub async fn run(mut self) {
        let kind = ApiResource::erase::<CorePod>(&());
        let api = Api::<PodObject>::all_with(self.parts.client.clone(), &kind);
        let only = watcher::Config::default()
            .fields(&format!("spec.nodeName={}", self.parts.node))
            .timeout(WATCH_SECONDS);
        loop {
            let events = pin!(watcher(api.clone(), only.clone()));
            self.follow(events).await;
        }
    }

    /// Takes events in until a fresh list was asked for.
    async fn follow(
        &mut self,
        mut events: impl futures::Stream<Item = watcher::Result<watcher::Event<PodObject>>> + Unpin,
    ) {
        let not_before = Instant::now() + RELIST_FLOOR;
        let relist = Arc::clone(&self.relist);
        let asked = async move {
            relist.notified().await;
            tokio::time::sleep_until(not_before).await;
        };
        let mut asked = pin!(asked);
        let mut failures = Failures::default();
        let mut listing = true;
        loop {
            let announce_at = self.announce_at;
            let event = tokio::select! {
                () = &mut asked => return,
                event = events.next() => event,
                () = tokio::time::sleep_until(announce_at.unwrap_or_else(Instant::now)), if announce_at.is_some() => {
                    self.announce(Instant::now());
                    continue;
                }
                () = tokio::time::sleep(LIST_DEADLINE), if listing => {
                    self.blame("list", "the API server does not go on with its list");
                    return;
                }
            };
            listing = match &event {
                Some(Ok(watcher::Event::Init | watcher::Event::InitApply(_))) => true,
                Some(Ok(_)) => false,
                _ => listing,
            };
            match event {
                Some(Ok(event)) => {
                    failures = Failures::default();
                    self.take(event, Instant::now());
                }
                Some(Err(error)) => {
                    self.failed(&error);
                    if self.announce_at.is_some() {
                        self.announce(Instant::now());
                    }
                    tokio::time::sleep(failures.one_more(Instant::now())).await;
                }
                None => return,
            }
        }
    }

    fn failed(&mut self, error: &watcher::Error) {
        let reason = match error {
            watcher::Error::InitialListFailed(_) => "list",
            watcher::Error::WatchStartFailed(_) => "start",
            watcher::Error::WatchError(_) => "status",
            watcher::Error::WatchFailed(_) => "stream",
            watcher::Error::NoResourceVersion => "version",
        };
        self.blame(reason, &chain(error));
    }

    fn blame(&mut self, reason: &'static str, error: &str) {
        Metrics::blame(&self.parts.metrics.pod_watch_failures, reason);
        if self.quiet.may_log(reason, Instant::now()) {
            tracing::warn!(
                reason,
                error,
                "pod watch failed; what is known of pods stays in use"
            );
        }
    }

    /// Takes one event in.
    pub fn take(&mut self, event: watcher::Event<PodObject>, now: Instant) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(pod) => {
                if let Some(facts) = self.read(pod) {
                    self.listing.push(facts);
                }
            }
            watcher::Event::InitDone => {
                let list = std::mem::take(&mut self.listing);
                self.apply("listed", Event::Listed(list), now);
            }
            watcher::Event::Apply(pod) => {
                if let Some(facts) = self.read(pod) {
                    self.apply("applied", Event::Applied(facts), now);
                }
            }
            watcher::Event::Delete(pod) => match facts::uid(&pod.metadata) {
                Ok(uid) => self.apply("deleted", Event::Deleted(uid), now),
                Err(fault) => self.unusable(fault),
            },
        }
    }

    fn read(&mut self, pod: PodObject) -> Option<PodFacts> {
        facts::facts(pod, &self.parts.node)
            .map_err(|fault| self.unusable(fault))
            .ok()
    }

    fn unusable(&mut self, fault: FactsError) {
        Metrics::count(&self.parts.metrics.pod_events, "unusable");
        if self.quiet.may_log("unusable", Instant::now()) {
            tracing::warn!(error = %fault, "a pod from the API server is left out");
        }
    }

    fn apply(&mut self, outcome: &'static str, event: Event, now: Instant) {
        let mut change = super::index::Change::default();
        let mut first = false;
        self.view.send_if_modified(|view| {
            first = view.known_as_of.is_none();
            change = Arc::make_mut(&mut view.index).apply(event, &self.parts.domain);
            // Only a list shows what there is now: events may be of long ago after an outage.
            if outcome == "listed" {
                view.known_as_of = Some(now);
            }
            // A list tells also those who wait for what it does not show.
            change.any || outcome == "listed"
        });
        let metrics = &self.parts.metrics;
        Metrics::count(&metrics.pod_events, outcome);
        metrics
            .pod_last_event
            .set(gauge(self.parts.clock.now().as_secs()));
        if change.no_room > 0 {
            let left_out = metrics.pod_events.get_or_create(&Outcome { outcome: "no_room" });
            left_out.inc_by(u64::try_from(change.no_room).unwrap_or(u64::MAX));
            if self.quiet.may_log("no_room", Instant::now()) {
                tracing::error!(
                    most = super::index::MAX_PODS,
                    "this node has more pods than are kept"
                );
            }
        }
        if first {
            let pods = self.view.borrow().index.len();
            tracing::info!(node_name = %self.parts.node, pods, "the pods of this node are known");
        }
        if change.any {
            let pods = u64::try_from(self.view.borrow().index.len()).unwrap_or(u64::MAX);
            self.parts.metrics.pods.set(gauge(pods));
        }
        if change.wanted || first {
            let due = self.announced.map_or(now, |last| last + ANNOUNCED_EVERY);
            if due <= now {
                self.announce(now);
            } else {
                self.announce_at = Some(due);
            }
        }
    }

    /// Tells which identities are in use.
    fn announce(&mut self, now: Instant) {
        (self.announced, self.announce_at) = (Some(now), None);
        let index = Arc::clone(&self.view.borrow().index);
        let wanted = Arc::new(index.wanted(self.parts.own));
        self.wanted.send_if_modified(|before| {
            let changed = **before != *wanted;
            *before = wanted;
            changed
        });
    }
}

/// Failures in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    last: Option<Instant>,
}

impl Failures {
    /// How long to wait after one more.
    fn one_more(&mut self, now: Instant) -> Duration {
        let forgiven = self.last.is_none_or(|last| now.duration_since(last) >= FORGIVEN);
        self.count = if forgiven { 0 } else { self.count.saturating_add(1) };
        self.last = Some(now);
        BACKOFF.delay(self.count, random_share())
    }
}

/// An error and its causes, as one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
