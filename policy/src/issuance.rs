//! Whether a caller may have an SVID, and for which name. The permit holds the name; nothing else does.

use signet_certs::{ServiceAccountId, SpiffeId, TrustDomain};

use crate::caller::Caller;

/// Proof that a caller may have an SVID for this identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuancePermit {
    id: SpiffeId,
    account: ServiceAccountId,
}

impl IssuancePermit {
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
    /// The caller asked for an identity that is not its own.
    #[error("impersonation of {requested} is not enabled on this CA; {own} may ask only for itself")]
    ImpersonationDisabled {
        /// What was asked for.
        requested: String,
        /// What the caller may have.
        own: SpiffeId,
    },
}

impl Denied {
    /// A stable word for metrics and audit.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::CertificateDisagrees { .. } => "certificate_disagrees",
            Self::ImpersonationDisabled { .. } => "impersonation_disabled",
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

/// Decides whether `caller` may have an SVID in `domain`.
///
/// # Errors
/// [`Denied`] with the reason.
pub fn decide(caller: &Caller, asked: Asked<'_>, domain: &TrustDomain) -> Result<IssuancePermit, Denied> {
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
        Some(requested) if requested != own.as_str() => Err(Denied::ImpersonationDisabled {
            requested: named(requested),
            own,
        }),
        _ => Ok(IssuancePermit {
            id: own,
            account: caller.account().clone(),
        }),
    }
}

/// A stranger's text, if it is an identity. Anything else may be a secret in the wrong field.
fn named(requested: &str) -> String {
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

    #[test]
    fn a_caller_may_have_its_own_identity() {
        let own = "spiffe://cluster.local/ns/shop/sa/cart";
        for impersonated in [None, Some(own)] {
            let asked = Asked {
                impersonated,
                certificate: None,
            };
            assert_eq!(decide(&caller(), asked, &domain()).unwrap().id().as_str(), own);
        }
    }

    #[test]
    fn asking_for_another_identity_is_denied_naming_both() {
        let asked = Asked {
            impersonated: Some("spiffe://cluster.local/ns/shop/sa/bank"),
            certificate: None,
        };
        let denied = decide(&caller(), asked, &domain()).unwrap_err();
        assert_eq!(
            denied.to_string(),
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
        let denied = decide(&caller(), asked, &domain()).unwrap_err().to_string();
        assert!(
            denied.starts_with("impersonation of what is no SPIFFE ID (") && !denied.contains("secret"),
            "{denied}"
        );
    }

    #[test]
    fn a_client_certificate_must_agree_with_the_token() {
        let other: SpiffeId = "spiffe://cluster.local/ns/shop/sa/bank".parse().unwrap();
        let asked = Asked {
            impersonated: None,
            certificate: Some(&other),
        };
        assert_eq!(
            decide(&caller(), asked, &domain()).unwrap_err().as_str(),
            "certificate_disagrees"
        );
        let own = caller().account().spiffe_id(&domain());
        let asked = Asked {
            impersonated: None,
            certificate: Some(&own),
        };
        assert!(decide(&caller(), asked, &domain()).is_ok());
    }
}
