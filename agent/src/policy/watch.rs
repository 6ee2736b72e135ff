//! The watch of one kind at the API server. While it is broken, what is known stays in use.
//!
//! A kind of policies that the server does not have has no objects. That is believed of a server that calls itself
//! ready only: one that is starting may not know its kinds yet. Services are always there.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use kube::api::Api;
use kube::runtime::watcher;
use signet_runtime::backoff::{Backoff, random_share};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::keeper::{Ear, Heard};
use super::status::State;
use super::store::Event;
use crate::attest::pods::watch::chain;
use crate::metrics::Metrics;
use crate::quiet::Quiet;

mod subject;

pub use subject::{AllServices, Subject};

/// Waits after a failure. The API server's herd after a restart of its own is every node at once.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(5),
};
/// How often a kind that is not there is looked for again.
const ABSENT: Duration = Duration::from_secs(15);
/// A list that does not go on for this long is begun anew.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for the server's word that it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(5);
/// A list that is asked for though the watch goes well is made within this time, so that not every node makes it at
/// once; and no sooner than this after the last one.
const SPREAD: Duration = Duration::from_secs(30);
/// How long the API server keeps one watch open, in seconds; the client gives up on silence soon after.
const WATCH_SECONDS: u32 = 100;

/// Why a watch of one version is over.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// The server does not have it.
    NotFound,
    /// It is to be begun anew.
    Again,
    /// Nobody listens.
    Deaf,
}

/// The watch.
pub struct Watch<S: Subject> {
    client: kube::Client,
    subject: S,
    ear: Ear,
    metrics: Metrics,
    listing: Vec<S::Told>,
    failures: u32,
    quiet: Quiet<&'static str>,
    bell: Arc<Notify>,
}

impl<S: Subject> Watch<S> {
    /// Follows the objects of `subject`.
    #[must_use]
    pub fn new(client: kube::Client, subject: S, ear: Ear, metrics: Metrics) -> Self {
        Self {
            client,
            subject,
            ear,
            metrics,
            listing: Vec::new(),
            failures: 0,
            quiet: Quiet::default(),
            bell: Arc::default(),
        }
    }

    /// The same, that lists anew when this rings.
    #[must_use]
    pub fn listing_at(self, bell: Arc<Notify>) -> Self {
        Self { bell, ..self }
    }

    /// Runs until nobody listens.
    pub async fn run(mut self) {
        loop {
            let mut missing = 0;
            for version in S::VERSIONS {
                match self.follow(version).await {
                    Over::NotFound => missing += 1,
                    Over::Again => break,
                    Over::Deaf => return,
                }
            }
            if missing == S::VERSIONS.len() && self.absent().await == Over::Deaf {
                return;
            }
        }
    }

    /// Neither version is there: says so, if the server can be believed, and waits until it is looked again.
    async fn absent(&mut self) -> Over {
        if !S::MAY_BE_ABSENT {
            let error = "the API server does not know them".to_owned();
            return self.failed("list", error).await;
        }
        match self.is_ready().await {
            Ok(()) => {
                self.failures = 0;
                let none = self.subject.listed(Vec::new());
                let heard = Heard::Well(self.subject.part(), State::Absent, none);
                if self.ear.send(heard).await.is_err() {
                    return Over::Deaf;
                }
                tokio::time::sleep(ABSENT).await;
                Over::NotFound
            }
            Err(error) => {
                let error = format!("the kind is not served, by a server that is not ready: {error}");
                self.failed("not_ready", error).await
            }
        }
    }

    /// The server's own word, open to everyone who has an account.
    async fn is_ready(&self) -> Result<(), String> {
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .map_err(|e| e.to_string())?;
        let asked = tokio::time::timeout(READY_DEADLINE, self.client.request_text(request)).await;
        asked
            .map_err(|_| "no answer in time".to_owned())?
            .map(drop)
            .map_err(|e| chain(&e))
    }

    async fn follow(&mut self, version: &'static str) -> Over {
        let api = Api::<S::Object>::all_with(self.client.clone(), &self.subject.resource(version));
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = pin!(watcher(api, config));
        let mut listing = true;
        let (listed, bell) = (Instant::now(), Arc::clone(&self.bell));
        let mut list_at = None;
        // What was asked for so far comes with the list that begins.
        let _ = bell.notified().now_or_never();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = bell.notified(), if list_at.is_none() => {
                    let after = SPREAD.mul_f64(random_share());
                    list_at = Some((Instant::now() + after).max(listed + SPREAD));
                    continue;
                }
                () = tokio::time::sleep_until(list_at.unwrap_or(listed)), if list_at.is_some() => {
                    return Over::Again;
                }
                () = tokio::time::sleep(LIST_DEADLINE), if listing => {
                    return self.failed("list", "the API server does not go on with its list".to_owned()).await;
                }
            };
            match event {
                None => return Over::Again,
                Some(Err(error)) => {
                    if is_not_found(&error) {
                        return Over::NotFound;
                    }
                    if self.failed(reason(&error), chain(&error)).await == Over::Deaf {
                        return Over::Deaf;
                    }
                }
                Some(Ok(event)) => {
                    self.failures = 0;
                    listing = matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
                    let Some(event) = self.event(version, event) else {
                        continue;
                    };
                    let state = State::Listed {
                        version: Some(version),
                    };
                    let heard = Heard::Well(self.subject.part(), state, event);
                    if self.ear.send(heard).await.is_err() {
                        return Over::Deaf;
                    }
                }
            }
        }
    }

    /// What an event means, once it means something.
    fn event(&mut self, version: &str, event: watcher::Event<S::Object>) -> Option<Event> {
        match event {
            watcher::Event::Init => {
                self.listing.clear();
                None
            }
            watcher::Event::InitApply(object) => {
                self.listing.extend(self.subject.told(version, object));
                None
            }
            watcher::Event::InitDone => Some(self.subject.listed(std::mem::take(&mut self.listing))),
            watcher::Event::Apply(object) => self
                .subject
                .told(version, object)
                .map(|told| self.subject.applied(told)),
            watcher::Event::Delete(object) => self.subject.deleted(&object),
        }
    }

    /// Counts and tells a failure, and waits a while.
    async fn failed(&mut self, reason: &'static str, error: String) -> Over {
        Metrics::blame(&self.metrics.policy_watch_failures, reason);
        if self.quiet.may_log(reason, Instant::now()) {
            tracing::warn!(
                reason,
                error,
                kind = self.subject.part().name(),
                "policy watch failed; what is known of policies stays in use"
            );
        }
        let heard = Heard::Failed(self.subject.part(), reason, error);
        if self.ear.send(heard).await.is_err() {
            return Over::Deaf;
        }
        tokio::time::sleep(BACKOFF.delay(self.failures, random_share())).await;
        self.failures = self.failures.saturating_add(1);
        Over::Again
    }
}

fn reason(error: &watcher::Error) -> &'static str {
    match error {
        watcher::Error::InitialListFailed(_) => "list",
        watcher::Error::WatchStartFailed(_) => "start",
        watcher::Error::WatchError(_) => "status",
        watcher::Error::WatchFailed(_) => "stream",
        watcher::Error::NoResourceVersion => "version",
    }
}

/// Whether the server does not have this kind in this version.
fn is_not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == 404,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
