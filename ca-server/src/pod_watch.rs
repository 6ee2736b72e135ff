//! The one watch of pods behind the index: a listing in pages, then events from there on, again and
//! again. It decides nothing about callers; `next` decides how it goes on, and this loop does it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::core::WatchEvent;
use signet_runtime::Clock;
use signet_runtime::backoff::{Backoff, random_share};
use signet_runtime::http::Readiness;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::pod_index::PodView;
use crate::pod_wire::{Page, Pod, WATCH_SECONDS, page_request, watch_request, words};

/// The condition of readiness this watch fulfils.
pub const CONDITION: &str = "pod_index";

/// A page, or the head of a watch's answer, is given up after this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// The API server ends a watch in time; one that stays silent beyond that has lost its connection.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 20);
/// A watch that ends sooner is opened again with a pause.
const EARLY: Duration = Duration::from_secs(5);
/// Watches that fail in a row before everything is listed again.
const WATCHES_PER_LISTING: u32 = 10;
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(250),
    cap: Duration::from_secs(10),
};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    List,
    Watch { version: String },
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// A whole listing, as of this version.
    Listed { version: String },
    /// No listing, or no whole one.
    NotListed,
    /// The API server ended the watch as it does; `heard` tells whether it said anything, `early`
    /// whether it ended it long before it was due.
    Ended {
        version: String,
        heard: bool,
        early: bool,
    },
    /// The watch ended otherwise, or never began.
    Broke { version: String, heard: bool },
    /// The version is too old to go on from.
    Expired,
}

/// What comes next, and after how many failures in a row.
fn next(outcome: Outcome, failures: u32) -> (Step, u32) {
    match outcome {
        Outcome::Listed { version } => (Step::Watch { version }, 0),
        Outcome::NotListed => (Step::List, failures.saturating_add(1)),
        Outcome::Ended {
            version,
            heard: true,
            early: false,
        } => (Step::Watch { version }, 0),
        // A server that sends no bookmarks is listed again, lest a quiet cluster look like a dead watch.
        Outcome::Ended {
            heard: false,
            early: false,
            ..
        } => (Step::List, 0),
        Outcome::Ended { version, heard, .. } | Outcome::Broke { version, heard } => {
            let failures = if heard { 1 } else { failures.saturating_add(1) };
            // Where no watch comes about, listings at least bring the index up to date.
            let step = if failures % WATCHES_PER_LISTING == 0 {
                Step::List
            } else {
                Step::Watch { version }
            };
            (step, failures)
        }
        Outcome::Expired => (Step::List, failures.saturating_add(1)),
    }
}

/// The driver.
pub struct PodWatch {
    client: kube::Client,
    view: PodView,
    clock: Arc<dyn Clock>,
    readiness: Readiness,
    metrics: Metrics,
    /// Whether a listing was ever complete.
    listed: bool,
}

