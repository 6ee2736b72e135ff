//! TokenReview: the API server says whose token it is, and whether pod and account still exist.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::{Api, PostParams};
use signet_certs::account_token::account_of_user;
use signet_policy::{BoundPod, Caller};
use tokio::sync::Semaphore;

use super::AuthnError;
use super::token::BearerToken;
use crate::metrics::Metrics;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const ALL_ACCOUNTS: &str = "system:serviceaccounts";
/// One peer address may hold at most one part in this many of the reviews under way.
const PEER_SHARE: usize = 4;
/// A token that no API server accepts: asking about it shows that reviews are answered.
const PROBE: &str = "signet-readiness-probe";

/// Most characters of the API server's words that are kept: they go into caches, logs and audit. A proxy
/// before it may answer with a whole page.
const MOST_WORDS: usize = 256;

/// Why the API server's answer is a no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewFault {
    /// It refused the token, with its own words.
    #[error("the API server refused the token: {0}")]
    NotAuthenticated(String),
    /// It did not confirm the audience. An authenticator that ignores audiences answers so.
    #[error("the API server did not confirm any of our audiences")]
    Audiences,
    /// The user is no service account, by name and by group.
    #[error("{0:?} is not a service account")]
    NotServiceAccount(String),
    /// It named another account than the token does.
    #[error("the API server says {reviewed}, the token says {claimed}")]
    OtherAccount {
        /// Who the API server says it is.
        reviewed: String,
        /// Who the token says it is.
        claimed: String,
    },
}

impl ReviewFault {
    /// A stable word for metrics and audit.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotAuthenticated(_) => "review_refused",
            Self::Audiences => "review_audiences",
            Self::NotServiceAccount(_) => "review_not_service_account",
            Self::OtherAccount { .. } => "review_other_account",
        }
    }
}

/// Makes TokenReviews, a bounded number at once with a share per peer, each with a deadline.
#[derive(Clone)]
pub struct Reviewer {
    api: Api<TokenReview>,
    audiences: Vec<String>,
    deadline: Duration,
    slots: Arc<Semaphore>,
    shares: Arc<Shares>,
    metrics: Metrics,
}

impl Reviewer {
    /// Reviews for `audiences` at the API server behind `client`, at most `at_once`.
    #[must_use]
    pub fn new(
        client: kube::Client,
        audiences: &[String],
        deadline: Duration,
        at_once: usize,
        metrics: Metrics,
    ) -> Self {
        let shares = Shares {
            most: (at_once / PEER_SHARE).max(1),
            peers: Mutex::default(),
        };
        Self {
            api: Api::all(client),
            audiences: audiences.to_vec(),
            deadline,
            slots: Arc::new(Semaphore::new(at_once)),
            shares: Arc::new(shares),
            metrics,
        }
    }

    /// Asks who holds `token`. Waits for a free slot no longer than the deadline of a review.
    ///
    /// # Errors
    /// An [`AuthnError`].
    pub async fn review(&self, token: &BearerToken, peer: Option<IpAddr>) -> Result<Caller, AuthnError> {
        let answer = self.ask(token, peer).await;
        let outcome = match &answer {
            Ok(_) => "authenticated",
            Err(AuthnError::Refused(_)) => "refused",
            Err(AuthnError::Overloaded) => "overloaded",
            Err(_) => "failed",
        };
        Metrics::count(&self.metrics.reviews, outcome);
        answer
    }

    async fn ask(&self, token: &BearerToken, peer: Option<IpAddr>) -> Result<Caller, AuthnError> {
        let share = self.shares.of(peer);
        let waited = tokio::time::timeout(self.deadline, async {
            let own = share.slots.acquire().await?;
            Ok::<_, tokio::sync::AcquireError>((own, self.slots.acquire().await?))
        });
        let _slots = waited
            .await
            .map_err(|_| AuthnError::Overloaded)?
            .map_err(|_| AuthnError::Overloaded)?;
        let status = self.post(token.expose()).await?;
        judge(status, &self.audiences).map_err(AuthnError::Refused)
    }

