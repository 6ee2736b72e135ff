//! Faults a test can switch on: what an API server does when it is not well.

use std::time::Duration;

use tokio::sync::watch;

/// Which requests a fault hits. A fault for TokenReviews goes before one for all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultScope {
    /// `create` of TokenReviews only.
    TokenReviews,
    /// Every request, TokenReviews too.
    AllRequests,
}

/// How requests go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No answer until the fault is cleared or replaced; then the request is served.
    Hang,
    /// 500 with a `Status` of reason `InternalError`.
    InternalError,
    /// 429 with a `Retry-After` header of whole seconds.
    TooManyRequests {
        /// What the header says.
        retry_after: Duration,
    },
    /// 200 with a body that is no JSON, labelled as JSON.
    Garbage,
    /// This status code and this body, labelled as JSON.
    Answer {
        /// HTTP status code; a number that is none counts as 500.
        status: u16,
        /// The whole body.
        body: String,
    },
    /// The connection is closed without an answer, with everything else that runs on it.
    CloseConnection,
    /// The request is served after this long.
    Delay(Duration),
}

/// The faults that are switched on.
#[derive(Debug, Default)]
struct Active {
    token_reviews: Option<Fault>,
    all_requests: Option<Fault>,
}

impl Active {
    fn hitting(&self, is_review: bool) -> Option<&Fault> {
        let special = if is_review {
            self.token_reviews.as_ref()
        } else {
            None
        };
        special.or(self.all_requests.as_ref())
    }
}

/// The switchboard.
pub(crate) struct Faults(watch::Sender<Active>);

impl Faults {
    pub(crate) fn none() -> Self {
        Faults(watch::Sender::new(Active::default()))
    }

    /// Switches a fault on, or off with `None`.
    pub(crate) fn set(&self, scope: FaultScope, fault: Option<Fault>) {
        self.0.send_modify(|active| match scope {
            FaultScope::TokenReviews => active.token_reviews = fault,
            FaultScope::AllRequests => active.all_requests = fault,
        });
    }

    /// Waits out hangs and delays; returns the fault the request has to end with, if there is one.
    pub(crate) async fn meet(&self, is_review: bool) -> Option<Fault> {
        let mut active = self.0.subscribe();
        loop {
            let fault = active.borrow_and_update().hitting(is_review).cloned();
            match fault {
                Some(Fault::Hang) => active.changed().await.ok()?,
                Some(Fault::Delay(time)) => {
                    tokio::time::sleep(time).await;
                    return None;
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_for_reviews_goes_first() {
        let active = Active {
            token_reviews: Some(Fault::Garbage),
            all_requests: Some(Fault::InternalError),
        };
        assert_eq!(active.hitting(true), Some(&Fault::Garbage));
        assert_eq!(active.hitting(false), Some(&Fault::InternalError));
    }
}
