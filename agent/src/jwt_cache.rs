//! JWT-SVIDs of this node's workloads: fetched from the CA when first asked for, kept until half of
//! their life is over, handed out to every caller who may have them.
//!
//! [`shelf`] decides what is kept; this file fetches. However many callers wait for one token, the CA
//! is asked once. A token that is still good is handed out when a newer one cannot be had (I7), and
//! only one that verified under the bundle served beside it is handed out at all (I6).

pub mod shelf;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use signet_certs::jwt::JwtSvid;
use signet_certs::lifetime::plus;
use signet_certs::{SpiffeId, TrustBundle};
use signet_runtime::Clock;
use tokio::sync::{Semaphore, watch};
use zeroize::Zeroizing;

use crate::attest::Wanted;
use crate::ca_client::{CaClient, Failure, FailureKind};
use crate::metrics::Metrics;
use crate::svids::{Shelves, Whose};
pub use shelf::{Bounds, Found, Key, Shelf};

/// Most that is held: a token has about half a KiB, a node some hundred identities with a few
/// audiences each.
const BOUNDS: Bounds = Bounds {
    entries: 8_192,
    entries_of_one: 128,
    bytes: 16 * 1024 * 1024,
    failures: 1_024,
};
/// Tokens asked for at once.
const MAX_PARALLEL: usize = 8;
/// Tokens waited for at once.
const MAX_FLIGHTS: usize = 512;
/// Of one identity, so that nobody's audiences crowd out everybody else's.
const MAX_FLIGHTS_OF_ONE: usize = 32;
/// Longest wait for one of the [`MAX_PARALLEL`] places.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// The CA is not asked again for the same token sooner than this after it failed to give it.
const SILENCE: Duration = Duration::from_secs(1);
/// Nor later than this, whatever it asks for.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// How long changes are gathered before they are acted on.
const SETTLE: Duration = Duration::from_secs(1);
/// How often what is over is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Where tokens come from.
pub trait Mint: Send + Sync {
    /// One token of `id`, or of the agent itself, for these audiences.
    fn mint<'a>(
        &'a self,
        whose: &'a Whose,
        audience: &'a [String],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>>;
}

impl Mint for CaClient {
    fn mint<'a>(
        &'a self,
        whose: &'a Whose,
        audience: &'a [String],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        let id = match whose {
            Whose::Own => None,
            Whose::Of(id) => Some(id),
        };
        self.mint_jwt(id, audience, ttl).boxed()
    }
}

/// The token somebody asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whose token.
    pub whose: Whose,
    /// The name it must bear.
    pub id: SpiffeId,
    /// For whom it must be; at least one.
    pub audience: Vec<String>,
}

type Answer = Result<Arc<JwtSvid>, Failure>;
type Flight = Shared<BoxFuture<'static, Answer>>;

/// The cache. Clones share it.
#[derive(Clone)]
pub struct JwtCache(Arc<Inner>);

struct Inner {
    mint: Arc<dyn Mint>,
    shelves: Shelves,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    places: Semaphore,
    state: Mutex<State>,
}

struct State {
    shelf: Shelf,
    flights: BTreeMap<Key, WeakShared<BoxFuture<'static, Answer>>>,
}

impl std::fmt::Debug for JwtCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.lock();
        write!(f, "JwtCache({} tokens)", state.shelf.len())
    }
}