    /// Whether reviews are answered at all.
    ///
    /// # Errors
    /// [`AuthnError::Unavailable`] with what the API server, or the way to it, said.
    pub async fn probe(&self) -> Result<(), AuthnError> {
        self.post(PROBE).await.map(drop)
    }

    async fn post(&self, token: &str) -> Result<TokenReviewStatus, AuthnError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(self.audiences.clone()),
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let asked = self.api.create(&params, &review);
        match tokio::time::timeout(self.deadline, asked).await {
            Err(_) => Err(AuthnError::Unavailable(format!(
                "no answer within {:?}",
                self.deadline
            ))),
            Ok(Err(kube::Error::Api(status))) => {
                let said: String = status.message.chars().take(MOST_WORDS).collect();
                Err(AuthnError::Unavailable(format!("{} {said}", status.code)))
            }
            // The text of other errors may quote what was sent; only its kind is told.
            Ok(Err(error)) => Err(AuthnError::Unavailable(kind(&error).into())),
            Ok(Ok(review)) => review
                .status
                .ok_or_else(|| AuthnError::Unavailable("answer without a status".into())),
        }
    }
}

fn kind(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::SerdeError(_) => "the API server's answer is not a TokenReview",
        kube::Error::HyperError(_) | kube::Error::Service(_) => "the API server cannot be reached",
        kube::Error::Auth(_) => "the CA's own credentials for the API server cannot be read",
        _ => "the API server's answer cannot be used",
    }
}

/// Every condition of a good answer; anything missing is a no.
fn judge(status: TokenReviewStatus, ours: &[String]) -> Result<Caller, ReviewFault> {
    let said = status.error.unwrap_or_default();
    if status.authenticated != Some(true) || !said.is_empty() {
        return Err(ReviewFault::NotAuthenticated(
            said.chars().take(MOST_WORDS).collect(),
        ));
    }
    let confirmed = status.audiences.unwrap_or_default();
    if !confirmed.iter().any(|audience| ours.contains(audience)) {
        return Err(ReviewFault::Audiences);
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.clone().unwrap_or_default();
    let stranger = || ReviewFault::NotServiceAccount(name.chars().take(MOST_WORDS).collect());
    let account = account_of_user(&name).ok_or_else(stranger)?;
    let groups = user.groups.clone().unwrap_or_default();
    let own_group = format!("{ALL_ACCOUNTS}:{}", account.namespace());
    if ![ALL_ACCOUNTS, &own_group]
        .iter()
        .all(|group| groups.iter().any(|g| g == group))
    {
        return Err(stranger());
    }
    // The one place in signet where a caller is declared authenticated.
    Ok(Caller::assert_authenticated(account, bound_pod(&user)))
}

fn bound_pod(user: &UserInfo) -> Option<BoundPod> {
    let extra = user.extra.as_ref()?;
    let first = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
    Some(BoundPod {
        name: first(POD_NAME)?,
        uid: first(POD_UID)?,
        node: first(NODE_NAME),
    })
}

/// A semaphore per peer address that asks for reviews now. Bounded by the requests waiting, since an
/// entry goes with its last user.
struct Shares {
    most: usize,
    peers: Mutex<HashMap<IpAddr, (Arc<Semaphore>, usize)>>,
}

impl Shares {
    /// The peer's own slots; others of the same peer wait behind them, not before other peers.
    fn of(self: &Arc<Self>, peer: Option<IpAddr>) -> Share {
        let Some(peer) = peer else {
            return Share {
                slots: Arc::new(Semaphore::new(self.most)),
                of: None,
            };
        };
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = peers
            .entry(peer)
            .or_insert_with(|| (Arc::new(Semaphore::new(self.most)), 0));
        entry.1 += 1;
        Share {
            slots: Arc::clone(&entry.0),
            of: Some((Arc::clone(self), peer)),
        }
    }
}

struct Share {
    slots: Arc<Semaphore>,
    of: Option<(Arc<Shares>, IpAddr)>,
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((shares, peer)) = self.of.take() {
            let mut peers = shares.peers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = peers.get_mut(&peer) {
                entry.1 -= 1;
                if entry.1 == 0 {
                    peers.remove(&peer);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
