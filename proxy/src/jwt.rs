//! Tokens in requests, judged by the RequestAuthentications in force: where they are, whether they are good, and
//! what the application learns of them.
//!
//! | module | owns |
//! |---|---|
//! | `places` | where a request carries tokens |
//! | `judge` | one token under one rule |
//! | `cache` | tokens that were verified before |
//! | `edits` | what becomes of the request's headers |
//! | [`keys`] | the key sets of the issuers |
//! | [`fetching`] | keys that this process fetches itself |
//! | [`files`] | keys that lie in files |
//! | [`given`] | keys that the agent sends |
//! | [`refusal`] | why a request is refused, and what it is told |

mod cache;
mod edits;
pub mod fetching;
pub mod files;
pub mod given;
mod judge;
pub mod keys;
mod places;
pub mod refusal;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use signet_certs::UnixTime;
use signet_certs::jws::KeySet;
use signet_policy::RequestIdentity;
use signet_policy::tokens::{TokenDenial, TokenRules};
use signet_runtime::Clock;

pub use edits::Edits;
pub use given::Given;
pub use keys::{IssuerKeys, KeySets};
pub use refusal::{Fault, TokenRefused};

use cache::Cache;
use judge::Attempt;

/// How far clocks may be apart.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Most different tokens of one request that are looked at.
pub const MAX_TOKENS: usize = 8;
/// Longest time that a request waits for a key that its issuer may have published just now.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What came of it, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// The word.
    pub outcome: &'static str,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct TokenMetrics {
    /// Requests with tokens, by what came of them.
    pub requests: Family<Outcome, Counter>,
    /// Look-ups of tokens that may have been verified before.
    pub cache: Family<Outcome, Counter>,
    /// Fetches of key sets.
    pub fetches: Family<Outcome, Counter>,
}

impl TokenMetrics {
    /// Registers everything.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let all = Self::default();
        registry.register(
            "signet_proxy_jwt_requests",
            "Requests with tokens, by what came of them",
            all.requests.clone(),
        );
        registry.register(
            "signet_proxy_jwt_cache",
            "Tokens looked up among those verified before",
            all.cache.clone(),
        );
        registry.register(
            "signet_proxy_jwt_key_fetches",
            "Fetches of key sets, by outcome",
            all.fetches.clone(),
        );
        all
    }

    fn count(family: &Family<Outcome, Counter>, outcome: &'static str) {
        family.get_or_create(&Outcome { outcome }).inc();
    }
}

/// Judges tokens. Clones share what was verified before.
#[derive(Clone, Debug)]
pub struct Tokens {
    cache: Arc<Cache>,
    metrics: TokenMetrics,
}

/// A request that may go on, as far as its tokens are concerned.
#[derive(Clone)]
pub struct Judged {
    /// Whose token it carries; nothing without one.
    pub identity: Option<Arc<RequestIdentity>>,
    /// What to do to its headers before it goes on.
    pub edits: Edits,
    /// The last second in which the token counts, if it has an end.
    pub ends: Option<UnixTime>,
}

/// A request that was let pass by a token before, and would not be now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub refused: TokenRefused,
    /// Whether nothing is wrong with its token but that keys of a rule for it are on their way still.
    pub waits: bool,
}

/// A refusal: what it is, and what may change it.
struct Refusal {
    refused: TokenRefused,
    missed: Option<Missed>,
    waits: bool,
}

impl From<TokenRefused> for Refusal {
    fn from(refused: TokenRefused) -> Self {
        Self {
            refused,
            missed: None,
            waits: false,
        }
    }
}

/// A refusal for a key that may exist by now: the set that lacks it, and the rule it belongs to.
struct Missed {
    rule: usize,
    set: Arc<KeySet>,
}

impl Tokens {
    /// Judges nothing yet.
    #[must_use]
    pub fn new(metrics: TokenMetrics) -> Self {
        Self {
            cache: Arc::default(),
            metrics,
        }
    }