impl PodWatch {
    /// A watch that fills `view`, and makes `readiness` hold once it is full.
    #[must_use]
    pub fn new(
        client: kube::Client,
        view: PodView,
        clock: Arc<dyn Clock>,
        readiness: Readiness,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            view,
            clock,
            readiness,
            metrics,
            listed: false,
        }
    }

    /// Follows the pods until dropped.
    pub async fn run(mut self) {
        let (mut step, mut failures) = (Step::List, 0);
        loop {
            if failures > 0 {
                tokio::time::sleep(BACKOFF.delay(failures - 1, random_share())).await;
            }
            let outcome = match step {
                Step::List => self.list().await,
                Step::Watch { version } => self.watch(version).await,
            };
            let word = match &outcome {
                Outcome::Listed { .. } => "listed",
                Outcome::NotListed => "not_listed",
                Outcome::Ended { .. } => "ended",
                Outcome::Broke { .. } => "broke",
                Outcome::Expired => "expired",
            };
            Metrics::count(&self.metrics.pods.watches, word);
            (step, failures) = next(outcome, failures);
        }
    }

    /// Every live pod, page by page. What is gone leaves the index with the last page.
    async fn list(&mut self) -> Outcome {
        self.view.write().index.begin_listing();
        let mut next: Option<String> = None;
        let mut first = None;
        loop {
            let page = match self.page(next.as_deref()).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "pods cannot be listed; trying again");
                    self.view.write().liveness.broke();
                    // Losing the API server later is an alarm, not unreadiness.
                    if !self.listed {
                        self.readiness.lacks(CONDITION, error);
                    }
                    return Outcome::NotListed;
                }
            };
            // The watch goes on from the first page: what changed while turning pages is told again.
            let version = first.get_or_insert_with(|| page.version().to_owned());
            self.put(&page.items);
            match page.next() {
                Some(token) => next = Some(token.to_owned()),
                None => {
                    let version = version.clone();
                    self.complete();
                    return Outcome::Listed { version };
                }
            }
        }
    }

    async fn page(&self, next: Option<&str>) -> Result<Page, String> {
        let request = page_request(next).map_err(|e| e.to_string())?;
        let answer = tokio::time::timeout(ANSWER_DEADLINE, self.client.request_text(request)).await;
        let text = answer
            .map_err(|_| "the API server did not answer in time".to_owned())?
            .map_err(|e| words(&e))?;
        let page: Page = serde_json::from_str(&text).map_err(|e| format!("no list of pods: {e}"))?;
        if page.version().is_empty() {
            return Err("no list of pods: it has no version".into());
        }
        Ok(page)
    }

    fn complete(&mut self) {
        let mut following = self.view.write();
        following.index.end_listing();
        following.liveness.listed(self.clock.now());
        let (pods, bytes) = (following.index.len(), following.index.bytes());
        drop(following);
        self.told(pods);
        self.weighed(bytes);
        if !std::mem::replace(&mut self.listed, true) {
            tracing::info!(pods, "pods listed");
            self.readiness.holds(CONDITION);
        }
    }

    /// Follows events from `version` on until the watch ends.
    async fn watch(&self, version: String) -> Outcome {
        let mut version = version;
        let broke = |version, heard| Outcome::Broke { version, heard };
        let request = match watch_request(&version) {
            Ok(request) => request,
            Err(error) => {
                self.broke(&error.to_string());
                return broke(version, false);
            }
        };
        let opened = tokio::time::timeout(ANSWER_DEADLINE, self.client.request_events::<Pod>(request));
        let events = match opened.await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return self.fault(&error, version, false),
            Err(_) => {
                self.broke("the API server did not answer in time");
                return broke(version, false);
            }
        };
        self.view.write().liveness.reopened();
        let mut events = std::pin::pin!(events);
        let (mut heard, opened) = (false, Instant::now());
        loop {
            match tokio::time::timeout(SILENCE, events.next()).await {
                Err(_) => {
                    self.broke("it is silent");
                    return broke(version, heard);
                }
                Ok(None) => {
                    let early = opened.elapsed() < EARLY;
                    return Outcome::Ended {
                        version,
                        heard,
                        early,
                    };
                }
                Ok(Some(Ok(WatchEvent::Error(status)))) => {
                    return self.fault(&kube::Error::Api(status), version, heard);
                }
                Ok(Some(Err(error))) => return self.fault(&error, version, heard),
                Ok(Some(Ok(event))) => {
                    heard = true;
                    if let Some(newer) = self.apply(&event) {
                        version = newer;
                    }
                }
            }
        }
    }

    /// Takes an event in; answers the version it brings the index to.
    fn apply(&self, event: &WatchEvent<Pod>) -> Option<String> {
        let version = match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                self.put(std::slice::from_ref(pod));
                pod.version()
            }
            WatchEvent::Deleted(pod) => {
                self.view.write().index.remove(pod.uid());
                pod.version()
            }
            WatchEvent::Bookmark(bookmark) => &bookmark.metadata.resource_version,
            WatchEvent::Error(_) => return None,
        };
        let mut following = self.view.write();
        following.liveness.heard(self.clock.now());
        let pods = following.index.len();
        // Counting them takes a look at every name, so it is done once a minute and not per event.
        let bytes = matches!(event, WatchEvent::Bookmark(_)).then(|| following.index.bytes());
        drop(following);
        self.told(pods);
        if let Some(bytes) = bytes {
            self.weighed(bytes);
        }
        Some(version.to_owned()).filter(|version| !version.is_empty())
    }

    fn put(&self, pods: &[Pod]) {
        let mut following = self.view.write();
        let mut left_out: u64 = 0;
        for pod in pods {
            match pod.live() {
                Some(live) => left_out += u64::from(!following.index.put(pod.uid(), live)),
                None => following.index.remove(pod.uid()),
            }
        }
        drop(following);
        if left_out > 0 {
            self.metrics.pods.left_out.inc_by(left_out);
        }
    }

    fn fault(&self, error: &kube::Error, version: String, heard: bool) -> Outcome {
        self.broke(&words(error));
        match error {
            kube::Error::Api(status) if status.code == 410 => Outcome::Expired,
            _ => Outcome::Broke { version, heard },
        }
    }

    fn broke(&self, error: &str) {
        self.view.write().liveness.broke();
        tracing::warn!(%error, "watch of pods broke; resuming");
    }

    fn weighed(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.pods.bytes.set(bytes);
    }

    fn told(&self, pods: usize) {
        let pods = i64::try_from(pods).unwrap_or(i64::MAX);
        self.metrics.pods.indexed.set(pods);
        let now = i64::try_from(self.clock.now().as_secs()).unwrap_or(i64::MAX);
        self.metrics.pods.heard.set(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> String {
        "7".into()
    }

    #[test]
    fn a_watch_goes_on_where_it_ended_and_lists_again_only_when_it_must() {
        let watch = || Step::Watch { version: version() };
        let ended = |heard, early| Outcome::Ended {
            version: version(),
            heard,
            early,
        };
        let broke = |heard| Outcome::Broke {
            version: version(),
            heard,
        };
        let table = [
            (Outcome::Listed { version: version() }, 3, watch(), 0),
            (Outcome::NotListed, 0, Step::List, 1),
            (Outcome::NotListed, u32::MAX, Step::List, u32::MAX),
            (ended(true, false), 2, watch(), 0),
            (ended(false, false), 0, Step::List, 0),
            (ended(false, true), 0, watch(), 1),
            (ended(true, true), 5, watch(), 1),
            (broke(false), 4, watch(), 5),
            (broke(true), 4, watch(), 1),
            (broke(false), 9, Step::List, 10),
            (broke(false), 10, watch(), 11),
            (Outcome::Expired, 0, Step::List, 1),
        ];
        for (outcome, failures, step, after) in table {
            assert_eq!(next(outcome.clone(), failures), (step, after), "{outcome:?}");
        }
    }
}
