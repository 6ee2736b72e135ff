//! One request: a fresh key, a CSR without names, and an answer that is ours and verifies.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::csr::request as csr_for;
use signet_certs::{SigningKey, SpiffeId, TrustDomain, X509Svid};
use signet_runtime::Clock;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ca_client::{CaClient, Failure, FailureKind};
use crate::svids::{Trust, Verified, Whose};

/// How long an SVID waits for the bundle it verifies under. While a root is rotated the two come over
/// different streams, moments apart.
const BUNDLE_PATIENCE: Duration = Duration::from_secs(3);

/// An SVID that verified a moment ago.
#[derive(Debug)]
pub(super) struct Fresh {
    /// Chain and key.
    pub(super) svid: X509Svid,
    /// The roots that came with it, as PEM.
    pub(super) roots_pem: String,
}

/// What a request needs.
#[derive(Clone)]
pub(super) struct Requester {
    /// The CA.
    pub(super) ca: CaClient,
    /// Our trust domain.
    pub(super) domain: TrustDomain,
    /// The life asked for.
    pub(super) ttl: Duration,
    /// The newest bundles.
    pub(super) trust: watch::Receiver<Option<Arc<Trust>>>,
    /// Wall time.
    pub(super) clock: Arc<dyn Clock>,
}

impl Requester {
    /// Asks once. Our own identity is named by the CA; an answer that differs from the identity held
    /// before, or from the one our token claims, is refused. An SVID asked for a workload must be of
    /// exactly that workload.
    pub(super) async fn request(
        mut self,
        whose: Whose,
        previous: Option<SpiffeId>,
    ) -> Result<Fresh, Failure> {
        let internal = |text: String| Failure::new(FailureKind::Internal, text);
        let key = Arc::new(SigningKey::generate().map_err(|e| internal(e.to_string()))?);
        let csr = csr_for(&key, None).map_err(|e| internal(e.to_string()))?;
        let (impersonated, expected) = match whose {
            Whose::Own => (None, previous.or_else(|| self.ca.claimed_identity())),
            Whose::Of(id) => (Some(id.clone()), Some(id)),
        };
        let answer = self
            .ca
            .create_certificate(csr, self.ttl, impersonated.as_ref())
            .await?;
        check_identity(answer.chain.id(), &self.domain, expected.as_ref())
            .map_err(|text| Failure::new(FailureKind::BadAnswer, text))?;
        let svid = X509Svid::new(answer.chain, key)
            .map_err(|e| Failure::new(FailureKind::BadAnswer, e.to_string()))?;
        self.verify(&svid).await?;
        Ok(Fresh {
            svid,
            roots_pem: answer.roots_pem,
        })
    }

    async fn verify(&mut self, svid: &X509Svid) -> Result<(), Failure> {
        let patience_ends = Instant::now() + BUNDLE_PATIENCE;
        loop {
            let trust = self.trust.borrow_and_update().clone();
            let failure = match trust.as_ref().and_then(|trust| trust.own()) {
                None => Failure::new(
                    FailureKind::NoBundle,
                    "the CA issued an svid but has sent no bundle yet",
                ),
                Some(bundle) => {
                    let (now, sequence) = (self.clock.now(), bundle.sequence());
                    match Verified::check(svid.clone(), Arc::clone(bundle), now, now) {
                        Ok(_) => return Ok(()),
                        Err(error) => Failure::new(
                            FailureKind::NotVerified,
                            format!(
                                "the svid does not verify under the bundle (sequence {sequence}): {error}"
                            ),
                        ),
                    }
                }
            };
            match tokio::time::timeout_at(patience_ends, self.trust.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(failure),
            }
        }
    }
}

fn check_identity(
    answered: &SpiffeId,
    domain: &TrustDomain,
    expected: Option<&SpiffeId>,
) -> Result<(), String> {
    if !answered.is_in(domain) {
        return Err(format!(
            "the CA answered with {answered}, which is not in the trust domain {domain}"
        ));
    }
    match expected {
        Some(expected) if expected != answered => Err(format!(
            "the CA answered with {answered}, but the SVID asked for is of {expected}"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_for_another_identity_is_refused_naming_both() {
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        let (ours, other) = (
            id("spiffe://cluster.local/ns/a/sa/x"),
            id("spiffe://cluster.local/ns/a/sa/y"),
        );
        assert_eq!(check_identity(&ours, &domain, None), Ok(()));
        assert_eq!(check_identity(&ours, &domain, Some(&ours)), Ok(()));
        assert_eq!(
            check_identity(&other, &domain, Some(&ours)).unwrap_err(),
            "the CA answered with spiffe://cluster.local/ns/a/sa/y, but the SVID asked for is of \
             spiffe://cluster.local/ns/a/sa/x"
        );
        let foreign = check_identity(&id("spiffe://elsewhere/ns/a/sa/x"), &domain, None).unwrap_err();
        assert!(
            foreign.ends_with("which is not in the trust domain cluster.local"),
            "{foreign}"
        );
    }
}
