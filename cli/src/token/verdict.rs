//! Who judged a token, how, and what to do about it. Reasons are the CA's own words.

use serde::Serialize;
use signet_certs::UnixTime;
use signet_certs::account_token::{AccountClaims, AccountTokenError};

use crate::admin::TokenVerdict;
use crate::print::{Cell, Page, Tone, View};
use crate::times::{Moment, relative, seconds_until};

/// Who judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// The CA itself.
    Ca,
    /// The API server, by a TokenReview.
    ApiServer,
    /// Nobody: only the token's own words were read.
    Nobody,
}

/// What was found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A stable word, as in the CA's metrics and audit.
    pub reason: String,
    /// A sentence.
    pub explanation: String,
    /// What to do; may have several lines.
    pub fix: String,
}

/// What there is to say about a token. Never the token.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Who judged.
    pub judged_by: Judge,
    /// Whether the CA will accept it; nothing where nobody was asked.
    pub accepted: Option<bool>,
    /// A stable word for why not.
    pub reason: Option<String>,
    /// A sentence for why not.
    pub explanation: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
    /// The audience it has to have.
    pub audience: String,
    /// What it says of itself.
    #[serde(flatten)]
    pub says: Says,
    /// The identity it is good for.
    pub spiffe_id: Option<String>,
}

/// What the token says of itself, unverified.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Says {
    /// Its issuer.
    pub issuer: Option<String>,
    /// Its audiences.
    pub audiences: Vec<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// The pod it is bound to.
    pub pod: Option<String>,
    /// That pod's UID.
    pub pod_uid: Option<String>,
    /// That pod's node.
    pub node: Option<String>,
    /// When it was issued.
    pub issued_at: Option<Moment>,
    /// When it ends.
    pub expires_at: Option<Moment>,
    /// Seconds until then; negative when it is past.
    pub seconds_left: Option<i64>,
}

impl Finding {
    fn new(reason: &str, explanation: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            explanation: explanation.into(),
            fix: fix.into(),
        }
    }

    /// A text that is no token.
    #[must_use]
    pub fn unreadable(error: &AccountTokenError) -> Self {
        let fix = "pass the whole file of the projected token, as mounted, not a copy of a part of it";
        Self::new("token_malformed", error.to_string(), fix)
    }

    /// The first thing in its own words that ends it, in the CA's order; nothing if the API server has
    /// to be asked.
    #[must_use]
    pub fn of_claims(claims: &AccountClaims, audience: &str, now: UnixTime) -> Option<Self> {
        if !claims.audiences.iter().any(|a| a == audience) {
            return Some(Self::audience(&claims.audiences, audience));
        }
        match claims.expires_at {
            None => return Some(Self::no_expiry(audience)),
            Some(end) if end <= now => return Some(Self::expired(end, now)),
            Some(_) => {}
        }
        if let Some(begin) = claims.not_before.filter(|begin| *begin > now) {
            let explanation = format!("it is valid only {}", relative(begin, now));
            let fix = "compare this machine's clock with the API server's (NTP)";
            return Some(Self::new("token_not_yet_valid", explanation, fix));
        }
        if claims.account().is_none() {
            let subject = claims.subject.as_deref().unwrap_or("nobody");
            return Some(Self::not_account(subject));
        }
        None
    }

    fn audience(found: &[String], audience: &str) -> Self {
        let found = match found {
            [] => "no audience".to_owned(),
            found => format!("audience {}", found.join(", ")),
        };
        let explanation = format!("it has {found}; the CA accepts {audience}");
        Self::new("token_audience", explanation, projected(audience))
    }

    fn no_expiry(audience: &str) -> Self {
        let explanation = "it never expires, as only legacy tokens from Secrets do; the CA refuses those";
        Self::new("token_no_expiry", explanation, projected(audience))
    }

    fn expired(end: UnixTime, now: UnixTime) -> Self {
        let fix = "read the mounted file at every use: kubelet replaces it at 80 % of its life, copies grow old; \
                   if the mounted file itself is old, look at the pod's node";
        Self::new("token_expired", format!("it expired {}", relative(end, now)), fix)
    }

    /// A user that is no service account.
    #[must_use]
    pub fn not_account(user: &str) -> Self {
        let fix = "use the token of a service account: SVIDs are made for those only";
        Self::new(
            "token_subject",
            format!("it belongs to {user:?}, which is no service account"),
            fix,
        )
    }

    /// The API server refused it, in its own words.
    #[must_use]
    pub fn review(error: &str, audience: &str) -> Self {
        let explanation = format!("the API server refused it: {error}");
        let has = |words: &str| error.to_ascii_lowercase().contains(words);
        let fix = if has("audience") {
            return Self::new("review_refused", explanation, projected(audience));
        } else if has("invalidated") || has("pod uid") || has("pods \"") {
            "the pod it was bound to is gone; take the token of a pod that lives"
        } else if has("serviceaccount") {
            "its service account was deleted or made anew; restart the pod"
        } else if has("expired") {
            "read the mounted file at every use: kubelet replaces it before it ends"
        } else {
            "make sure the token is of this cluster and whole; after a change of signing keys, restart the pod"
        };
        Self::new("review_refused", explanation, fix)
    }

    /// The API server answered, but not for our audience.
    #[must_use]
    pub fn review_audiences(audience: &str) -> Self {
        let explanation =
            format!("the API server did not confirm audience {audience}; it may ignore audiences");
        let fix = "use an API server that checks audiences (Kubernetes 1.20 or later), and no token \
                   authenticator before it that does not";
        Self::new("review_audiences", explanation, fix)
    }
}

