//! The loop that keeps the SVIDs fresh: it waits for time, bundles, wishes, answers and operators, and
//! does what [`roster`](crate::roster) decides. It holds no decisions of its own.

mod answer;
mod ask;
mod report;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{AbortHandle, Aborted, abortable};
use futures::stream::FuturesUnordered;
use signet_certs::UnixTime;
use signet_certs::lifetime::{Jitter, until};
use signet_runtime::Clock;
use signet_runtime::backoff::random_share;
use signet_runtime::clock::LONGEST_NAP;
use signet_runtime::http::Readiness;
use tokio::sync::{mpsc, watch};

use crate::attest::Wanted;
use crate::ca_client::{CaClient, Failure};
use crate::metrics::Metrics;
use crate::roster::{Deed, Roster};
use crate::rotation::{Chance, Event};
use crate::svids::{Keeping, Trust, Verified, Whose};
pub use ask::{Ask, AskError, Reply};
use report::Report;
use request::{Fresh, Requester};

/// Name of the readiness condition of an agent that keeps its own SVID.
pub const READY: &str = "svid";
/// Name of the readiness condition of an agent that follows the pods of its node.
pub const PODS: &str = "pods";

/// What the loop is given.
pub struct Parts {
    /// The CA.
    pub ca: CaClient,
    /// The life asked for.
    pub ttl: Duration,
    /// The newest bundles.
    pub trust: watch::Receiver<Option<Arc<Trust>>>,
    /// The identities in use on this node; nothing when the agent keeps its own.
    pub wanted: Option<watch::Receiver<Arc<Wanted>>>,
    /// Where SVIDs go.
    pub shelves: Keeping,
    /// Where operators ask.
    pub asks: mpsc::Receiver<Ask>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where outcomes are counted.
    pub metrics: Metrics,
    /// Told what is there and what is not.
    pub readiness: Readiness,
}

type Outcome = (Whose, Result<Result<Fresh, Failure>, Aborted>);
type Answer = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One identity that is kept.
#[derive(Default)]
struct Kept {
    held: Option<Verified>,
    request: Option<AbortHandle>,
    askers: Vec<Reply>,
    /// A success is told to those who asked once the SVID is out.
    owes_success: bool,
    serving: bool,
}

/// The loop.
pub struct Keeper {
    parts: Parts,
    requester: Requester,
    roster: Roster<Whose>,
    kept: BTreeMap<Whose, Kept>,
    trust: Option<Arc<Trust>>,
    answers: FuturesUnordered<Answer>,
    report: Report,
}

/// What the loop waited for.
enum Heard {
    Trust,
    Wanted,
    Answer(Outcome),
    Ask(Ask),
    Time,
}

fn draw() -> Chance {
    Chance {
        jitter: Jitter::new(random_share()),
        backoff: random_share(),
    }
}

