//! One dial at a time: whoever waits while it fails shares the failure, instead of dialling in its turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SendFailure;

/// The turns to dial one upstream.
#[derive(Debug, Default)]
pub(super) struct Dialing {
    turn: tokio::sync::Mutex<()>,
    failures: Mutex<Failures>,
}

/// How often a dial failed, and how the last one did.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: Option<Arc<SendFailure>>,
}

/// The right to dial, as long as it is held.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    dialing: &'a Dialing,
    _turn: tokio::sync::MutexGuard<'a, ()>,
    /// What was waited for in vain.
    pub(super) awaited: Option<SendFailure>,
}

impl Dialing {
    /// Waits until nobody dials.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let before = self.failures().count;
        let turn = self.turn.lock().await;
        let failures = self.failures();
        let last = failures.last.as_ref().filter(|_| failures.count != before);
        Turn {
            dialing: self,
            _turn: turn,
            awaited: last.map(|last| SendFailure::Awaited(Arc::clone(last))),
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// The dial failed, for those who wait as well.
    pub(super) fn failed(self, failure: SendFailure) -> SendFailure {
        let failure = Arc::new(failure);
        let mut failures = self.dialing.failures();
        failures.count = failures.count.wrapping_add(1);
        failures.last = Some(Arc::clone(&failure));
        drop(failures);
        SendFailure::Awaited(failure)
    }
}
