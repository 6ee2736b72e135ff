//! Drives one stream: waits for a message, a snapshot, the end of patience or shutdown, and does what
//! the machine says. It needs no task and no queue of its own: the connection polls it.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::streams::Entry;
use super::{Closing, MAX_REQUEST_BYTES, Machine, PATIENCE, Step, status};
use crate::ca_client::bounded;
use crate::rotator::Status as RotationStatus;
use crate::svids::Reader;

/// The answers of one stream.
pub type Responses<M> = Pin<Box<dyn Stream<Item = Result<<M as Machine>::Response, Status>> + Send>>;

/// What a stream listens to besides its client.
pub struct Ways {
    /// The shelf.
    pub snapshots: Reader,
    /// Why there is no SVID, if there is none.
    pub status: watch::Receiver<Arc<RotationStatus>>,
    /// The word that ends it.
    pub shutdown: CancellationToken,
}

struct Live<M: Machine> {
    machine: M,
    incoming: Streaming<M::Request>,
    ways: Ways,
    entry: Entry,
    patience_ends: Option<Instant>,
}

/// The answers to `incoming`.
pub fn responses<M: Machine>(
    machine: M,
    incoming: Streaming<M::Request>,
    ways: Ways,
    entry: Entry,
) -> Responses<M> {
    let live = Live {
        machine,
        incoming,
        ways,
        entry,
        patience_ends: None,
    };
    Box::pin(futures::stream::unfold(Some(live), |live| async {
        let mut live = live?;
        match live.next().await {
            Next::Send(response) => Some((Ok(response), Some(live))),
            Next::Fail(closing) => Some((Err(status(&closing)), None)),
            Next::End => None,
        }
    }))
}

enum Next<R> {
    Send(R),
    Fail(Closing),
    End,
}

impl<M: Machine> Live<M> {
    async fn next(&mut self) -> Next<M::Response> {
        loop {
            let patience_ends = self.patience_ends;
            let step = tokio::select! {
                biased;
                () = self.ways.shutdown.cancelled() => return Next::Fail(shutting_down()),
                message = self.incoming.message() => match message {
                    Ok(Some(request)) => {
                        // Not marked as seen: a message that is ignored must not hide a change.
                        let snapshot = Arc::clone(&self.ways.snapshots.borrow());
                        self.machine.receive(request, &snapshot)
                    }
                    Ok(None) => return Next::End,
                    Err(error) => match unreadable(&error) {
                        Some(closing) => Step::Close(closing),
                        None => {
                            // Envoy's end arrives as a broken pipe: the normal end of a stream.
                            tracing::debug!(%error, "sds stream ended by its client");
                            return Next::End;
                        }
                    },
                },
                changed = self.ways.snapshots.changed() => {
                    if changed.is_err() {
                        return Next::Fail(shutting_down());
                    }
                    let snapshot = Arc::clone(&self.ways.snapshots.borrow_and_update());
                    self.machine.refresh(&snapshot)
                }
                () = tokio::time::sleep_until(patience_ends.unwrap_or_else(Instant::now)),
                    if patience_ends.is_some() =>
                {
                    let cause = self.ways.status.borrow().cause();
                    Step::Close(self.machine.book().give_up(&cause))
                }
            };
            self.entry.update(self.machine.book());
            self.be_patient();
            match step {
                Step::Send(response) => {
                    self.entry.pushed();
                    return Next::Send(response);
                }
                Step::Close(closing) => {
                    self.entry.refused(&closing, self.machine.book().node());
                    return Next::Fail(closing);
                }
                Step::Wait => {}
            }
        }
    }

    /// Patience starts with the first name that has to wait and ends when none has.
    fn be_patient(&mut self) {
        let book = self.machine.book();
        if book.awaits_answer() || book.waiting().is_empty() {
            self.patience_ends = None;
        } else {
            self.patience_ends
                .get_or_insert_with(|| Instant::now() + PATIENCE);
        }
    }
}

/// The reason to close when a message came and could not be read, as against a connection that ended:
/// that one has a cause below it.
fn unreadable(error: &Status) -> Option<Closing> {
    match error.code() {
        Code::OutOfRange => {
            let text = format!("a request may have at most {MAX_REQUEST_BYTES} bytes");
            Some(Closing {
                code: Code::ResourceExhausted,
                reason: "too_large",
                text,
            })
        }
        Code::Internal if std::error::Error::source(error).is_none() => {
            let text = format!("request cannot be read: {}", bounded(error.message()));
            Some(Closing {
                code: Code::InvalidArgument,
                reason: "malformed",
                text,
            })
        }
        _ => None,
    }
}

fn shutting_down() -> Closing {
    let text = "the agent is shutting down; secrets stay valid, connect again".to_owned();
    Closing {
        code: Code::Unavailable,
        reason: "shutdown",
        text,
    }
}
