//! What there is to say about one SVID: who, signed by whom, how long, and every rule of the profile.
//! Chains that break rules are shown like any other; that is what showing is for.

use serde::Serialize;
use signet_certs::bundle::authority_id;
use signet_certs::certificate::Certificate;
use signet_certs::lifetime::{Jitter, backdate, plus, renew_at, renewal_floor, until};
use signet_certs::profile::{RuleCheck, check_leaf};
use signet_certs::verify::VerifyError;
use signet_certs::{SpiffeId, UnixTime};

use crate::admin::{Failure, Svid};
use crate::print::{Cell, Page, Tone, View};
use crate::svid::verify::explain;
use crate::times::{Moment, seconds_until};

/// SVIDs and where they were found.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The file or socket.
    pub source: String,
    /// When they were looked at.
    pub now: Moment,
    /// The SVIDs, or none while the agent has none.
    pub svids: Vec<Facts>,
}

/// One SVID.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The identity, or nothing where the leaf has not exactly one valid URI name.
    pub spiffe_id: Option<String>,
    /// Serial of the leaf, hex.
    pub serial: String,
    /// Kind of its key.
    pub key: String,
    /// DNS names beside the identity.
    pub dns_names: Vec<String>,
    /// Who signed the leaf.
    pub signed_by: Signer,
    /// Its times.
    #[serde(flatten)]
    pub times: Times,
    /// When the next one is asked for; nothing for a file, which nobody renews.
    pub renewal: Option<Renewal>,
    /// The chain, leaf first.
    pub chain: Vec<Link>,
    /// Whether the roots served with it accept it; nothing where there are none.
    pub bundle: Option<BundleVerdict>,
    /// The rules of the X509-SVID profile.
    pub rules: Vec<Rule>,
}

/// Who signed a leaf.
#[derive(Clone, Debug, Serialize)]
pub struct Signer {
    /// Its subject.
    pub subject: String,
    /// Its authority key identifier, as the leaf names it.
    pub authority_id: Option<String>,
}

/// Validity, by the clock.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// First second of validity.
    pub not_before: Moment,
    /// Last second in which the whole chain is valid.
    pub not_after: Moment,
    /// Seconds since the beginning of validity, which a CA puts somewhat before the issuance.
    pub age_seconds: i64,
    /// Seconds until the end; negative when it is past.
    pub seconds_left: i64,
}

/// What is known of renewal.
#[derive(Clone, Debug, Serialize)]
pub struct Renewal {
    /// When.
    pub at: Option<Moment>,
    /// Whether that is a guess: half-way, as an agent would, from the certificate alone.
    pub estimated: bool,
    /// Renewals so far.
    pub count: Option<u64>,
    /// The last failure, if the agent tells one.
    pub last_failure: Option<Failure>,
}

/// One certificate of a chain.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// Its subject; empty for a leaf of ours.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// Its serial, hex.
    pub serial: String,
    /// Its own name among authorities; nothing for the leaf.
    pub authority_id: Option<String>,
    /// Kind of its key.
    pub key: String,
    /// Last second of validity.
    pub not_after: Moment,
}

/// Whether a bundle accepts the chain.
#[derive(Clone, Debug, Serialize)]
pub struct BundleVerdict {
    /// Whether it does.
    pub accepted: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Whether the private key served with the chain is the leaf's.
    pub key_matches: bool,
}

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    /// Section of the X509-SVID standard.
    pub section: String,
    /// What is asked for.
    pub rule: String,
    /// Whether the leaf keeps it.
    pub kept: bool,
    /// What was found instead.
    pub found: Option<String>,
}

