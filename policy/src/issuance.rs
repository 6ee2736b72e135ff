//! Whether a caller may have an SVID, and for which name. The permit holds the name; nothing else does.
//!
//! A caller's own identity is decided here and now. Another one is impersonation: [`claim`] says so with
//! an [`Impersonation`], which the node rule turns into a permit once the cluster was asked.

use std::collections::BTreeSet;

use signet_certs::{ServiceAccountId, SpiffeId, TrustDomain};

use crate::caller::Caller;
use crate::node_rule::{Impersonation, NodeDenied};

/// Proof that a caller may have an SVID for this identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuancePermit {
    id: SpiffeId,
    account: ServiceAccountId,
}

impl IssuancePermit {
    /// Made where a rule has just passed, and nowhere else.
    pub(crate) fn granted(id: SpiffeId, account: ServiceAccountId) -> Self {
        Self { id, account }
    }

    /// The identity permitted.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The service account behind it.
    #[must_use]
    pub fn account(&self) -> &ServiceAccountId {
        &self.account
    }
}

/// Why there is no permit. The text is for audit and log; strangers see less.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// The client certificate of the connection names somebody else than the token.
    #[error("client certificate names {certificate}, the token {token}")]
    CertificateDisagrees {
        /// Identity in the client certificate.
        certificate: SpiffeId,
        /// Identity of the token's account.
        token: SpiffeId,
    },
    /// The caller asked for an identity that is not its own, and no account may do that here.
    #[error("impersonation of {requested} is not enabled on this CA; {own} may ask only for itself")]
    ImpersonationDisabled {
        /// What was asked for.
        requested: String,
        /// What the caller may have.
        own: SpiffeId,
    },
    /// The node rule.
    #[error(transparent)]
    Node(#[from] NodeDenied),
}

impl Denied {
    /// A stable word for metrics and audit.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::CertificateDisagrees { .. } => "certificate_disagrees",
            Self::ImpersonationDisabled { .. } => "impersonation_disabled",
            Self::Node(denied) => denied.as_str(),
        }
    }
}

/// What is asked for beside the caller's own word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The identity to impersonate, as text from the request; nothing means the caller's own.
    pub impersonated: Option<&'a str>,
    /// The identity of the verified client certificate, if one was given. It gives nothing by itself.
    pub certificate: Option<&'a SpiffeId>,
}

/// What a request comes to before the cluster is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The caller's own identity: permitted.
    Own(IssuancePermit),
    /// Another identity, by a caller that may try: facts about pods decide.
    Another(Impersonation),
}

/// Decides what can be decided without asking the cluster: `trusted` are the node accounts, whose pods
/// may ask in `domain` for others; none of them turns impersonation off.
///
/// # Errors
/// [`Denied`] with the reason.
pub fn claim(
    caller: &Caller,
    asked: Asked<'_>,
    domain: &TrustDomain,
    trusted: &BTreeSet<ServiceAccountId>,
) -> Result<Claim, Denied> {
    let own = caller.account().spiffe_id(domain);
    if let Some(certificate) = asked.certificate
        && *certificate != own
    {
        return Err(Denied::CertificateDisagrees {
            certificate: certificate.clone(),
            token: own,
        });
    }
    match asked.impersonated {
        Some(requested) if requested != own.as_str() => {
            if trusted.is_empty() {
                let requested = named(requested);
                return Err(Denied::ImpersonationDisabled { requested, own });
            }
            let another = Impersonation::claimed(caller, requested, domain, trusted)?;
            Ok(Claim::Another(another))
        }
        _ => Ok(Claim::Own(IssuancePermit::granted(own, caller.account().clone()))),
    }
}

/// A stranger's text, if it is an identity. Anything else may be a secret in the wrong field.
pub(crate) fn named(requested: &str) -> String {
    match requested.parse::<SpiffeId>() {
        Ok(id) => id.to_string(),
        Err(fault) => format!("what is no SPIFFE ID ({fault})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller::assert_authenticated(ServiceAccountId::new("shop", "cart").unwrap(), None)
    }

    fn domain() -> TrustDomain {
        "cluster.local".parse().unwrap()
    }

    fn claimed(asked: Asked<'_>) -> Result<Claim, Denied> {
        claim(&caller(), asked, &domain(), &BTreeSet::new())
    }

    #[test]
    fn a_caller_may_have_its_own_identity() {
        let own = "spiffe://cluster.local/ns/shop/sa/cart";
        for impersonated in [None, Some(own)] {
            let asked = Asked {
                impersonated,
                certificate: None,
            };
            let Claim::Own(permit) = claimed(asked).unwrap() else {
                panic!("its own")
            };
            assert_eq!(permit.id().as_str(), own);
        }
    }

    #[test]
    fn without_node_accounts_asking_for_another_identity_is_denied_naming_both() {
        let asked = Asked {
            impersonated: Some("spiffe://cluster.local/ns/shop/sa/bank"),
            certificate: None,
        };
        assert_eq!(
            claimed(asked).unwrap_err().to_string(),
            "impersonation of spiffe://cluster.local/ns/shop/sa/bank is not enabled on this CA; \
             spiffe://cluster.local/ns/shop/sa/cart may ask only for itself"
        );
    }

    #[test]
    fn what_is_no_identity_is_not_repeated() {
        let asked = Asked {
            impersonated: Some("eyJhbGciOi.secret.part"),
            certificate: None,
        };
        let denied = claimed(asked).unwrap_err().to_string();
        assert!(
            denied.starts_with("impersonation of what is no SPIFFE ID (") && !denied.contains("secret"),
            "{denied}"
        );
    }

    #[test]
    fn a_client_certificate_must_agree_with_the_token_whatever_is_asked_for() {
        let other: SpiffeId = "spiffe://cluster.local/ns/shop/sa/bank".parse().unwrap();
        for impersonated in [None, Some(other.as_str())] {
            let asked = Asked {
                impersonated,
                certificate: Some(&other),
            };
            assert_eq!(claimed(asked).unwrap_err().as_str(), "certificate_disagrees");
        }
        let own = caller().account().spiffe_id(&domain());
        let asked = Asked {
            impersonated: None,
            certificate: Some(&own),
        };
        assert!(claimed(asked).is_ok());
    }
}
