//! The three kinds of `security.istio.io`, as checked: what exists here can be enforced as it stands.

use std::fmt;

pub mod authorization;
pub mod meta;
pub mod peer;
pub mod remains;
pub mod request;
pub mod salvage;
pub mod selector;
pub mod term;

pub use authorization::{Action, AuthorizationPolicy, Rule};
pub use meta::{Kind, Meta, ObjectKey};
pub use peer::{Mode, PeerAuthentication};
pub use request::{JwtRule, RequestAuthentication};
pub use selector::{Attachment, TargetKind, TargetRef};
pub use term::{Attribute, Place, Term, Values};

/// One object of one of the kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Who may do what.
    Authorization(AuthorizationPolicy),
    /// Which peers must have a certificate.
    Peer(PeerAuthentication),
    /// Which tokens are good.
    Request(RequestAuthentication),
}

impl Object {
    /// What Kubernetes knows of it.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Authorization(policy) => &policy.meta,
            Self::Peer(peer) => &peer.meta,
            Self::Request(request) => &request.meta,
        }
    }

    /// Its name, which is unique.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let kind = match self {
            Self::Authorization(_) => Kind::AuthorizationPolicy,
            Self::Peer(_) => Kind::PeerAuthentication,
            Self::Request(_) => Kind::RequestAuthentication,
        };
        let meta = self.meta();
        ObjectKey {
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        }
    }

    /// What it applies to within its scope.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        match self {
            Self::Authorization(policy) => &policy.attachment,
            Self::Peer(peer) => &peer.attachment,
            Self::Request(request) => &request.attachment,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}
