//! What a message of the CA changes in the bundles in force. Pure.

use std::sync::Arc;

use signet_certs::bundle::Succession;
use signet_certs::{TrustBundle, TrustDomain};
use signet_proto::authority;

use crate::svids::Trust;

/// What a received bundle is, next to the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first, or of a higher sequence.
    Newer,
    /// The same sequence and contents.
    Same,
    /// Of a lower sequence.
    Older,
    /// The same sequence with other contents: two CAs do not agree.
    Conflicting,
    /// Of a trust domain that is not ours.
    Foreign,
    /// Without a root: it would trust nobody.
    Empty,
    /// It cannot be read.
    Malformed,
    /// A domain that is federated with no longer.
    Withdrawn,
}

impl Verdict {
    /// A short word that stays the same.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Newer => "accepted",
            Self::Same => "unchanged",
            Self::Older => "older",
            Self::Conflicting => "conflicting",
            Self::Foreign => "foreign",
            Self::Empty => "empty",
            Self::Malformed => "malformed",
            Self::Withdrawn => "withdrawn",
        }
    }

    fn of(succession: Succession) -> Self {
        match succession {
            Succession::Newer => Self::Newer,
            Succession::Same => Self::Same,
            Succession::Older => Self::Older,
            Succession::Conflicting => Self::Conflicting,
        }
    }
}

/// Judges `offered` next to `current`, for the trust domain `own`. A CA always numbers its own bundle, so
/// two of one number never take turns.
#[must_use]
pub fn judge(current: Option<&TrustBundle>, offered: &TrustBundle, own: &TrustDomain) -> Verdict {
    if offered.trust_domain() != own {
        return Verdict::Foreign;
    }
    if offered.roots().is_empty() {
        return Verdict::Empty;
    }
    match current.map(|current| offered.succeeds(current)) {
        None => Verdict::Newer,
        Some(Succession::Newer) if current.is_some_and(|c| c.sequence() == offered.sequence()) => {
            Verdict::Conflicting
        }
        Some(succession) => Verdict::of(succession),
    }
}

/// What came of one message.
#[derive(Debug)]
pub struct Followed {
    /// What is in force from now on, if it changed.
    pub trust: Option<Trust>,
    /// What was done with our own bundle.
    pub own: Verdict,
    /// What was done with those of other domains, and with domains no longer named.
    pub foreign: Vec<(TrustDomain, Verdict)>,
}

/// Takes a message over. Of a message whose own bundle is not taken nothing is: it comes from a CA that
/// is behind. A foreign bundle that is refused leaves its domain's last good one in force (I4), an
/// older one the newer (I5); a domain that is not named any more goes.
#[must_use]
pub fn follow(current: Option<&Trust>, offered: authority::Trust, own: &TrustDomain) -> Followed {
    let current_own = current.and_then(Trust::own);
    let verdict = judge(current_own.map(AsRef::as_ref), &offered.own, own);
    let mut foreign = Vec::new();
    if !matches!(verdict, Verdict::Newer | Verdict::Same) {
        return Followed {
            trust: None,
            own: verdict,
            foreign,
        };
    }
    let in_force = |domain: &TrustDomain| current.and_then(|trust| trust.foreign_of(domain)).cloned();
    let mut kept: Vec<Arc<TrustBundle>> = Vec::new();
    for bundle in offered.foreign {
        let domain = bundle.trust_domain().clone();
        let before = in_force(&domain);
        let judged = before
            .as_ref()
            .map_or(Verdict::Newer, |before| Verdict::of(bundle.succeeds(before)));
        kept.push(match before {
            Some(before) if judged != Verdict::Newer => before,
            _ => Arc::new(bundle),
        });
        foreign.push((domain, judged));
    }
    for domain in offered.refused.into_iter().filter_map(|r| r.trust_domain) {
        if kept.iter().all(|bundle| *bundle.trust_domain() != domain) {
            kept.extend(in_force(&domain));
        }
        foreign.push((domain, Verdict::Malformed));
    }
    for before in current.map(Trust::foreign).unwrap_or_default() {
        let domain = before.trust_domain();
        if kept.iter().all(|bundle| bundle.trust_domain() != domain) {
            foreign.push((domain.clone(), Verdict::Withdrawn));
        }
    }
    let changes = |verdict: &Verdict| matches!(verdict, Verdict::Newer | Verdict::Withdrawn);
    let changed = changes(&verdict) || foreign.iter().any(|(_, verdict)| changes(verdict));
    let bundle = match (verdict, current_own) {
        (Verdict::Same, Some(current)) => Arc::clone(current),
        _ => Arc::new(offered.own),
    };
    Followed {
        trust: changed.then(|| Trust::new(bundle, kept)),
        own: verdict,
        foreign,
    }
}

#[cfg(test)]
mod tests;
