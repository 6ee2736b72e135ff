//! Which side is wrong, from what a handshake came to and what the other side says of it. Pure: answers in, words out.

use serde::Serialize;

use super::asked::{Decided, Step, TlsChecked};

/// Who has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The proxy that was asked for the handshake.
    From,
    /// Whoever is at the destination.
    To,
    /// What lies between them: names, routes, firewalls.
    Between,
}

/// What a handshake came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ruling {
    /// Whether both sides proved who they are, and accepted each other.
    pub good: bool,
    /// Who is wrong; nothing where nobody is, or nobody can tell.
    pub side: Option<Side>,
    /// A sentence.
    pub sentence: String,
    /// What to do.
    pub fix: Vec<String>,
}

impl Ruling {
    fn good(sentence: String) -> Self {
        Self {
            good: true,
            side: None,
            sentence,
            fix: Vec::new(),
        }
    }

    fn bad(side: impl Into<Option<Side>>, sentence: impl Into<String>, fix: &[&str]) -> Self {
        Self {
            good: false,
            side: side.into(),
            sentence: sentence.into(),
            fix: fix.iter().map(|&fix| fix.to_owned()).collect(),
        }
    }
}

/// The ruling on what FROM's proxy found, with the word of TO's proxy where it was asked.
#[must_use]
pub fn of(checked: &TlsChecked, to: Option<&Decided>) -> Ruling {
    let case = Case { checked, to };
    match checked.outcome.as_str() {
        "ok" => case.good(),
        "reset_after" => case.reset_after(),
        "plaintext" => case.plaintext(),
        "unlisted" => case.unlisted(),
        "unresolved" | "unreachable" | "connect_slow" => case.away(),
        "no_svid" | "svid_expired" => case.without_svid(),
        "no_tls" | "handshake_slow" | "closed" | "reset" => case.no_tls(),
        "other_identity" => case.other_identity(),
        "untrusted_root" => case.untrusted(),
        "peer_expired" | "peer_not_yet_valid" | "bad_certificate" => case.bad_certificate(),
        "refused_by_peer" => case.refused(),
        "incompatible" => Ruling::bad(
            None,
            format!("the two sides have no TLS in common: {}", case.error()),
            &["set tls12: true on the side that speaks TLS 1.3 only, or bring the other one to TLS 1.3"],
        ),
        _ => Ruling::bad(
            None,
            case.error(),
            &["ask again; if it stays, look into the logs of both sides"],
        ),
    }
}

struct Case<'a> {
    checked: &'a TlsChecked,
    to: Option<&'a Decided>,
}