impl JwtCache {
    /// An empty cache of tokens that live for `ttl`, verified under the bundles of `shelves`.
    #[must_use]
    pub fn new(
        mint: Arc<dyn Mint>,
        shelves: Shelves,
        ttl: Duration,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            mint,
            shelves,
            ttl,
            clock,
            metrics,
            places: Semaphore::new(MAX_PARALLEL),
            state: Mutex::new(State {
                shelf: Shelf::new(BOUNDS),
                flights: BTreeMap::new(),
            }),
        }))
    }

    /// A token as asked for, from here or from the CA. The caller has proven that it may have it.
    ///
    /// # Errors
    /// A [`Failure`].
    pub async fn token(&self, ask: Ask) -> Answer {
        let key = Key::new(&ask.whose, &ask.audience);
        let inner = &self.0;
        let now = inner.clock.now();
        let kids = inner.kids();
        let aging = match inner.lock().shelf.get(&key, |kid| kids.hold(kid), now) {
            Found::Fresh(token) if *token.id() == ask.id => {
                inner.count("cached");
                return Ok(token);
            }
            Found::Aging(token) if *token.id() == ask.id => Some(token),
            _ => None,
        };
        match (self.fetch(key, ask, now).await, aging) {
            (Err(failure), Some(aging)) => {
                inner.count("aging");
                tracing::debug!(
                    error = %failure, spiffe_id = %aging.id(),
                    "no newer token; the last one is still good"
                );
                Ok(aging)
            }
            (answer, _) => answer,
        }
    }

    /// Asks the CA, or waits for whoever asked it already.
    async fn fetch(&self, key: Key, ask: Ask, now: signet_certs::UnixTime) -> Answer {
        let flight = {
            let mut state = self.0.lock();
            if let Some(failure) = state.shelf.failure(&key, now) {
                self.0.count("failed_lately");
                return Err(failure.clone());
            }
            match state.flights.get(&key).and_then(WeakShared::upgrade) {
                Some(flight) => {
                    self.0.count("joined");
                    flight
                }
                None => self.start(&mut state, key, ask)?,
            }
        };
        flight.await
    }

    fn start(&self, state: &mut State, key: Key, ask: Ask) -> Result<Flight, Failure> {
        let of_one = |state: &State| {
            let keys = state.flights.keys();
            keys.filter(|key| *key.whose() == ask.whose).count()
        };
        let full = |state: &State| state.flights.len() >= MAX_FLIGHTS || of_one(state) >= MAX_FLIGHTS_OF_ONE;
        if full(state) {
            // Of those whose callers have all gone, only the name is left.
            state.flights.retain(|_, flight| flight.upgrade().is_some());
        }
        if full(state) {
            self.0.count("too_many");
            let text = format!(
                "{MAX_FLIGHTS} tokens, or {MAX_FLIGHTS_OF_ONE} of this identity, are being waited for already"
            );
            return Err(Failure::new(FailureKind::Overloaded, text));
        }
        let inner = Arc::clone(&self.0);
        let flight = inner.fly(key.clone(), ask).boxed().shared();
        if let Some(weak) = flight.downgrade() {
            state.flights.insert(key, weak);
        }
        Ok(flight)
    }

    /// Drops tokens that are over, whose key was withdrawn or whose workload has gone; for ever.
    pub async fn keep_clean(self, mut wanted: watch::Receiver<Arc<Wanted>>) {
        let mut news = self.0.shelves.news();
        let mut may_change = true;
        loop {
            tokio::select! {
                _ = news.changed() => {}
                // Where nobody's wishes change there is no writer.
                changed = wanted.changed(), if may_change => may_change = changed.is_ok(),
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            // One sweep for all that changes at once.
            tokio::time::sleep(SETTLE).await;
            news.mark_unchanged();
            let wanted = Arc::clone(&wanted.borrow_and_update());
            self.0.sweep(&wanted);
        }
    }
}

impl Inner {
    /// One request to the CA and what it leaves behind.
    async fn fly(self: Arc<Self>, key: Key, ask: Ask) -> Answer {
        let answer = self.ask_ca(&ask).await;
        let now = self.clock.now();
        let mut state = self.lock();
        state.flights.remove(&key);
        match &answer {
            Ok(token) => {
                let evicted = state.shelf.put(key, Arc::clone(token), now);
                drop(state);
                self.count("fetched");
                (0..evicted).for_each(|_| self.count("evicted"));
            }
            Err(failure) => {
                let silence = failure
                    .retry_after
                    .unwrap_or(SILENCE)
                    .clamp(SILENCE, LONGEST_SILENCE);
                state
                    .shelf
                    .put_failure(key, failure.clone(), now, plus(now, silence));
                drop(state);
                self.count("failed");
                tracing::warn!(
                    error = %failure, reason = failure.kind.code(), spiffe_id = %ask.id,
                    "no token from the CA"
                );
            }
        }
        answer
    }

    async fn ask_ca(&self, ask: &Ask) -> Answer {
        let place = tokio::time::timeout(QUEUE_PATIENCE, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            let text = "the CA takes too long over other tokens".to_owned();
            return Err(Failure::new(FailureKind::Overloaded, text));
        };
        let token = self.mint.mint(&ask.whose, &ask.audience, self.ttl).await?;
        let trust = self.shelves.trust();
        JwtSvid::receive(
            Zeroizing::new(token),
            &ask.id,
            &ask.audience,
            trust.bundles(),
            self.clock.now(),
        )
        .map(Arc::new)
        .map_err(|fault| {
            Failure::new(
                FailureKind::BadAnswer,
                format!("the CA sent a token that is not good here: {fault}"),
            )
        })
    }

    fn sweep(&self, wanted: &Wanted) {
        let kids = self.kids();
        let in_use = |whose: &Whose| match whose {
            Whose::Own => true,
            Whose::Of(id) => !wanted.synced || wanted.ids.contains_key(id),
        };
        let now = self.clock.now();
        self.lock().shelf.sweep(|kid| kids.hold(kid), in_use, now);
    }

    fn kids(&self) -> Kids {
        Kids(self.shelves.trust().own().cloned())
    }

    fn count(&self, outcome: &'static str) {
        Metrics::count(&self.metrics.jwt_cache, outcome);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of the keys that sign our trust domain's tokens now.
struct Kids(Option<Arc<TrustBundle>>);

impl Kids {
    fn hold(&self, kid: &str) -> bool {
        let keys = self.0.iter().flat_map(|bundle| bundle.jwt_keys());
        keys.into_iter().any(|key| key.kid() == kid)
    }
}

#[cfg(test)]
mod tests;
