//! From a leaf to a root: webpki builds the path, our checks judge it, and the reason of a refusal is
//! made as telling as it can be.

use std::cell::RefCell;

use rustls_pki_types::UnixTime;
use webpki::{EndEntityCert, VerifiedPath};

use super::{ALGORITHMS, Place, Role, VerifyError, best_root, check_path_len, check_signer, check_validity};
use crate::bundle::{AuthorityFault, TrustBundle};
use crate::certificate::Certificate;
use crate::profile::LeafFault;
use crate::svid::SvidChain;

/// Most intermediates of one name in a chain.
const MAX_NAMESAKES: usize = 3;

/// Path building tries every order of certificates that share a name; a stranger could make that
/// expensive. Cross-signing needs two of a name, seldom three.
fn check_width(intermediates: &[Certificate]) -> Result<(), VerifyError> {
    let namesakes = |c: &Certificate| {
        intermediates
            .iter()
            .filter(|o| o.subject().der == c.subject().der)
            .count()
    };
    let wide = intermediates.iter().any(|c| namesakes(c) > MAX_NAMESAKES);
    if wide {
        Err(VerifyError::TooMuchWork)
    } else {
        Ok(())
    }
}

/// Runs webpki. Our own checks run on each path it finds, so that one bad path does not hide a good
/// one; the first of our reasons is kept, since it says more than webpki's.
pub(super) fn find_path(
    chain: &SvidChain,
    bundle: &TrustBundle,
    role: Role,
    now: UnixTime,
) -> Result<(), VerifyError> {
    check_width(chain.intermediates())?;
    let intermediates: Vec<_> = chain.intermediates().iter().map(|c| c.der().clone()).collect();
    let anchors: Vec<_> = bundle.roots().iter().map(|root| root.anchor().clone()).collect();
    let entity = EndEntityCert::try_from(chain.leaf().der()).map_err(|e| reason(&e, bundle, now))?;
    let usage = match role {
        Role::Server => webpki::KeyUsage::server_auth(),
        Role::Client => webpki::KeyUsage::client_auth(),
    };
    let ours: RefCell<Option<VerifyError>> = RefCell::new(None);
    let judge = |path: &VerifiedPath<'_>| {
        judge_path(path, bundle, now).map_err(|fault| {
            ours.borrow_mut().get_or_insert(fault);
            webpki::Error::UnknownIssuer
        })
    };
    let found = entity.verify_for_usage(
        ALGORITHMS,
        &anchors,
        &intermediates,
        now,
        usage,
        None,
        Some(&judge),
    );
    match found {
        Ok(_) => Ok(()),
        Err(webpkis) => Err(ours
            .take()
            .unwrap_or_else(|| explain(&webpkis, chain, bundle, now))),
    }
}

/// keyCertSign and our other demands on every signer, path lengths, and the root's own validity.
fn judge_path(path: &VerifiedPath<'_>, bundle: &TrustBundle, now: UnixTime) -> Result<(), VerifyError> {
    let mut below = 0u32;
    for intermediate in path.intermediate_certificates() {
        let certificate = Certificate::from_der(intermediate.der().into_owned())
            .map_err(|fault| VerifyError::Unusable(fault.to_string()))?;
        check_signer(&certificate, Place::Intermediate)?;
        check_path_len(&certificate, below)?;
        below += 1;
    }
    // A root that was renewed under the same name and key is the same anchor to webpki: any of them may
    // carry the path.
    let anchor = path.anchor();
    best_root(bundle, |root| {
        if root.anchor() != anchor {
            return Err(VerifyError::UnknownIssuer(bundle.trust_domain().clone()));
        }
        let root = root.certificate();
        check_path_len(root, below)?;
        check_validity(root, Place::Root, now)
    })
}

/// When webpki finds no path it keeps one error of many. A fault of an intermediate that the leaf
/// leads to by name says more, and says where.
fn explain(error: &webpki::Error, chain: &SvidChain, bundle: &TrustBundle, now: UnixTime) -> VerifyError {
    let plain = reason(error, bundle, now);
    if plain == VerifyError::TooMuchWork {
        return plain;
    }
    let mut left: Vec<&Certificate> = chain.intermediates().iter().collect();
    let mut wanted = &chain.leaf().issuer().der;
    while let Some(at) = left.iter().position(|c| c.subject().der == *wanted) {
        let certificate = left.swap_remove(at);
        let judged = check_signer(certificate, Place::Intermediate)
            .and_then(|()| check_validity(certificate, Place::Intermediate, now));
        if let Err(fault) = judged {
            return fault;
        }
        wanted = &certificate.issuer().der;
    }
    plain
}

fn reason(error: &webpki::Error, bundle: &TrustBundle, now: UnixTime) -> VerifyError {
    use webpki::Error as W;
    let seconds = |a: UnixTime, b: UnixTime| a.as_secs().saturating_sub(b.as_secs());
    let signer = |fault| VerifyError::Authority {
        place: Place::Intermediate,
        fault,
    };
    match error {
        W::CertExpired { not_after, .. } => VerifyError::Expired {
            place: Place::Intermediate,
            ago_seconds: seconds(now, *not_after),
        },
        W::CertNotValidYet { not_before, .. } => VerifyError::NotYetValid {
            place: Place::Intermediate,
            in_seconds: seconds(*not_before, now),
        },
        W::InvalidSignatureForPublicKey => VerifyError::Signature,
        W::UnsupportedSignatureAlgorithmContext(_)
        | W::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | W::SignatureAlgorithmMismatch => VerifyError::WeakSignature,
        W::CaUsedAsEndEntity => LeafFault::Ca.into(),
        W::EndEntityUsedAsCa => signer(AuthorityFault::NotCa),
        // The leaf's own usage was judged before, so this is about a certificate above it.
        W::RequiredEkuNotFoundContext(_) | W::EmptyEkuExtension => signer(AuthorityFault::ExtendedUsage),
        W::PathLenConstraintViolated => VerifyError::PathLength,
        W::UnsupportedCriticalExtension => VerifyError::CriticalExtension,
        W::NameConstraintViolation | W::MalformedNameConstraint => signer(AuthorityFault::NameConstraints),
        W::MaximumPathBuildCallsExceeded
        | W::MaximumPathDepthExceeded
        | W::MaximumSignatureChecksExceeded
        | W::MaximumNameConstraintComparisonsExceeded => VerifyError::TooMuchWork,
        W::UnknownIssuer => VerifyError::UnknownIssuer(bundle.trust_domain().clone()),
        other => VerifyError::Unusable(other.to_string()),
    }
}
