//! `signet svid verify`: what a peer with this bundle would say to this chain.

use std::time::Duration;

use serde::Serialize;
use signet_certs::bundle::Root;
use signet_certs::certificate::Certificate;
use signet_certs::lifetime::{minus, plus};
use signet_certs::svid::SvidError;
use signet_certs::verify::{Expected, Role, VerifyError, verify_peer};
use signet_certs::{BundleSet, CertificateDer, SpiffeId, TrustBundle, UnixTime};
use signet_runtime::clock::rfc3339;

use crate::Shell;
use crate::args::VerifyArgs;
use crate::fault::{Answer, Fault};
use crate::inputs::{self, NamedBy};
use crate::print::{Cell, Page, Tone, View};
use crate::times::{Moment, span};

/// Whether a chain is accepted.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether it is.
    pub accepted: bool,
    /// A stable word for why not.
    pub reason: Option<&'static str>,
    /// A sentence for why not.
    pub explanation: Option<String>,
    /// The identity it was accepted as.
    pub spiffe_id: Option<String>,
    /// The time it was judged by.
    pub at: Moment,
    /// The trust domain of the bundle.
    pub trust_domain: String,
    /// Who says so.
    pub trust_domain_from: NamedBy,
    /// The roots that accept it.
    pub accepted_by: Vec<String>,
}

impl View for Verdict {
    fn page(&self, page: &mut Page, now: UnixTime) {
        if self.accepted {
            page.fact("verdict", Cell::new("accepted", Tone::Good));
        } else {
            page.fact("verdict", Cell::new("refused", Tone::Bad));
        }
        for (name, value) in [("reason", self.reason), ("because", self.explanation.as_deref())] {
            if let Some(value) = value {
                page.fact(name, value);
            }
        }
        if let Some(id) = &self.spiffe_id {
            page.fact("SPIFFE ID", &**id);
        }
        for root in &self.accepted_by {
            page.fact("root", &**root);
        }
        let from = match self.trust_domain_from {
            NamedBy::Operator => "given",
            NamedBy::Ca => "named by the CA",
            NamedBy::Roots => "named by the roots",
            NamedBy::Chain => "the chain's own; the bundle names none",
        };
        page.fact("trust domain", format!("{} ({from})", self.trust_domain));
        page.fact("judged at", self.at.words(now));
    }
}

pub(crate) fn run(args: VerifyArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let chain = inputs::certificates(&args.chain)?;
    let id = chain
        .first()
        .and_then(|leaf| signet_certs::profile::leaf_id(leaf).ok());
    let fallback = args.id.as_ref().or(id.as_ref()).map(SpiffeId::trust_domain);
    let named = inputs::bundle(&args.bundle, args.trust_domain.as_ref(), fallback);
    let named = match (named, id) {
        // A leaf that is no SVID is refused by every bundle, whosever it is.
        (Err(_), None) if args.trust_domain.is_none() => {
            inputs::bundle(&args.bundle, None, "unknown".parse().ok())?
        }
        (named, _) => named?,
    };
    let at = args.at.unwrap_or(Moment(shell.now()));
    let expected = args.id.map_or(Expected::Any, Expected::Id);
    let presented: Vec<_> = chain.iter().map(|c| c.der().clone()).collect();
    let judged = judge(&presented, &named.bundle, &expected, at.0);
    let verdict = Verdict {
        accepted: judged.is_ok(),
        reason: judged.as_ref().err().map(reason),
        explanation: judged.as_ref().err().map(|e| explain(e, at.0)),
        spiffe_id: judged.as_ref().ok().map(ToString::to_string),
        at,
        trust_domain: named.bundle.trust_domain().to_string(),
        trust_domain_from: named.named_by,
        accepted_by: match &judged {
            Ok(_) => accepting_roots(&presented, &named.bundle, &expected, at.0),
            Err(_) => Vec::new(),
        },
    };
    shell.show(&verdict)?;
    Ok(if verdict.accepted { Answer::Yes } else { Answer::No })
}

/// As server and as client: an SVID has to do for both.
fn judge(
    presented: &[CertificateDer<'static>],
    bundle: &TrustBundle,
    expected: &Expected,
    at: UnixTime,
) -> Result<SpiffeId, VerifyError> {
    let bundles = BundleSet::of(std::sync::Arc::new(bundle.clone()));
    verify_peer(presented, &bundles, Role::Server, at)?;
    let id = verify_peer(presented, &bundles, Role::Client, at)?;
    expected.check(&id)?;
    Ok(id)
}

fn accepting_roots(
    presented: &[CertificateDer<'static>],
    bundle: &TrustBundle,
    expected: &Expected,
    at: UnixTime,
) -> Vec<String> {
    let accepts = |root: &&Root| {
        let certificate: Certificate = root.certificate().clone();
        TrustBundle::new(bundle.trust_domain().clone(), vec![certificate], 0)
            .is_ok_and(|one| judge(presented, &one, expected, at).is_ok())
    };
    bundle
        .roots()
        .iter()
        .filter(accepts)
        .map(Root::authority_id)
        .collect()
}

/// The sentence of a refusal at `at`. Seconds are for machines, so the time they mean is added.
pub(crate) fn explain(error: &VerifyError, at: UnixTime) -> String {
    let seconds = |by: u64| Duration::from_secs(by);
    let (event, by, when) = match error {
        VerifyError::Expired { ago_seconds: by, .. } => ("ended", *by, minus(at, seconds(*by))),
        VerifyError::NotYetValid { in_seconds: by, .. } => ("begins", *by, plus(at, seconds(*by))),
        _ => return error.to_string(),
    };
    format!("{error} ({}: it {event} at {})", span(by), rfc3339(when))
}

/// A stable word for a refusal.
fn reason(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::Svid(SvidError::Leaf(_)) => "not_an_svid",
        VerifyError::Svid(_) => "bad_chain",
        VerifyError::UnknownTrustDomain(_) => "other_trust_domain",
        VerifyError::Expired { .. } => "expired",
        VerifyError::NotYetValid { .. } => "not_yet_valid",
        VerifyError::UnknownIssuer(_) => "unknown_issuer",
        VerifyError::Signature => "bad_signature",
        VerifyError::WeakSignature => "weak_signature",
        VerifyError::Authority { .. } => "bad_authority",
        VerifyError::PathLength => "path_length",
        VerifyError::CriticalExtension => "critical_extension",
        VerifyError::TooMuchWork => "too_much_work",
        VerifyError::OtherId { .. } => "other_id",
        _ => "unusable",
    }
}
