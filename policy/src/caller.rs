//! Who asks. A [`Caller`] exists only where an authenticator vouched for it.

use std::fmt;
use std::sync::Arc;

use signet_certs::ServiceAccountId;

/// The pod a token is bound to, as the API server told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// The pod's name.
    pub name: String,
    /// The pod's UID: the name alone may have been taken over by a successor.
    pub uid: String,
    /// The node, where the API server says so (Kubernetes 1.30 and later).
    pub node: Option<String>,
}

/// An authenticated Kubernetes service account. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Arc<Vouched>);

#[derive(Debug, PartialEq, Eq)]
struct Vouched {
    account: ServiceAccountId,
    pod: Option<BoundPod>,
}

impl Caller {
    /// Asserts that an authenticator has just proven this identity. Called there and nowhere else.
    #[must_use]
    pub fn assert_authenticated(account: ServiceAccountId, pod: Option<BoundPod>) -> Self {
        Self(Arc::new(Vouched { account, pod }))
    }

    /// The service account.
    #[must_use]
    pub fn account(&self) -> &ServiceAccountId {
        &self.0.account
    }

    /// The pod its token is bound to, if any.
    #[must_use]
    pub fn pod(&self) -> Option<&BoundPod> {
        self.0.pod.as_ref()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.pod {
            Some(pod) => write!(f, "{} (pod {})", self.0.account, pod.name),
            None => self.0.account.fmt(f),
        }
    }
}