/// What to put into the pod, with the right audience.
fn projected(audience: &str) -> String {
    format!(
        "mount a projected token with this audience:\n\
         volumes:\n\
         - name: signet-token\n  projected:\n    sources:\n    - serviceAccountToken:\n        \
         audience: {audience}\n        expirationSeconds: 43200\n        path: signet-token"
    )
}

impl Verdict {
    /// Nothing but what the token says.
    #[must_use]
    pub fn new(audience: &str, claims: Option<&AccountClaims>, now: UnixTime) -> Self {
        let says = claims.map_or_else(Says::default, |claims| Says {
            issuer: claims.issuer.clone(),
            audiences: claims.audiences.clone(),
            subject: claims.subject.clone(),
            pod: claims.pod.as_ref().map(|(name, _)| name.clone()),
            pod_uid: claims.pod.as_ref().and_then(|(_, uid)| uid.clone()),
            node: claims.node.clone(),
            issued_at: claims.issued_at.map(Moment),
            expires_at: claims.expires_at.map(Moment),
            seconds_left: claims.expires_at.map(|end| seconds_until(end, now)),
        });
        Self {
            judged_by: Judge::Nobody,
            accepted: None,
            reason: None,
            explanation: None,
            fix: None,
            audience: audience.into(),
            says,
            spiffe_id: None,
        }
    }

    /// As the CA answered.
    #[must_use]
    pub fn said_by_ca(mut self, answer: TokenVerdict) -> Self {
        self.judged_by = Judge::Ca;
        self.accepted = Some(answer.accepted);
        self.spiffe_id = answer.spiffe_id;
        if !answer.accepted {
            self.reason = answer.reason;
            self.explanation = answer.explanation;
            self.fix = answer.fix.filter(|fix| !fix.is_empty());
            // The CA names the field to set; the snippet around it is what people paste.
            if self.reason.as_deref() == Some("token_audience") {
                self.fix = Some(projected(&self.audience));
            }
        }
        self
    }

    /// Refused.
    #[must_use]
    pub fn refused(mut self, judge: Judge, finding: Finding) -> Self {
        self.judged_by = judge;
        self.accepted = Some(false);
        self.reason = Some(finding.reason);
        self.explanation = Some(finding.explanation);
        self.fix = Some(finding.fix);
        self
    }

    /// Accepted by the API server.
    #[must_use]
    pub fn accepted(mut self) -> Self {
        self.judged_by = Judge::ApiServer;
        self.accepted = Some(true);
        self
    }

    /// Nothing in its own words ends it, and nobody was asked.
    #[must_use]
    pub fn unverified(mut self) -> Self {
        self.explanation = Some("nothing in it speaks against it, but nothing was verified".into());
        self
    }
}

impl View for Verdict {
    fn page(&self, page: &mut Page, now: UnixTime) {
        let verdict = match self.accepted {
            Some(true) => Cell::new("the CA will accept it", Tone::Good),
            Some(false) => Cell::new("the CA will refuse it", Tone::Bad),
            None => Cell::new("not known", Tone::Warn),
        };
        page.fact("verdict", verdict);
        page.fact(
            "judged by",
            match self.judged_by {
                Judge::Ca => "the CA",
                Judge::ApiServer => "the API server (a TokenReview)",
                Judge::Nobody => "nobody: only the token's own words were read",
            },
        );
        for (name, value) in [("reason", &self.reason), ("because", &self.explanation)] {
            if let Some(value) = value {
                page.fact(name, &**value);
            }
        }
        self.says.page(page, &self.audience, now);
        if let Some(id) = &self.spiffe_id {
            page.fact("SPIFFE ID", &**id);
        }
        if self.says.pod.is_none() && self.accepted == Some(true) {
            page.gap();
            page.line(Cell::new(
                "It is not bound to a pod, so deleting a pod does not end it; prefer a projected token.",
                Tone::Warn,
            ));
        }
        if let Some(fix) = &self.fix {
            page.gap();
            page.heading("What to do");
            fix.lines().for_each(|line| page.line(line));
        }
    }
}

impl Says {
    fn page(&self, page: &mut Page, audience: &str, now: UnixTime) {
        page.fact("issuer", self.issuer.as_deref().unwrap_or("none"));
        let fits = self.audiences.iter().any(|a| a == audience);
        let tone = if fits { Tone::Plain } else { Tone::Bad };
        let audiences = if self.audiences.is_empty() {
            "none".into()
        } else {
            self.audiences.join(", ")
        };
        page.fact(
            "audiences",
            Cell::new(format!("{audiences} (asked for: {audience})"), tone),
        );
        page.fact("subject", self.subject.as_deref().unwrap_or("none"));
        let pod = match (&self.pod, &self.pod_uid) {
            (Some(name), Some(uid)) => format!("{name} ({uid})"),
            (Some(name), None) => name.clone(),
            (None, _) => "not bound to a pod".into(),
        };
        page.fact("pod", pod);
        if let Some(node) = &self.node {
            page.fact("node", &**node);
        }
        page.fact(
            "expires",
            self.expires_at
                .map_or_else(|| "never".into(), |end| end.words(now)),
        );
    }
}

#[cfg(test)]
mod tests;
