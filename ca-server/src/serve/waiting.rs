//! Calls that wait for the rest of their message. What they hold meanwhile is a stranger's, so there are
//! only so many places for them: in all, and of one address. A message that comes at once needs none.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::{Metrics, Outcomes};
use crate::shares::{Share, Shares};

/// Most such calls. Each holds one list of headers and one message, at their longest about a hundred
/// kilobytes together.
const MOST: usize = 512;
/// Most of one address: more than one connection has calls.
const MOST_OF_ONE: usize = 128;

/// There is no place to wait.
#[derive(Debug)]
pub(super) struct NoPlace;

/// The places of this process.
#[derive(Clone)]
pub(super) struct Waiting(Arc<Places>);

struct Places {
    shares: Shares,
    refused: Outcomes,
}

impl Waiting {
    pub(super) fn new(refused: Outcomes) -> Self {
        let shares = Shares::new(MOST, MOST_OF_ONE);
        Self(Arc::new(Places { shares, refused }))
    }

    /// For one call, which has not waited yet.
    pub(super) fn call(&self, peer: Option<SocketAddr>) -> Wait {
        Wait {
            places: Arc::clone(&self.0),
            peer,
            held: None,
        }
    }
}

/// One call's place, once it had to wait; given back on drop.
pub(super) struct Wait {
    places: Arc<Places>,
    peer: Option<SocketAddr>,
    held: Option<Share>,
}

impl Wait {
    /// The rest is not there yet.
    pub(super) fn begin(&mut self) -> Result<(), NoPlace> {
        if self.held.is_some() {
            return Ok(());
        }
        match self.places.shares.take(self.peer.map(|peer| peer.ip())) {
            Ok(place) => {
                self.held = Some(place);
                Ok(())
            }
            Err(taken) => {
                let reason = taken.full.as_str();
                Metrics::count(&self.places.refused, reason);
                if taken.first {
                    let peer = self.peer.map(tracing::field::display);
                    tracing::warn!(
                        peer.addr = peer,
                        reason,
                        "calls refused: too many wait for the rest of their message"
                    );
                }
                Err(NoPlace)
            }
        }
    }

    /// Everything is there.
    pub(super) fn end(&mut self) {
        self.held = None;
    }
}
