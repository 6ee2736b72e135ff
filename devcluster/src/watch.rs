//! Watch streams: each follows the store's past from its own place, so no queue belongs to a slow reader.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::json;
use crate::query::Query;
use crate::shared::Shared;
use crate::status::ApiError;
use crate::store::{Change, Past, State};
use crate::verbs::{Filter, present};

/// How often a quiet watch that asked for bookmarks gets one; a real server takes about a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long a watch without `timeoutSeconds` lasts; a real server picks 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Longest `timeoutSeconds` that is honoured.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// One running watch.
struct Watch {
    shared: Arc<Shared>,
    filter: Filter,
    version: &'static str,
    bookmarks: bool,
    /// The last resource version the reader has been told about.
    seen: u64,
    /// Lines to send before anything else.
    ready: VecDeque<Bytes>,
    over: bool,
    revisions: watch::Receiver<u64>,
    generation: watch::Receiver<u64>,
    stop: CancellationToken,
    ends: Instant,
    _slot: OwnedSemaphorePermit,
}

/// Starts a watch: from a resource version, or with everything there is now when none is named.
pub(crate) fn start(
    shared: &Arc<Shared>,
    filter: Filter,
    version: &'static str,
    query: &Query,
) -> Result<impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static + use<>, ApiError> {
    let slot = Arc::clone(&shared.watches.slots).try_acquire_owned();
    let slot = slot.map_err(|_| ApiError::too_many_requests(1))?;
    let asked = query.resource_version.as_str();
    let from = match asked {
        "" | "0" => None,
        _ => Some(
            asked
                .parse::<u64>()
                .map_err(|_| ApiError::bad_request(format!("invalid resource version: {asked:?}")))?,
        ),
    };
    let timeout = query
        .timeout_seconds
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs)
        .min(MAX_TIMEOUT);
    let mut watch = Watch {
        shared: Arc::clone(shared),
        filter,
        version,
        bookmarks: query.bookmarks,
        seen: 0,
        ready: VecDeque::new(),
        over: false,
        revisions: shared.store.subscribe(),
        generation: shared.watches.generation.subscribe(),
        stop: shared.stop.clone(),
        ends: Instant::now() + timeout,
        _slot: slot,
    };
    match from {
        Some(from) if !query.initial_events => {
            watch.seen = from;
            // A version from the future comes from a cluster that ran here before; nothing is known about it.
            let newest = shared.store.read(State::revision);
            if from > newest {
                watch.expire(newest);
            }
        }
        _ => shared
            .store
            .read(|state| watch.show_everything(state, query.initial_events)),
    }
    Ok(StreamBody::new(watch.into_stream()))
}

impl Watch {
    fn show_everything(&mut self, state: &State, announce_end: bool) {
        for object in self.filter.list(state) {
            let line = self.line("ADDED", &object);
            self.ready.push_back(line);
        }
        self.seen = state.revision();
        if announce_end {
            let bookmark = self.bookmark(json!({"k8s.io/initial-events-end": "true"}));
            self.ready.push_back(bookmark);
        }
    }

    fn into_stream(self) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let chunk = watch.next().await?;
            Some((Ok(Frame::data(chunk)), watch))
        })
    }

    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            // Marked as seen before looking, so that a write in between wakes the wait below.
            self.revisions.borrow_and_update();
            match self.shared.store.read(|state| state.since(self.seen)) {
                Past::Forgotten(oldest) => self.expire(oldest),
                Past::Changes(changes) if changes.is_empty() => self.wait().await,
                Past::Changes(changes) => self.show(&changes),
            }
        }
    }

    fn show(&mut self, changes: &[Change]) {
        for change in changes {
            self.seen = change.revision;
            if let Some(line) = self.event(change) {
                self.ready.push_back(line);
            }
        }
    }

    async fn wait(&mut self) {
        let now = Instant::now();
        let quiet = (now + BOOKMARK_INTERVAL).min(self.ends);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => self.over = true,
            _ = self.generation.changed() => self.over = true,
            changed = self.revisions.changed() => self.over = changed.is_err(),
            () = tokio::time::sleep_until(quiet) => {
                self.over = quiet == self.ends;
                if self.bookmarks {
                    let bookmark = self.bookmark(json!({}));
                    self.ready.push_back(bookmark);
                }
            }
        }
    }

    fn expire(&mut self, oldest: u64) {
        let status = ApiError::gone(self.seen, oldest).to_status();
        self.ready
            .push_back(encode(&json!({"type": "ERROR", "object": status})));
        self.over = true;
    }

    /// What a change looks like through the filter: an object that stops matching is deleted for the reader.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let same_kind = std::ptr::eq(change.kind, self.filter.kind);
        let inside = self
            .filter
            .namespace
            .as_ref()
            .is_none_or(|only| *only == change.namespace);
        if !same_kind || !inside {
            return None;
        }
        let matching = |object: &Option<Arc<Value>>| object.clone().filter(|o| self.filter.selects(o));
        match (matching(&change.before), matching(&change.after)) {
            (None, Some(after)) => Some(self.line("ADDED", &after)),
            (Some(_), Some(after)) => Some(self.line("MODIFIED", &after)),
            (Some(before), None) => {
                let mut last = Value::clone(&before);
                json::set(
                    &mut last,
                    &["metadata", "resourceVersion"],
                    change.revision.to_string(),
                );
                Some(self.line("DELETED", &last))
            }
            (None, None) => None,
        }
    }

    fn line(&self, kind: &str, object: &Value) -> Bytes {
        let object = present(object, self.filter.kind, self.version);
        encode(&json!({"type": kind, "object": object}))
    }

    fn bookmark(&self, annotations: Value) -> Bytes {
        let mut object = json!({
            "kind": self.filter.kind.kind,
            "apiVersion": self.filter.kind.api_version(self.version),
            "metadata": {"resourceVersion": self.seen.to_string(), "creationTimestamp": null},
        });
        if annotations.as_object().is_some_and(|map| !map.is_empty()) {
            json::set(&mut object, &["metadata", "annotations"], annotations);
        }
        encode(&json!({"type": "BOOKMARK", "object": object}))
    }
}

fn encode(event: &Value) -> Bytes {
    let mut line = event.to_string();
    line.push('\n');
    Bytes::from(line)
}
