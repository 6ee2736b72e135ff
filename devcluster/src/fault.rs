//! Faults a test can switch on: what an API server does when it is not well.

use std::time::Duration;

use tokio::sync::watch;

/// Which requests a fault hits. One for some requests goes before the one for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultScope {
    /// `create` of TokenReviews only.
    TokenReviews,
    /// Opening of watches of any kind; those that run are not touched.
    Watches,
    /// Reading pods, by name or as a list; watches are not meant.
    Pods,
    /// Reading services, by name or as a list; watches are not meant.
    Services,
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
    watches: Option<Fault>,
    pods: Option<Fault>,
    services: Option<Fault>,
    all_requests: Option<Fault>,
}

impl Active {
    fn hitting(&self, verb: &str, resource: &str) -> Option<&Fault> {
        let special = match (verb, resource) {
            ("create", "tokenreviews") => self.token_reviews.as_ref(),
            ("watch", _) => self.watches.as_ref(),
            ("get" | "list", "pods") => self.pods.as_ref(),
            ("get" | "list", "services") => self.services.as_ref(),
            _ => None,
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
            FaultScope::Watches => active.watches = fault,
            FaultScope::Pods => active.pods = fault,
            FaultScope::Services => active.services = fault,
            FaultScope::AllRequests => active.all_requests = fault,
        });
    }

    /// Waits out hangs and delays; returns the fault the request has to end with, if there is one.
    pub(crate) async fn meet(&self, verb: &str, resource: &str) -> Option<Fault> {
        let mut active = self.0.subscribe();
        loop {
            let fault = active.borrow_and_update().hitting(verb, resource).cloned();
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
    fn a_fault_for_some_requests_goes_before_the_one_for_all() {
        let active = Active {
            token_reviews: Some(Fault::Garbage),
            watches: Some(Fault::Hang),
            pods: Some(Fault::CloseConnection),
            services: Some(Fault::Garbage),
            all_requests: Some(Fault::InternalError),
        };
        assert_eq!(active.hitting("create", "tokenreviews"), Some(&Fault::Garbage));
        assert_eq!(active.hitting("watch", "pods"), Some(&Fault::Hang));
        assert_eq!(active.hitting("list", "pods"), Some(&Fault::CloseConnection));
        assert_eq!(active.hitting("list", "services"), Some(&Fault::Garbage));
        assert_eq!(active.hitting("create", "pods"), Some(&Fault::InternalError));
    }
}
