//! Over each stream of an HTTP/2 connection somebody watches who is woken even while nobody else is.
//!
//! A client that opens no window has its answers held, and with them a place at the upstream, and a connection. The
//! stream waits for the window then and for nothing else: the answer's body is not asked for more, so no deadline in
//! there would ever be looked at. The guard stands around the stream: when the client does not take a piece in time,
//! or the request is too long under way, or nobody says anything any more, it drops the stream. That resets it, and
//! gives everything back that it held.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::flow::{Flow, Turn, Verdict};
use super::limits::HttpLimits;
use super::pace::Pace;

/// Runs the streams of one connection, each with its guard.
#[derive(Clone, Debug)]
pub struct Streams {
    /// The flow of the request that was just handed over: its stream is begun next.
    next: Arc<Mutex<Option<Arc<Flow>>>>,
    patience: Patience,
}

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The client, for each piece that it is to take.
    pub stall: Duration,
    /// Both, without a word.
    pub silence: Duration,
}

impl Streams {
    /// Within these bounds.
    #[must_use]
    pub fn new(limits: &HttpLimits) -> Self {
        Self {
            next: Arc::default(),
            patience: Patience {
                stall: limits.write_stall,
                silence: limits.stream_idle,
            },
        }
    }

    /// The flow of a request that has just come. Its stream is handed to [`hyper::rt::Executor::execute`] before the
    /// next one comes.
    #[must_use]
    pub fn begin(&self) -> Arc<Flow> {
        let flow = Arc::new(Flow::new(true));
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&flow));
        flow
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let flow = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        // They end with their connection, which fails all of its streams.
        match flow {
            Some(flow) => drop(tokio::spawn(Guarded::new(stream, flow, self.patience))),
            None => drop(tokio::spawn(stream)),
        }
    }
}

/// A stream with its guard.
struct Guarded<F> {
    stream: Option<Pin<Box<F>>>,
    flow: Arc<Flow>,
    guard: Guard,
    /// None while there is nothing to wait for: most streams never need one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F> Guarded<F> {
    fn new(stream: F, flow: Arc<Flow>, patience: Patience) -> Self {
        Self {
            stream: Some(Box::pin(stream)),
            flow,
            guard: Guard::new(patience),
            timer: None,
        }
    }
}

impl<F: Future<Output = ()>> Future for Guarded<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(());
        };
        // Before it looks, so that nothing is missed that happens after.
        this.flow.is_watched(cx);
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let due = match this.guard.look(&this.flow, Instant::now()) {
                Ok(Some(due)) => due,
                Ok(None) => return Poll::Pending,
                Err(verdict) => {
                    this.flow.give_up(verdict);
                    this.stream = None;
                    return Poll::Ready(());
                }
            };
            let timer = this
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            // A deadline that moved away is found out when the old one comes: cheaper than moving it each time.
            if due < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// What a guard remembers of its stream between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    patience: Patience,
    pace: Pace,
    /// Since when the client is waited for.
    since: Option<Instant>,
    /// Bytes of the answer that it was handed then.
    seen: u64,
    /// Since when nothing was said, and how much had been until then.
    quiet: Option<(Instant, u64, u64)>,
}

impl Guard {
    /// With this patience.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            pace: Pace::default(),
            since: None,
            seen: 0,
            quiet: None,
        }
    }

    /// When to look again, if at all before something moves.
    ///
    /// # Errors
    /// Why the stream is to be given up.
    pub fn look(&mut self, flow: &Flow, now: Instant) -> Result<Option<Instant>, Verdict> {
        if let Some(verdict @ Verdict::Withdrawn) = flow.verdict() {
            return Err(verdict);
        }
        let turn = flow.turn();
        let (due, verdict, late) = match turn {
            Turn::Ours => return Ok(None),
            Turn::Client => (self.client_due(flow, now), Verdict::Stalled, Verdict::LateClient),
            Turn::Upstream => (self.word_due(flow, now), Verdict::Silent, Verdict::LateUpstream),
        };
        let until = flow.until();
        if until.is_some_and(|until| until <= now) {
            return Err(late);
        }
        if due <= now {
            return Err(verdict);
        }
        Ok(Some(until.map_or(due, |until| until.min(due))))
    }

    /// When the client must have taken what it was handed.
    fn client_due(&mut self, flow: &Flow, now: Instant) -> Instant {
        self.quiet = None;
        let handed = flow.handed_over();
        if self.since.is_none() || handed != self.seen {
            self.client_moved(now);
            self.pace.moved(handed.saturating_sub(self.seen));
            self.seen = handed;
            self.since = Some(now);
        }
        self.since.unwrap_or(now) + self.pace.left(self.patience.stall)
    }

    fn client_moved(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.pace.waited(now.saturating_duration_since(since));
        }
    }

    /// When somebody must have said something.
    fn word_due(&mut self, flow: &Flow, now: Instant) -> Instant {
        self.client_moved(now);
        let (received, handed) = (flow.bytes(), flow.handed_over());
        let since = match self.quiet {
            Some((since, seen, told)) if (seen, told) == (received, handed) => since,
            _ => {
                self.quiet = Some((now, received, handed));
                now
            }
        };
        since + self.patience.silence
    }
}

#[cfg(test)]
mod tests;