    /// Judges the tokens of a request. One that is signed with a key the issuer's set lacks waits while the set
    /// is fetched anew, which happens now and then only.
    ///
    /// # Errors
    /// [`TokenRefused`]: answer 401.
    pub async fn judge(
        &self,
        rules: &TokenRules,
        keys: &KeySets,
        request: &Parts,
        clock: &dyn Clock,
    ) -> Result<Judged, TokenRefused> {
        let mut judged = self.attempt(rules, keys, (request, None), clock.now());
        if let Err(Refusal {
            missed: Some(missed), ..
        }) = &judged
        {
            let patience = rules
                .rules()
                .get(missed.rule)
                .map_or(LONGEST_WAIT, |rule| rule.timeout);
            if keys
                .newer(missed.rule, &missed.set, patience.min(LONGEST_WAIT))
                .await
            {
                judged = self.attempt(rules, keys, (request, None), clock.now());
            }
        }
        let judged = judged.map_err(|refusal| refusal.refused);
        match &judged {
            Ok(judged) if judged.identity.is_none() => {}
            Ok(_) => TokenMetrics::count(&self.metrics.requests, "accepted"),
            Err(refused) => TokenMetrics::count(&self.metrics.requests, refused.as_str()),
        }
        judged
    }

    /// Judges the tokens of a request that was let pass before, for whom it came with, without waiting for keys.
    ///
    /// # Errors
    /// [`Lost`]: it would not be let pass now.
    pub fn judge_again(
        &self,
        rules: &TokenRules,
        keys: &KeySets,
        (request, identity): (&Parts, Option<&RequestIdentity>),
        now: UnixTime,
    ) -> Result<Judged, Lost> {
        let judged = self.attempt(rules, keys, (request, identity), now);
        judged.map_err(|Refusal { refused, waits, .. }| Lost { refused, waits })
    }

    fn attempt(
        &self,
        rules: &TokenRules,
        keys: &KeySets,
        (request, before): (&Parts, Option<&RequestIdentity>),
        now: UnixTime,
    ) -> Result<Judged, Refusal> {
        let mut edits = Edits::without_outputs(rules);
        if rules.is_empty() || is_preflight(request) {
            return Ok(Judged {
                identity: None,
                edits,
                ends: None,
            });
        }
        let candidates = places::find(rules, request);
        if candidates.is_empty() {
            return Ok(Judged {
                identity: None,
                edits,
                ends: None,
            });
        }
        let tokens = judge::distinct(&candidates);
        if tokens.len() > MAX_TOKENS {
            return Err(TokenRefused::TooMany.into());
        }
        let attempt = Attempt {
            rules,
            keys,
            cache: &self.cache,
            metrics: &self.metrics,
            now,
        };
        let verdicts = attempt.all(&candidates, &tokens);
        let found: Vec<_> = verdicts.iter().map(judge::Verdict::found).collect();
        let (rule, verified) = match rules.admit(&found) {
            // Not reached while there are candidates; nothing found is nobody's request.
            Ok(None) => {
                return Ok(Judged {
                    identity: None,
                    edits,
                    ends: None,
                });
            }
            Ok(Some(rule)) => match judge::first_of(&verdicts, rule) {
                Some(verified) => (rule, verified),
                None => return Err(TokenRefused::Invalid(Fault::NoRule).into()),
            },
            Err(denial) => {
                let waits = matches!(denial, TokenDenial::Invalid)
                    && before.is_some_and(|before| judge::waits(before, &candidates, &tokens, &verdicts));
                let (refused, missed) = judge::refused(denial, &verdicts);
                return Err(Refusal {
                    refused,
                    missed,
                    waits,
                });
            }
        };
        edits.learn(rules, rule, verified);
        edits.drop_tokens(rules, &candidates, &verdicts);
        Ok(Judged {
            identity: Some(Arc::clone(&verified.identity)),
            edits,
            ends: verified.ends(),
        })
    }
}

/// A browser's question before a request of another origin. It carries no token, and nothing but permission
/// comes of it.
fn is_preflight(request: &Parts) -> bool {
    let filled = |name| request.headers.get(name).is_some_and(|value| !value.is_empty());
    request.method == http::Method::OPTIONS
        && filled(http::header::ORIGIN)
        && filled(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests;
