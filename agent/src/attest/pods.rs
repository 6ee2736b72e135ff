//! The pods of this node: what is known of them, and what that means for a container that asks.
//!
//! | module | owns |
//! |---|---|
//! | [`api`] | the client of watches, bounded |
//! | [`facts`] | what is taken from a Pod object |
//! | [`index`] | the pods by uid; one event in, what ended out: pure |
//! | [`verdict`] | what the index says of a container, and whether it can know: pure |
//! | [`watch`] | the one field-selected watch that feeds the index |

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::index::Index;

pub mod api;
pub mod facts;
pub mod index;
pub mod verdict;
pub mod watch;

/// What is known now.
#[derive(Clone, Debug)]
pub struct View {
    /// The pods.
    pub index: Arc<Index>,
    /// Until when nothing can have been missed: the end of the last complete list. An event may be of long ago.
    /// `None` until there was a list.
    pub known_as_of: Option<Instant>,
}

impl View {
    /// Nothing yet.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            index: Arc::new(Index::default()),
            known_as_of: None,
        }
    }
}

/// The reader's end of the watch.
#[derive(Clone, Debug)]
pub struct Reader {
    /// What is known; changes of it wake.
    pub view: tokio::sync::watch::Receiver<View>,
    /// Asks for a fresh list.
    pub relist: Arc<Notify>,
}
