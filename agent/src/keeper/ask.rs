//! What an operator may ask of the keeper.

use signet_certs::{SpiffeId, UnixTime};
use signet_runtime::clock::rfc3339;
use tokio::sync::oneshot;

use super::{Keeper, draw};
use crate::ca_client::Failure;
use crate::rotation::Event;
use crate::svids::Whose;

/// Most operators kept waiting at once for one identity.
const MAX_ASKERS: usize = 16;

/// Why an operator's request for a renewal came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The floor after the last success is not over.
    #[error("the last SVID is too young: the next may be asked for at {}", rfc3339(*.0))]
    TooSoon(UnixTime),
    /// No SVID of this identity is kept.
    #[error("this agent keeps no SVID of {0}")]
    Unknown(SpiffeId),
    /// Several are kept, and none was named.
    #[error("this agent keeps {0} SVIDs; name the one to renew by its SPIFFE ID")]
    Which(usize),
    /// Nobody uses the identity any more, or its keeping ended before the outcome.
    #[error("no workload of this identity is left")]
    Gone,
    /// The request failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Where an operator hears the outcome: whose SVID is new, or why none is.
pub type Reply = oneshot::Sender<Result<Whose, AskError>>;

/// An operator's request for a renewal.
#[derive(Debug)]
pub struct Ask {
    /// Of which identity; may be left out where there is one.
    pub id: Option<SpiffeId>,
    /// Answered when the outcome is known.
    pub reply: Reply,
}

impl Keeper {
    pub(super) fn take_ask(&mut self, Ask { id, reply }: Ask) {
        let whose = match id {
            None => match self.kept.len() {
                1 => self.kept.keys().next().cloned().ok_or(AskError::Which(0)),
                several => Err(AskError::Which(several)),
            },
            Some(id) => self.whose(&id).ok_or(AskError::Unknown(id)),
        };
        let whose = match whose {
            Ok(whose) if self.roster.lingers(&whose) => Err(AskError::Gone),
            other => other,
        };
        match whose {
            Err(error) => {
                let _ = reply.send(Err(error));
            }
            Ok(whose) => {
                if let Some(kept) = self.kept.get_mut(&whose)
                    && kept.askers.len() < MAX_ASKERS
                {
                    kept.askers.push(reply);
                }
                let now = self.parts.clock.now();
                self.roster.tell(&whose, Event::Asked, now, draw());
            }
        }
    }

    fn whose(&self, id: &SpiffeId) -> Option<Whose> {
        let known = self.parts.shelves.shelves().all();
        let place = known.into_iter().find(|place| place.id.as_ref() == Some(id));
        place.map(|place| place.whose)
    }
}
