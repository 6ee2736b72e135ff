//! Drives one stream: looks when something in sight changed, sends what the machine says, and ends it
//! when patience, the workload or the agent ends. It needs no task of its own: the connection polls it.

use std::pin::Pin;

use futures::Stream;
use tokio::time::Instant;
use tonic::Status;

use super::refusal::{not_ready, status};
use super::updates::{Content, Updates};
use crate::sds::serve::{Client, Ended, shutting_down};
use crate::sds::streams::Entry;
use crate::sds::{Closing, PATIENCE};

/// The messages of one stream.
pub type Messages<C> = Pin<Box<dyn Stream<Item = Result<<C as Content>::Message, Status>> + Send>>;

struct Live<C> {
    updates: Updates<C>,
    client: Client,
    ended: Ended,
    entry: Entry,
    patience_ends: Option<Instant>,
}

/// The messages for `client`, whose stream has the place `entry` in the table.
pub fn messages<C: Content>(client: Client, entry: Entry) -> Messages<C> {
    let live = Live {
        updates: Updates::<C>::default(),
        ended: client.ended(),
        client,
        entry,
        patience_ends: None,
    };
    Box::pin(futures::stream::unfold(Some(live), |live| async {
        let mut live = live?;
        match live.next().await {
            Ok(message) => {
                live.entry.pushed_version(&live.updates.version());
                Some((Ok(message), Some(live)))
            }
            Err(closing) => {
                live.entry.refused(&closing, "");
                Some((Err(status(&closing)), None))
            }
        }
    }))
}

impl<C: Content> Live<C> {
    async fn next(&mut self) -> Result<C::Message, Closing> {
        loop {
            // Before each message, and so before any part of one is made.
            self.client.recheck()?;
            if let Some(message) = self.updates.look(&self.client.view.current()) {
                self.patience_ends = None;
                return Ok(message);
            }
            self.be_patient();
            let patience_ends = self.patience_ends;
            tokio::select! {
                biased;
                () = self.client.shutdown.cancelled() => return Err(shutting_down()),
                gone = &mut self.ended => return Err(gone.into()),
                () = self.client.view.changed() => {}
                () = tokio::time::sleep_until(patience_ends.unwrap_or_else(Instant::now)),
                    if patience_ends.is_some() =>
                {
                    return Err(not_ready(&self.client.view.current().cause()));
                }
            }
        }
    }

    /// Patience starts with the first look that finds something missing and ends when nothing is.
    fn be_patient(&mut self) {
        if self.updates.lacking() {
            self.patience_ends
                .get_or_insert_with(|| Instant::now() + PATIENCE);
        } else {
            self.patience_ends = None;
        }
    }
}
