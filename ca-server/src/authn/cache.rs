//! Answers of reviews, by token hash: positive ones for at most a minute and never past the token's
//! end, negative ones for five seconds, in two bounded caches so that strangers cannot push out
//! friends. Failures to ask are never kept. Identical requests in flight share one review.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use moka::notification::RemovalCause;
use signet_certs::UnixTime;
use signet_certs::lifetime::plus;
use signet_policy::Caller;
use signet_runtime::Clock;
use tokio::sync::Semaphore;

use super::AuthnError;
use super::claims::Claims;
use super::review::{ReviewFault, Reviewer};
use super::token::{BearerToken, TokenHash as Key};
use crate::metrics::Metrics;

/// Longest a positive answer is kept: what a deleted pod's token is worth at most.
const POSITIVE: Duration = Duration::from_secs(60);
/// How long a negative answer is kept.
const NEGATIVE: Duration = Duration::from_secs(5);
/// How long an answer may serve requests that were in flight together, should the first of them have
/// left before it could clear it.
const SHARED: Duration = Duration::from_secs(1);
/// Most positive answers kept; about 200 bytes each.
const POSITIVES: u64 = 50_000;
/// Most negative answers kept.
const NEGATIVES: u64 = 5_000;
/// Most reviews under way or waiting, those included whose callers have left: a stranger may come and
/// leave faster than the API server answers. Each holds a token.
const MOST_REVIEWS: usize = 4_096;

type Answer = Result<Caller, ReviewFault>;

/// A cache whose full capacity is counted where it costs an answer (I8).
fn bounded<V>(most: u64, life: Duration, metrics: &Metrics) -> Cache<Key, V>
where
    V: Clone + Send + Sync + 'static,
{
    let outcomes = metrics.token_cache.clone();
    Cache::builder()
        .max_capacity(most)
        .time_to_live(life)
        .eviction_listener(move |_, _, cause| {
            if cause == RemovalCause::Size {
                Metrics::count(&outcomes, "evicted");
            }
        })
        .build()
}