impl Facts {
    /// The facts of a chain, leaf first; nothing for an empty one.
    #[must_use]
    pub fn of(chain: &[Certificate], now: UnixTime) -> Option<Self> {
        let leaf = chain.first()?;
        let not_after = chain.iter().map(Certificate::not_after).min()?;
        let id = match leaf.names().uris.as_slice() {
            [uri] => uri.parse::<SpiffeId>().ok().map(|id| id.to_string()),
            _ => None,
        };
        Some(Self {
            spiffe_id: id,
            serial: leaf.serial_hex(),
            key: key_kind(leaf),
            dns_names: leaf.names().dns.clone(),
            signed_by: Signer {
                subject: leaf.issuer().text(),
                authority_id: leaf.authority_key_id().map(str::to_owned),
            },
            times: Times {
                not_before: Moment(leaf.not_before()),
                not_after: Moment(not_after),
                age_seconds: -seconds_until(leaf.not_before(), now),
                seconds_left: seconds_until(not_after, now),
            },
            renewal: None,
            chain: chain
                .iter()
                .enumerate()
                .map(|(place, c)| link(c, place))
                .collect(),
            bundle: None,
            rules: check_leaf(leaf).into_iter().map(rule).collect(),
        })
    }

    /// With the renewal that the agent that serves it has probably planned.
    #[must_use]
    pub fn estimated(mut self) -> Self {
        self.renewal = Some(estimate(self.times.not_before.0, self.times.not_after.0));
        self
    }

    /// With what the agent knows of renewal.
    #[must_use]
    pub fn told_by(mut self, svid: &Svid) -> Self {
        self.renewal = Some(Renewal {
            at: svid.renews_at,
            estimated: false,
            count: Some(svid.renewals),
            last_failure: svid.last_failure.clone(),
        });
        self
    }

    /// With the verdict, at this time, of the roots that were served beside it.
    #[must_use]
    pub fn judged(mut self, verdict: Result<(), VerifyError>, key_matches: bool, at: UnixTime) -> Self {
        let reason = verdict.err().map(|e| explain(&e, at));
        self.bundle = Some(BundleVerdict {
            accepted: reason.is_none(),
            reason,
            key_matches,
        });
        self
    }
}

/// Half-way between receipt and end, as agents do. Receipt is not in the certificate: it begins earlier
/// by the backdate of its life, at most a quarter of it, so the backdate of four fifths of the whole.
fn estimate(not_before: UnixTime, not_after: UnixTime) -> Renewal {
    let whole = until(not_after, not_before);
    let received = plus(not_before, backdate(whole * 4 / 5));
    let floor = renewal_floor(until(not_after, received));
    let at = renew_at(received, not_after, Jitter::NONE, floor);
    Renewal {
        at: Some(Moment(at)),
        estimated: true,
        count: None,
        last_failure: None,
    }
}

fn link(certificate: &Certificate, place: usize) -> Link {
    Link {
        subject: certificate.subject().text(),
        issuer: certificate.issuer().text(),
        serial: certificate.serial_hex(),
        authority_id: (place > 0).then(|| authority_id(certificate)),
        key: key_kind(certificate),
        not_after: Moment(certificate.not_after()),
    }
}

fn rule(check: RuleCheck) -> Rule {
    let found = check.fault.map(|fault| fault.to_string());
    Rule {
        section: check.section.into(),
        rule: check.rule.into(),
        kept: found.is_none(),
        found,
    }
}

/// The kind of a certificate's key, or why the key is not accepted.
pub(crate) fn key_kind(certificate: &Certificate) -> String {
    certificate
        .public_key()
        .map_or_else(ToString::to_string, |key| key.kind().to_string())
}

impl View for Shown {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("source", &*self.source);
        if self.svids.is_empty() {
            page.line("no SVID yet");
        }
        for facts in &self.svids {
            page.gap();
            facts.page(page, now);
        }
    }
}

