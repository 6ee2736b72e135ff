//! Drives one stream: waits for a message, a change, the end of patience, of the client's entitlement or
//! of the agent, and does what the machine says. It needs no task and no queue of its own: the connection polls it.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::streams::Entry;
use super::{Closing, MAX_REQUEST_BYTES, Machine, PATIENCE, Step, status};
use crate::attest::{AttestError, Attestor, Peer, Workload};
use crate::ca_client::bounded;
use crate::svids::View;

/// The answers of one stream.
pub type Responses<M> = Pin<Box<dyn Stream<Item = Result<<M as Machine>::Response, Status>> + Send>>;

/// Whose stream it is, and what it listens to besides its messages.
pub struct Client {
    /// What it may see.
    pub view: View,
    /// Who says what it may have.
    pub attestor: Attestor,
    /// The process.
    pub peer: Peer,
    /// What it was attested as.
    pub workload: Arc<Workload>,
    /// The word that ends the stream.
    pub shutdown: CancellationToken,
}

impl Client {
    /// Whether its entitlement still holds: before each message.
    pub(crate) fn recheck(&self) -> Result<(), Closing> {
        Ok(self.attestor.recheck(&self.peer, &self.workload)?)
    }

    /// The end of the process or of what it may have. Made once: a wait for it keeps its place.
    pub(crate) fn ended(&self) -> Ended {
        ended(&self.attestor, &self.peer, &self.workload)
    }
}

/// The end of the process or of what it may have.
pub(crate) fn ended(attestor: &Attestor, peer: &Peer, workload: &Arc<Workload>) -> Ended {
    let (attestor, peer, workload) = (attestor.clone(), peer.clone(), workload.clone());
    Box::pin(async move { attestor.ended(&peer, &workload).await })
}

/// A wait for the end of a client's entitlement.
pub(crate) type Ended = Pin<Box<dyn Future<Output = AttestError> + Send>>;

struct Live<M: Machine> {
    machine: M,
    incoming: Streaming<M::Request>,
    client: Client,
    ended: Ended,
    entry: Entry,
    patience_ends: Option<Instant>,
}

/// The answers to `incoming`.
pub fn responses<M: Machine>(
    machine: M,
    incoming: Streaming<M::Request>,
    client: Client,
    entry: Entry,
) -> Responses<M> {
    let live = Live {
        machine,
        incoming,
        ended: client.ended(),
        client,
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

/// What a stream waited for.
enum Heard<R> {
    Message(R),
    Change,
    TooLong,
    Fault(Closing),
    Shutdown,
    End,
}

enum Next<R> {
    Send(R),
    Fail(Closing),
    End,
}

impl<M: Machine> Live<M> {
    async fn next(&mut self) -> Next<M::Response> {
        loop {
            let step = match self.wait().await {
                Heard::Message(request) => self.machine.receive(request, &self.client.view.current()),
                Heard::Change => self.machine.refresh(&self.client.view.current()),
                Heard::TooLong => {
                    let cause = self.client.view.current().cause();
                    Step::Close(self.machine.book().give_up(&cause))
                }
                Heard::Fault(closing) => Step::Close(closing),
                Heard::Shutdown => return Next::Fail(shutting_down()),
                Heard::End => return Next::End,
            };
            self.entry.update(self.machine.book());
            self.be_patient();
            match step {
                Step::Send(response) => match self.client.recheck() {
                    Ok(()) => {
                        self.entry.pushed();
                        return Next::Send(response);
                    }
                    Err(closing) => return self.refuse(closing),
                },
                Step::Close(closing) => return self.refuse(closing),
                Step::Wait => {}
            }
        }
    }

    fn refuse(&mut self, closing: Closing) -> Next<M::Response> {
        self.entry.refused(&closing, self.machine.book().node());
        Next::Fail(closing)
    }

    async fn wait(&mut self) -> Heard<M::Request> {
        let patience_ends = self.patience_ends;
        tokio::select! {
            biased;
            () = self.client.shutdown.cancelled() => Heard::Shutdown,
            gone = &mut self.ended => Heard::Fault(gone.into()),
            message = self.incoming.message() => match message {
                Ok(Some(request)) => Heard::Message(request),
                Ok(None) => Heard::End,
                Err(error) => match unreadable(&error, MAX_REQUEST_BYTES) {
                    Some(closing) => Heard::Fault(closing),
                    None => {
                        // Envoy's end arrives as a broken pipe: the normal end of a stream.
                        tracing::debug!(%error, "sds stream ended by its client");
                        Heard::End
                    }
                },
            },
            () = self.client.view.changed() => Heard::Change,
            () = tokio::time::sleep_until(patience_ends.unwrap_or_else(Instant::now)),
                if patience_ends.is_some() => Heard::TooLong,
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
pub(crate) fn unreadable(error: &Status, most: usize) -> Option<Closing> {
    match error.code() {
        Code::OutOfRange => {
            let text = format!("a request may have at most {most} bytes");
            Some(Closing {
                code: Code::ResourceExhausted,
                reason: "too_large",
                text,
            })
        }
        Code::ResourceExhausted if is_our_word(error) => Some(Closing {
            code: Code::ResourceExhausted,
            reason: "no_room",
            text: bounded(error.message()),
        }),
        Code::Internal if error.source().is_none() => {
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

/// Whether a message was turned away here ([`crate::calls`]), and is not what HTTP/2 says of a connection.
fn is_our_word(error: &Status) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error
            .downcast_ref::<Status>()
            .is_some_and(|word| word.source().is_none())
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The end of every stream at the end of the agent.
#[must_use]
pub fn shutting_down() -> Closing {
    let text = "the agent is shutting down; secrets stay valid, connect again".to_owned();
    Closing {
        code: Code::Unavailable,
        reason: "shutdown",
        text,
    }
}