impl Case<'_> {
    fn error(&self) -> String {
        let error = self.checked.error.clone();
        error.unwrap_or_else(|| {
            format!(
                "the proxy says {}, which this signet does not know",
                self.checked.outcome
            )
        })
    }

    fn destination(&self) -> &str {
        &self.checked.destination
    }

    fn own(&self) -> &str {
        self.checked
            .own
            .as_ref()
            .map_or("the caller", |own| &own.spiffe_id)
    }

    fn presented(&self) -> &str {
        let tls = self.checked.tls.as_ref();
        tls.and_then(|tls| tls.presented.as_deref())
            .unwrap_or("somebody without a SPIFFE ID")
    }

    fn place(&self) -> String {
        let listed = self.checked.listed.as_ref();
        listed.map_or_else(|| "its configuration".to_owned(), |listed| listed.by.clone())
    }

    fn expected(&self) -> String {
        let listed = self.checked.listed.as_ref();
        listed.map_or_else(String::new, |listed| listed.expected.join(" or "))
    }

    /// The step of TO's proxy, if it was asked and got there.
    fn step(&self, name: &str) -> Option<&Step> {
        self.to?.step(name)
    }

    /// The same, where it refused.
    fn refusal(&self, name: &str) -> Option<&Step> {
        self.step(name).filter(|step| step.is_refused())
    }

    /// What to write in the calling proxy's configuration.
    fn meet_by_mutual_tls(&self) -> String {
        let id = self.to.and_then(|to| to.spiffe_id.as_deref());
        format!("mtls: {{expected: [{}]}}", id.unwrap_or("spiffe://…"))
    }

    fn strict(&self) -> &'static str {
        match self.mode() {
            Some("STRICT") => ", and the other side takes mutual TLS only (STRICT)",
            _ => "",
        }
    }

    fn mode(&self) -> Option<&str> {
        self.to?.mode.as_deref()
    }

    fn good(&self) -> Ruling {
        Ruling::good(format!(
            "mutual TLS: {} and {} have proved who they are",
            self.own(),
            self.presented()
        ))
    }

    fn reset_after(&self) -> Ruling {
        let mut ruling = self.good();
        ruling.sentence += ", and then the connection was reset";
        ruling.fix = vec![
            "certificates are not the reason: a policy refuses the connection, or the application is away; `signet why` \
             tells which"
                .to_owned(),
        ];
        ruling
    }

    fn plaintext(&self) -> Ruling {
        let sentence = format!(
            "{} meets {} by plaintext, by choice{}",
            self.place(),
            self.destination(),
            self.strict()
        );
        let fix = format!(
            "in the configuration of the calling proxy, {}: {} in place of plaintext",
            self.place(),
            self.meet_by_mutual_tls()
        );
        Ruling::bad(Side::From, sentence, &[&fix])
    }

    fn unlisted(&self) -> Ruling {
        let (then, strict) = match self.checked.is_plain_by_default() {
            true => (
                "it goes out in plaintext, as it comes (default_outbound: plaintext)",
                self.strict(),
            ),
            false => ("connections to it are refused (default_outbound: refuse)", ""),
        };
        let sentence = format!(
            "{} is not in the configuration of the calling proxy, so nothing was dialled; {then}{strict}",
            self.destination()
        );
        let fix = format!(
            "list it under outbound or destinations, with {}; what is listed is on the calling proxy's admin page \
             /config: `curl http://localhost:15000/config` beside it, or through `kubectl port-forward`",
            self.meet_by_mutual_tls()
        );
        Ruling::bad(Side::From, sentence, &[&fix])
    }

    fn away(&self) -> Ruling {
        let (side, fix) = match self.checked.outcome.as_str() {
            "unresolved" => (
                Side::Between,
                "the name in the configuration, and the resolver of the calling proxy",
            ),
            "connect_slow" => (
                Side::Between,
                "a NetworkPolicy or firewall between the two, and whether anything runs at that address",
            ),
            _ => (
                Side::To,
                "does the other side's proxy run, and is this the address that it listens on?",
            ),
        };
        Ruling::bad(side, self.error(), &[fix])
    }

    fn without_svid(&self) -> Ruling {
        let sentence = format!("the calling proxy cannot present itself: {}", self.error());
        let fix =
            "look at the agent of the calling workload: `signet svid show`, and the alert SignetSvidEnding";
        Ruling::bad(Side::From, sentence, &[fix])
    }

    fn no_tls(&self) -> Ruling {
        if let Some(ruling) = self.by_certificate("") {
            return ruling;
        }
        if let Some(step) = self.refusal("mode") {
            let fix = match step.reason.as_deref() {
                Some("policy_not_ready") => {
                    "the other side's proxy waits for policies: `signet proxy policies` there says why"
                }
                _ => {
                    "a PeerAuthentication of mode STRICT or PERMISSIVE for that port, or plaintext on this side"
                }
            };
            return Ruling::bad(Side::To, step.sentence.clone(), &[fix]);
        }
        let sentence = format!("nothing at {} speaks TLS: {}", self.destination(), self.error());
        let fix = "is the application itself at that address, with no proxy in front? Send the traffic to its proxy, or \
                   meet it by plaintext";
        Ruling::bad(Side::To, sentence, &[fix])
    }

    /// The other side's proxy got as far as certificates, and no further: by its own word.
    fn by_certificate(&self, alert: &str) -> Option<Ruling> {
        let step = self.refusal("certificate")?;
        if step.reason.as_deref() == Some("identity_none") {
            let sentence = format!("the other side cannot present itself: {}", step.sentence);
            let fix = "look at the agent of the other side's workload: `signet svid show` there, and the alert \
                       SignetSvidEnding";
            return Some(Ruling::bad(Side::To, sentence, &[fix]));
        }
        let (by, fix) = match alert {
            "" => (String::new(), of_alert("unknown_ca")),
            alert => (format!(" (alert {alert})"), of_alert(alert)),
        };
        let sentence = format!("the other side refuses {}{by}: {}", self.own(), step.sentence);
        Some(Ruling::bad(Side::To, sentence, &[fix]))
    }

    fn other_identity(&self) -> Ruling {
        let (presented, expected) = (self.presented(), self.expected());
        let sentence = format!(
            "{} is {presented}, and {expected} is expected",
            self.destination()
        );
        let (side, first) = match self.to.and_then(|to| to.spiffe_id.as_deref()) {
            Some(id) if id == presented => (
                Some(Side::From),
                format!(
                    "if {presented} is right, add it to the expected identities of {}",
                    self.place()
                ),
            ),
            _ => (
                None,
                format!(
                    "if {presented} is right, add it to the expected identities of {} of the calling proxy",
                    self.place()
                ),
            ),
        };
        let second = format!(
            "if {expected} is right, another workload answers at that address: correct the address, or its service account"
        );
        Ruling::bad(side, sentence, &[&first, &second])
    }

    fn untrusted(&self) -> Ruling {
        let sentence = format!(
            "the calling proxy does not trust who signed the other side: {}",
            self.error()
        );
        Ruling::bad(
            Side::From,
            sentence,
            &[
                "both sides get their SVIDs from one CA, or their trust domains federate: `signet bundle show`, `signet \
                 federation list` on the calling side",
                "if they did until now, the calling side's bundle is old: `signet proxy secrets` shows its roots",
            ],
        )
    }

    fn bad_certificate(&self) -> Ruling {
        let sentence = format!("the other side's certificate is refused: {}", self.error());
        let fix = match self.checked.outcome.as_str() {
            "peer_expired" => {
                "the other side does not renew: `signet svid show` and `signet svid rotate` at its agent"
            }
            "peer_not_yet_valid" => {
                "a clock is wrong: compare those of the CA and of the calling side's node"
            }
            _ => "it is no X509-SVID; the other side is to present the one that its agent serves",
        };
        Ruling::bad(Side::To, sentence, &[fix])
    }

    fn refused(&self) -> Ruling {
        let alert = self.checked.alert.as_deref().unwrap_or_default();
        if let Some(ruling) = self.by_certificate(alert) {
            return ruling;
        }
        let sentence = format!("the other side ended the handshake with the alert {alert}");
        let mut ruling = Ruling::bad(Side::To, sentence, &[of_alert(alert)]);
        if self.to.is_none() {
            let fix = "its own reason is in its access record, and in this answer with --to-proxy";
            ruling.fix.push(fix.to_owned());
        }
        ruling
    }
}

/// What an alert asks for (RFC 8446 §6.2).
fn of_alert(alert: &str) -> &'static str {
    match alert {
        "unknown_ca" | "certificate_unknown" | "bad_certificate" | "unsupported_certificate" => {
            "it does not trust who signed the calling side: one CA for both, or federation; if they had it until now, its \
             bundle is old: `signet proxy secrets` there shows its roots"
        }
        "certificate_expired" => "the calling side's SVID has ended, or the other side's clock is wrong",
        "certificate_revoked" => "the calling side's certificate was revoked",
        "certificate_required" => "the calling side presented no certificate: `signet proxy secrets` there",
        "protocol_version" => "the two sides have no version of TLS in common: tls12: true on the newer one",
        "no_application_protocol" => "it wants another ALPN than signet and istio: it is no port of the mesh",
        "access_denied" => "it knows who calls, and does not let it in: its own policy",
        "unrecognized_name" => "it serves by names of TLS, and knows none: it is no port of the mesh",
        _ => "look into the other side's log",
    }
}

#[cfg(test)]
pub(super) mod tests;
