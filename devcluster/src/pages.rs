//! Listings in pages. A page goes on after the last object of the one before; unlike a real server's it shows
//! what there is now. Its version is that of the first page, so a watch from there tells of every change since.

use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use crate::json;
use crate::query::Query;
use crate::status::ApiError;
use crate::store::{Key, Past, State};
use crate::verbs::Filter;

/// One page.
pub(crate) struct Page {
    pub(crate) revision: u64,
    pub(crate) objects: Vec<Arc<Value>>,
    /// What to ask for the next one with, if there is one.
    pub(crate) next: Option<String>,
}

impl Page {
    /// The page a query asks for.
    pub(crate) fn of(state: &State, filter: &Filter, query: &Query) -> Result<Self, ApiError> {
        let (revision, first) = match read(&query.next)? {
            None => {
                let namespace = filter.namespace.as_deref().unwrap_or_default();
                (
                    state.revision(),
                    Bound::Included(Key::new(filter.kind, namespace, "")),
                )
            }
            Some((revision, namespace, name)) => {
                if let Past::Forgotten(oldest) = state.since(revision) {
                    return Err(ApiError::gone(revision, oldest));
                }
                (revision, Bound::Excluded(Key::new(filter.kind, namespace, name)))
            }
        };
        let most = if query.limit == 0 { usize::MAX } else { query.limit };
        let found = state.list_from(filter.kind, filter.namespace.as_deref(), first);
        let mut found = found.filter(|object| filter.selects(object));
        let objects: Vec<Arc<Value>> = found.by_ref().take(most).cloned().collect();
        let more = found.next().is_some();
        let next = objects.last().filter(|_| more).map(|last| {
            let namespace = json::text(last, "/metadata/namespace").unwrap_or_default();
            format!("{revision}:{namespace}/{}", json::name(last))
        });
        Ok(Page {
            revision,
            objects,
            next,
        })
    }
}

fn read(token: &str) -> Result<Option<(u64, &str, &str)>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    let parts = || {
        let (revision, place) = token.split_once(':')?;
        let (namespace, name) = place.split_once('/')?;
        Some((revision.parse().ok()?, namespace, name))
    };
    let bad = || ApiError::bad_request(format!("continue key is not valid: {token:?}"));
    parts().map(Some).ok_or_else(bad)
}