/// Two caches and the way to the API server.
#[derive(Clone)]
pub struct TokenCache {
    reviewer: Reviewer,
    positive: Cache<Key, Arc<(Caller, UnixTime)>>,
    negative: Cache<Key, Arc<(ReviewFault, UnixTime)>>,
    in_flight: Cache<Key, Answer>,
    places: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl TokenCache {
    /// Empty caches in front of `reviewer`.
    #[must_use]
    pub fn new(reviewer: Reviewer, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self {
            reviewer,
            positive: bounded(POSITIVES, POSITIVE, &metrics),
            negative: bounded(NEGATIVES, NEGATIVE, &metrics),
            in_flight: Cache::builder()
                .max_capacity(POSITIVES)
                .time_to_live(SHARED)
                .build(),
            places: Arc::new(Semaphore::new(MOST_REVIEWS)),
            clock,
            metrics,
        }
    }

    /// The way to the API server.
    #[must_use]
    pub fn reviewer(&self) -> &Reviewer {
        &self.reviewer
    }

    /// A kept answer that still holds at `now`, a positive one with its end.
    pub async fn get(&self, key: Key, now: UnixTime) -> Option<Result<(Caller, UnixTime), AuthnError>> {
        if let Some(kept) = self.positive.get(&key).await
            && now < kept.1
        {
            self.count_hit();
            return Some(Ok((kept.0.clone(), kept.1)));
        }
        if let Some(kept) = self.negative.get(&key).await
            && now < kept.1
        {
            Metrics::count(&self.metrics.token_cache, "negative_hit");
            return Some(Err(AuthnError::Refused(kept.0.clone())));
        }
        Metrics::count(&self.metrics.token_cache, "miss");
        None
    }

    /// An answer of this cache served once more.
    pub fn count_hit(&self) {
        self.metrics.usual.known_token.inc();
    }

    /// Asks the API server, sharing one review between identical requests. The review runs in a task
    /// of its own, so that a caller who leaves does not take it along.
    ///
    /// # Errors
    /// An [`AuthnError`].
    pub async fn review(
        &self,
        token: &BearerToken,
        claims: &Claims,
        peer: Option<IpAddr>,
    ) -> Result<Caller, AuthnError> {
        let key = token.hash();
        let this = self.clone();
        let owned = BearerToken::new(token.expose());
        let claims = claims.clone();
        let shared = self.in_flight.try_get_with(key, async move {
            let place = Arc::clone(&this.places)
                .try_acquire_owned()
                .map_err(|_| AuthnError::Overloaded)?;
            let task = tokio::spawn(async move {
                let _place = place;
                let answer = this.reviewer.review(&owned, peer).await;
                let answer = match answer {
                    Ok(caller) if *caller.account() != claims.account => Err(ReviewFault::OtherAccount {
                        reviewed: caller.account().to_string(),
                        claimed: claims.account.to_string(),
                    }),
                    Ok(caller) => Ok(caller),
                    Err(AuthnError::Refused(fault)) => Err(fault),
                    Err(other) => return Err(other),
                };
                this.keep(key, &answer, claims.expires).await;
                Ok(answer)
            });
            task.await
                .unwrap_or_else(|_| Err(AuthnError::Unavailable("the review was interrupted".into())))
        });
        let answer = shared.await;
        self.in_flight.invalidate(&key).await;
        match answer {
            Ok(answer) => answer.map_err(AuthnError::Refused),
            Err(fault) => Err(AuthnError::clone(&fault)),
        }
    }

    async fn keep(&self, key: Key, answer: &Answer, expires: UnixTime) {
        let now = self.clock.now();
        match answer {
            Ok(caller) => {
                let end = plus(now, POSITIVE).min(expires);
                self.positive.insert(key, Arc::new((caller.clone(), end))).await;
            }
            Err(fault) => {
                self.negative
                    .insert(key, Arc::new((fault.clone(), plus(now, NEGATIVE))))
                    .await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use prometheus_client::registry::Registry;
    use signet_certs::ServiceAccountId;
    use signet_runtime::SystemClock;

    use crate::authn::claims::Algorithm;

    const START: u64 = 1_000_000;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// A clock that stands until it is set.
    struct Standing(Mutex<u64>);

    impl Clock for Standing {
        fn now(&self) -> UnixTime {
            at(*self.0.lock().unwrap())
        }
    }

    fn caller() -> Caller {
        Caller::assert_authenticated(ServiceAccountId::new("a", "b").unwrap(), None)
    }

    /// A cache over an API server that never answers.
    fn cache(clock: Arc<dyn Clock>) -> TokenCache {
        let hanging = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        });
        let metrics = Metrics::new(&mut Registry::default());
        let reviewer = Reviewer::new(
            kube::Client::new(hanging, "default"),
            &["signet-ca".to_owned()],
            Duration::from_secs(5),
            1,
            metrics.clone(),
        );
        TokenCache::new(reviewer, clock, metrics)
    }

    fn key(number: u64) -> Key {
        BearerToken::new(&number.to_string()).hash()
    }

    #[tokio::test]
    async fn a_positive_answer_ends_after_a_minute_and_never_after_its_token() {
        let clock = Arc::new(Standing(Mutex::new(START)));
        let cache = cache(Arc::clone(&clock) as Arc<dyn Clock>);
        let token = BearerToken::new("1");
        for (kept_at, token_ends, last) in [
            (START, START + 3_600, START + 59),
            (START, START + 10, START + 9),
            (START + 100, START + 100 + 60, START + 159),
        ] {
            *clock.0.lock().unwrap() = kept_at;
            cache.keep(token.hash(), &Ok(caller()), at(token_ends)).await;
            for (now, holds) in [(kept_at, true), (last, true), (last + 1, false)] {
                let kept = cache.get(token.hash(), at(now)).await;
                assert_eq!(
                    kept.map(|kept| kept.map(|(caller, _)| caller)),
                    holds.then(|| Ok(caller())),
                    "kept at {kept_at}, at {now}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_negative_answer_ends_after_five_seconds() {
        let cache = cache(Arc::new(Standing(Mutex::new(START))));
        let token = BearerToken::new("1");
        let refused = Err(ReviewFault::Audiences);
        cache.keep(token.hash(), &refused, at(START + 3_600)).await;
        let kept = cache.get(token.hash(), at(START + 4)).await;
        assert_eq!(kept, Some(Err(AuthnError::Refused(ReviewFault::Audiences))));
        assert_eq!(cache.get(token.hash(), at(START + 5)).await, None);
    }

    #[tokio::test]
    async fn no_number_of_negative_answers_pushes_out_a_positive_one() {
        let cache = cache(Arc::new(Standing(Mutex::new(START))));
        let end = at(START + 3_600);
        cache.keep(key(0), &Ok(caller()), end).await;
        let refused = Err(ReviewFault::Audiences);
        for number in 1..=POSITIVES + 1_000 {
            cache.keep(key(number), &refused, end).await;
        }
        cache.positive.run_pending_tasks().await;
        cache.negative.run_pending_tasks().await;
        assert!(cache.negative.entry_count() <= NEGATIVES);
        let evicted = crate::metrics::Outcome { outcome: "evicted" };
        assert!(
            cache.metrics.token_cache.get_or_create(&evicted).get() > 0,
            "what had no room is counted"
        );
        let kept = cache.get(key(0), at(START)).await;
        assert_eq!(kept, Some(Ok((caller(), at(START + 60)))));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_leave_cannot_pile_up_reviews() {
        let cache = cache(Arc::new(SystemClock));
        let claims = Claims {
            algorithm: Algorithm::Es256,
            key_id: None,
            audiences: Vec::new(),
            expires: UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000)),
            not_before: None,
            account: ServiceAccountId::new("a", "b").unwrap(),
            issuer: None,
            pod: None,
        };
        for number in 0..MOST_REVIEWS {
            let token = BearerToken::new(&number.to_string());
            let review = cache.review(&token, &claims, None);
            let left = tokio::time::timeout(Duration::ZERO, review).await;
            assert!(left.is_err(), "{number} waits");
        }
        let token = BearerToken::new("one more");
        assert_eq!(
            cache.review(&token, &claims, None).await,
            Err(AuthnError::Overloaded)
        );
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(
            cache.places.available_permits(),
            MOST_REVIEWS,
            "each has its deadline"
        );
    }
}