impl Keeper {
    /// Made of its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let requester = Requester {
            ca: parts.ca.clone(),
            domain: parts.shelves.shelves().domain().clone(),
            ttl: parts.ttl,
            trust: parts.trust.clone(),
            clock: Arc::clone(&parts.clock),
        };
        let own = parts.wanted.is_none();
        Self {
            report: Report::new(parts.metrics.clone(), own.then(|| parts.readiness.clone())),
            parts,
            requester,
            roster: Roster::default(),
            kept: BTreeMap::new(),
            trust: None,
            answers: FuturesUnordered::new(),
        }
    }

    /// Runs for ever; dropped at shutdown.
    pub async fn run(mut self) {
        match &mut self.parts.wanted {
            Some(wanted) => wanted.mark_changed(),
            None => {
                let now = self.parts.clock.now();
                self.roster.want(&BTreeSet::from([Whose::Own]), true, now);
            }
        }
        self.settle();
        loop {
            match self.wait().await {
                Heard::Trust => self.take_trust(),
                Heard::Wanted => self.take_wanted(),
                Heard::Answer((whose, Ok(outcome))) => self.take_answer(&whose, outcome),
                Heard::Answer((_, Err(Aborted))) => {}
                Heard::Ask(ask) => self.take_ask(ask),
                Heard::Time => {
                    self.roster.wake(self.parts.clock.now());
                    self.show_all();
                }
            }
            self.settle();
        }
    }

    /// What comes next. Bundles come before answers, so that a wider bundle is out before a leaf that
    /// needs it; and no nap is longer than the clock may be left unwatched.
    async fn wait(&mut self) -> Heard {
        let now = self.parts.clock.now();
        let nap = self.roster.wake_at().map_or(LONGEST_NAP, |at| until(at, now));
        tokio::select! {
            biased;
            Ok(()) = self.parts.trust.changed() => Heard::Trust,
            () = changed(&mut self.parts.wanted) => Heard::Wanted,
            Some(outcome) = self.answers.next() => Heard::Answer(outcome),
            Some(ask) = self.parts.asks.recv() => Heard::Ask(ask),
            () = tokio::time::sleep(nap.min(LONGEST_NAP)) => Heard::Time,
        }
    }

    /// Other bundles: every SVID is verified again, and what is served changes with them in one step.
    fn take_trust(&mut self) {
        let Some(trust) = self.parts.trust.borrow_and_update().clone() else {
            return;
        };
        let Some(own) = trust.own().cloned() else { return };
        let before = self.trust.as_ref().and_then(|trust| trust.own());
        let same_own = before.is_some_and(|before| Arc::ptr_eq(before, &own));
        self.trust = Some(Arc::clone(&trust));
        let now = self.parts.clock.now();
        if !same_own {
            for (whose, kept) in &mut self.kept {
                let usable_until = kept.held.as_mut().and_then(|held| {
                    let again = held.check_again(Arc::clone(&own), now);
                    *held = again
                        .inspect_err(|error| self.report.does_not_verify(held, error))
                        .ok()?;
                    Some(held.usable_until())
                });
                let event = Event::BundleChanged { usable_until };
                self.roster.tell(whose, event, now, draw());
            }
        }
        let served: Vec<_> = self.kept.keys().map(|w| (w.clone(), self.served(w))).collect();
        self.parts.shelves.put_trust(&trust, served);
    }

    fn take_wanted(&mut self) {
        let Some(wanted) = &mut self.parts.wanted else {
            return;
        };
        let wanted = Arc::clone(&wanted.borrow_and_update());
        let keys: BTreeSet<Whose> = wanted.ids.keys().cloned().map(Whose::Of).collect();
        let now = self.parts.clock.now();
        let refused = self.roster.want(&keys, wanted.synced, now);
        self.report.no_room(refused);
        if wanted.synced {
            self.parts.readiness.holds(PODS);
        }
    }

    /// Carries out what the roster wants done.
    fn settle(&mut self) {
        for deed in self.roster.take_deeds() {
            match deed {
                Deed::Keep(whose) => {
                    self.parts.shelves.keep(&whose);
                    self.kept.insert(whose, Kept::default());
                }
                Deed::Request(whose) => self.request(whose),
                Deed::Publish(whose) => self.publish(&whose),
                Deed::TooSoon(whose, when) => self.reply(&whose, &Err(AskError::TooSoon(when))),
                Deed::Drop(whose) => self.forget(&whose),
            }
        }
        let owed: Vec<Whose> = self
            .kept
            .iter_mut()
            .filter_map(|(whose, kept)| std::mem::take(&mut kept.owes_success).then(|| whose.clone()))
            .collect();
        for whose in owed {
            self.reply(&whose, &Ok(whose.clone()));
        }
        let served = self.kept.iter().filter(|(_, kept)| kept.serving);
        let ends = served.filter_map(|(_, kept)| kept.held.as_ref().map(Verified::usable_until));
        let now = self.parts.clock.now();
        self.report
            .gauges(&self.roster.counts(), ends.min(), self.roster.next_due(now), now);
    }

    fn request(&mut self, whose: Whose) {
        let Some(kept) = self.kept.get_mut(&whose) else {
            return;
        };
        let previous = kept.held.as_ref().map(|held| held.svid().id().clone());
        if whose == Whose::Own && previous.is_none() {
            // Until there is an SVID, the token's claim tells which SPIFFE ID may be asked for over SDS.
            if let Some(id) = self.parts.ca.claimed_identity() {
                self.parts.shelves.name(&whose, &id);
            }
        }
        let asked = self.requester.clone().request(whose.clone(), previous);
        let (answer, handle) = abortable(asked);
        kept.request = Some(handle);
        self.answers.push(Box::pin(async move { (whose, answer.await) }));
    }

    /// What is to be served of this identity.
    fn served(&self, whose: &Whose) -> Option<Verified> {
        let held = self.kept.get(whose)?.held.clone();
        held.filter(|_| self.roster.serves(whose))
    }

    fn publish(&mut self, whose: &Whose) {
        let served = self.served(whose);
        let serves = served.is_some();
        let Some(kept) = self.kept.get_mut(whose) else {
            return;
        };
        let before = std::mem::replace(&mut kept.serving, serves);
        self.parts.shelves.put(whose, served);
        match (before, serves) {
            (true, false) => self.report.withdrawn(&self.parts.shelves, whose),
            (_, true) => self.report.serves(),
            (false, false) => {}
        }
    }

    /// Drops an identity with its key; a request for it goes unanswered.
    fn forget(&mut self, whose: &Whose) {
        self.reply(whose, &Err(AskError::Gone));
        if let Some(request) = self.kept.remove(whose).and_then(|kept| kept.request) {
            request.abort();
        }
        self.parts.shelves.clear(whose);
        self.report.dropped(whose);
    }

    fn reply(&mut self, whose: &Whose, outcome: &Result<Whose, AskError>) {
        let Some(kept) = self.kept.get_mut(whose) else {
            return;
        };
        for asker in kept.askers.drain(..) {
            let _ = asker.send(outcome.clone());
        }
    }

    /// Tells when the next request of this identity is due.
    fn show(&self, whose: &Whose, now: UnixTime) {
        if let Some(due) = self.roster.due(whose, now).filter(|due| *due > now) {
            self.parts
                .shelves
                .tell(whose, |status| status.renews_at = Some(due));
        }
    }

    fn show_all(&self) {
        let now = self.parts.clock.now();
        for whose in self.roster.keys() {
            self.show(whose, now);
        }
    }
}

/// The next change of what is wanted; never where nobody says it.
async fn changed(wanted: &mut Option<watch::Receiver<Arc<Wanted>>>) {
    let changed = match wanted {
        Some(wanted) => wanted.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}
