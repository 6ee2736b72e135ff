//! Who asks. A [`Caller`] exists only where an authenticator vouched for it.

use std::fmt;

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

/// An authenticated Kubernetes service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    account: ServiceAccountId,
    pod: Option<BoundPod>,
}

impl Caller {
    /// Asserts that an authenticator has just proven this identity. Called there and nowhere else.
    #[must_use]
    pub fn assert_authenticated(account: ServiceAccountId, pod: Option<BoundPod>) -> Self {
        Self { account, pod }
    }

    /// The service account.
    #[must_use]
    pub fn account(&self) -> &ServiceAccountId {
        &self.account
    }

    /// The pod its token is bound to, if any.
    #[must_use]
    pub fn pod(&self) -> Option<&BoundPod> {
        self.pod.as_ref()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pod {
            Some(pod) => write!(f, "{} (pod {})", self.account, pod.name),
            None => self.account.fmt(f),
        }
    }
}