impl Facts {
    fn page(&self, page: &mut Page, now: UnixTime) {
        match &self.spiffe_id {
            Some(id) => page.fact("SPIFFE ID", Cell::new(id, Tone::Bold)),
            None => page.fact("SPIFFE ID", Cell::new("none: see the rules below", Tone::Bad)),
        }
        page.fact("serial", &*self.serial);
        page.fact("key", &*self.key);
        if !self.dns_names.is_empty() {
            page.fact("DNS names", self.dns_names.join(", "));
        }
        let authority = self
            .signed_by
            .authority_id
            .as_deref()
            .unwrap_or("no authority key id");
        page.fact("signed by", format!("{} ({authority})", self.signed_by.subject));
        self.times.page(page, now);
        if let Some(renewal) = &self.renewal {
            renewal.page(page, now);
        }
        if let Some(verdict) = &self.bundle {
            verdict.page(page);
        }
        page.gap();
        let links = self
            .chain
            .iter()
            .enumerate()
            .map(|(place, link)| link.row(place, now))
            .collect();
        page.table(&["chain", "subject", "key", "serial", "ends"], links);
        page.gap();
        page.table(
            &["rule", "section", "X509-SVID profile"],
            self.rules.iter().map(Rule::row).collect(),
        );
    }
}

impl Times {
    fn page(&self, page: &mut Page, now: UnixTime) {
        let (begin, end) = (self.not_before.words(now), self.not_after.words(now));
        if self.age_seconds < 0 {
            page.fact(
                "valid from",
                Cell::new(format!("{begin}, not valid yet"), Tone::Bad),
            );
            page.fact("ends", end);
        } else {
            page.fact("valid since", begin);
            if self.seconds_left < 0 {
                page.fact("ends", Cell::new(format!("{end}, expired"), Tone::Bad));
            } else {
                page.fact("ends", end);
            }
        }
    }
}

impl Renewal {
    fn page(&self, page: &mut Page, now: UnixTime) {
        let when = self.at.map_or_else(|| "not planned".into(), |at| at.words(now));
        if self.estimated {
            page.fact(
                "next renewal",
                format!("{when}, estimated: half-way; --admin knows it"),
            );
        } else {
            page.fact("next renewal", when);
        }
        if let Some(count) = self.count {
            page.fact("renewals", count.to_string());
        }
        if let Some(failure) = &self.last_failure {
            let text = format!("{} {}: {}", failure.at.words(now), failure.reason, failure.error);
            page.fact("last failure", Cell::new(text, Tone::Warn));
        }
    }
}

impl BundleVerdict {
    fn page(&self, page: &mut Page) {
        match &self.reason {
            None => page.fact("served roots", Cell::new("accept it", Tone::Good)),
            Some(reason) => page.fact(
                "served roots",
                Cell::new(format!("refuse it: {reason}"), Tone::Bad),
            ),
        }
        let (text, tone) = if self.key_matches {
            ("belongs to the leaf", Tone::Good)
        } else {
            ("is another one", Tone::Bad)
        };
        page.fact("served key", Cell::new(text, tone));
    }
}

impl Link {
    fn row(&self, place: usize, now: UnixTime) -> Vec<Cell> {
        let subject = if self.subject.is_empty() {
            "(empty)"
        } else {
            &self.subject
        };
        let place = if place == 0 {
            "leaf".to_owned()
        } else {
            place.to_string()
        };
        vec![
            place.into(),
            subject.into(),
            (&*self.key).into(),
            (&*self.serial).into(),
            self.not_after.words(now).into(),
        ]
    }
}

impl Rule {
    fn row(&self) -> Vec<Cell> {
        let (mark, tone) = if self.kept {
            ("kept", Tone::Good)
        } else {
            ("BROKEN", Tone::Bad)
        };
        let text = match &self.found {
            None => self.rule.clone(),
            Some(found) => format!("{}: {found}", self.rule),
        };
        vec![Cell::new(mark, tone), (&*self.section).into(), text.into()]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_estimate_is_half_way_between_issuance_and_end() {
        let issued = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        for seconds in [20, 60, 480, 3_600, 86_400] {
            let life = Duration::from_secs(seconds);
            let begins = signet_certs::lifetime::minus(issued, backdate(life));
            let estimated = estimate(begins, plus(issued, life)).at;
            assert_eq!(estimated, Some(Moment(plus(issued, life / 2))), "{seconds}");
        }
    }
}
