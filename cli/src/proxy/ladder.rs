//! `signet why` as a ladder: each rung a question that has to be answered with yes, in the order in which a connection
//! and its request meet them. Pure: answers in, rungs and one verdict out.

use serde::Serialize;

use super::asked::{Decided, Step, TlsChecked};
use super::ruling::Ruling;

/// How a rung stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds.
    Ok,
    /// It does not, and the request ends here.
    Failed,
    /// It is for somebody to say who was not asked.
    Depends,
    /// Nobody was asked.
    NotAsked,
}

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rung {
    /// Its name.
    pub rung: &'static str,
    /// How it stands.
    pub state: State,
    /// Why.
    pub sentence: String,
    /// The word of the access record, for a refusal by the other side's proxy.
    pub reason: Option<String>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// What to do.
    pub fix: Vec<String>,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It would be served.
    Allowed,
    /// It would not.
    Refused,
    /// Not everybody was asked.
    Unknown,
}

/// The whole ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ladder {
    /// The verdict.
    pub verdict: Verdict,
    /// The rung that decides it; nothing where all hold.
    pub rung: Option<&'static str>,
    /// What the calling application gets, for a refusal.
    pub caller_gets: Option<String>,
    /// The rungs.
    pub rungs: Vec<Rung>,
}

impl Rung {
    fn new(rung: &'static str, state: State, sentence: impl Into<String>) -> Self {
        Self {
            rung,
            state,
            sentence: sentence.into(),
            reason: None,
            policy: None,
            fix: Vec::new(),
        }
    }

    fn failed(rung: &'static str, ruling: &Ruling) -> Self {
        Self {
            fix: ruling.fix.clone(),
            ..Self::new(rung, State::Failed, ruling.sentence.clone())
        }
    }

    fn not_asked(rung: &'static str, sentence: &str) -> Self {
        Self::new(rung, State::NotAsked, sentence)
    }
}

/// The ladder of FROM's handshake, the ruling on it, and the word of TO's proxy, or why there is none.
#[must_use]
pub fn climb(checked: &TlsChecked, ruling: &Ruling, to: Result<&Decided, &str>) -> Ladder {
    let case = Case {
        checked,
        ruling,
        to: to.ok(),
        silence: to.err().unwrap_or_default(),
    };
    let rungs = vec![
        case.source(),
        case.destination(),
        case.mode(),
        case.certificates(),
        case.step("request"),
        case.step("token"),
        case.policies(),
        case.step("upstream"),
    ];
    let first = |state| rungs.iter().find(|rung| rung.state == state);
    let open = || first(State::Depends).or_else(|| first(State::NotAsked));
    let (verdict, decides) = match (first(State::Failed), open()) {
        (Some(failed), _) => (Verdict::Refused, Some(failed.rung)),
        (None, Some(open)) => (Verdict::Unknown, Some(open.rung)),
        (None, None) => (Verdict::Allowed, None),
    };
    let caller_gets = match verdict {
        Verdict::Refused => decides.map(|rung| case.caller_gets(rung)),
        _ => None,
    };
    Ladder {
        verdict,
        rung: decides,
        caller_gets,
        rungs,
    }
}

struct Case<'a> {
    checked: &'a TlsChecked,
    ruling: &'a Ruling,
    to: Option<&'a Decided>,
    /// Why it says nothing.
    silence: &'a str,
}

/// Nobody was named who could be asked.
pub const NOT_NAMED: &str = "the other side's proxy was not asked; --to-proxy names it";

impl Case<'_> {
    fn outcome(&self) -> &str {
        &self.checked.outcome
    }

    fn source(&self) -> Rung {
        if matches!(self.outcome(), "no_svid" | "svid_expired") {
            return Rung::failed("source", self.ruling);
        }
        let words = match &self.checked.own {
            Some(own) if own.valid => format!("the calling proxy runs, and is {}", own.spiffe_id),
            Some(own) => format!("the calling proxy runs; the SVID of {} has ended", own.spiffe_id),
            None => "the calling proxy runs; it has no SVID".to_owned(),
        };
        Rung::new("source", State::Ok, words)
    }

    fn destination(&self) -> Rung {
        match self.outcome() {
            // Whether it answers was not tried.
            "unlisted" if self.checked.is_plain_by_default() => {
                return Rung {
                    state: State::Depends,
                    ..Rung::failed("destination", self.ruling)
                };
            }
            "unlisted" | "unresolved" | "unreachable" | "connect_slow" => {
                return Rung::failed("destination", self.ruling);
            }
            _ => {}
        }
        let by = self.checked.listed.as_ref().map_or("", |listed| &listed.by);
        let address = self.checked.address.map(|address| address.to_string());
        let address = address.unwrap_or_else(|| self.checked.destination.clone());
        Rung::new("destination", State::Ok, format!("{by}: {address} answers"))
    }

    /// Nothing was reached, so nothing further is known from this side.
    fn is_away(&self) -> bool {
        self.checked.address.is_none() && !self.checked.is_plain_by_default()
    }

    /// No handshake began, and by the word of the other side's proxy that is for no certificate.
    fn is_without_tls(&self) -> bool {
        let refused = self.of_to("certificate").is_some_and(Step::is_refused);
        self.checked.is_mutual() && self.checked.is_without_handshake() && !refused
    }

    fn mode(&self) -> Rung {
        let step = self.of_to("mode");
        if let Some(step) = step {
            // By its configuration all is well; what is at the address is not what was asked.
            if self.is_without_tls() && !step.is_refused() {
                return Rung::failed("mode", self.ruling);
            }
            let mut rung = of_step("mode", step);
            if rung.state == State::Failed {
                rung.fix.clone_from(&self.ruling.fix);
            }
            return rung;
        }
        if self.is_away() {
            return Rung::not_asked("mode", "nothing was reached that could demand anything");
        }
        match (self.checked.is_mutual(), self.outcome()) {
            (true, _) if self.is_without_tls() => Rung::failed("mode", self.ruling),
            (true, "no_svid" | "svid_expired") => Rung::not_asked("mode", self.silence),
            (true, _) => Rung::new("mode", State::Ok, "both sides speak mutual TLS"),
            (false, _) => Rung::not_asked(
                "mode",
                "the calling side speaks plaintext; whether the other demands mutual TLS was not asked: --to-proxy",
            ),
        }
    }

    fn certificates(&self) -> Rung {
        if self.is_away() {
            return Rung::not_asked("certificates", "nothing was reached that could present one");
        }
        if !self.checked.is_mutual() {
            return Rung::new("certificates", State::Ok, "plaintext: there are none");
        }
        match self.outcome() {
            "ok" | "reset_after" => Rung::new("certificates", State::Ok, self.handshake_words()),
            "no_svid" | "svid_expired" => {
                Rung::not_asked("certificates", "there was no handshake without an SVID")
            }
            _ if self.is_without_tls() => Rung::not_asked("certificates", "there was no handshake"),
            _ => Rung::failed("certificates", self.ruling),
        }
    }

    fn handshake_words(&self) -> String {
        let presented = self.checked.tls.as_ref().and_then(|tls| tls.presented.as_deref());
        let presented = presented.unwrap_or("nobody");
        format!("the other side is {presented}, as expected, and accepts ours")
    }

    fn of_to(&self, name: &str) -> Option<&Step> {
        self.to?.step(name)
    }

    fn is_tcp(&self) -> bool {
        self.to.is_some_and(|to| to.protocol == "tcp")
    }

    /// A rung that only TO's proxy knows.
    fn step(&self, rung: &'static str) -> Rung {
        let name = match rung {
            "policies" => "policy",
            "upstream" => "application",
            other => other,
        };
        if let Some(step) = self.of_to(name) {
            let mut found = of_step(rung, step);
            if found.state == State::Failed {
                found.fix = fix_of(rung, step);
            }
            return found;
        }
        if self.to.is_none() {
            return Rung::not_asked(rung, self.silence);
        }
        match rung {
            "request" | "token" if self.is_tcp() => Rung::new(
                rung,
                State::Ok,
                "the port is judged as TCP: there is no request to look at",
            ),
            // What is behind it is reached by no other request.
            "request" if self.of_to("token").or(self.of_to("policy")).is_some() => {
                Rung::new(rung, State::Ok, "method, path and headers mean one thing only")
            }
            "token" if self.of_to("policy").is_some() => Rung::not_asked(
                rung,
                "a CUSTOM policy ends it before tokens are looked at: see policies",
            ),
            "policies" if self.of_to("token").is_some_and(|step| !step.is_refused()) => {
                Rung::not_asked(rung, "the token decides, of which nothing is known yet")
            }
            _ => Rung::not_asked(rung, "the other side's proxy refused before"),
        }
    }

    fn policies(&self) -> Rung {
        if self.to.is_none() && self.outcome() == "reset_after" {
            let sentence = "the other side reset the connection after the handshake: a policy refuses it, or its \
                            application is away";
            let mut rung = Rung::new("policies", State::Failed, sentence);
            rung.fix
                .push("ask the other side's proxy too, by --to-proxy, for the policy and rule".into());
            return rung;
        }
        self.step("policies")
    }

    fn caller_gets(&self, rung: &str) -> String {
        let http = self
            .checked
            .listed
            .as_ref()
            .is_some_and(|listed| listed.protocol == "http");
        let status = match rung {
            "request" => self.of_to("request"),
            "token" => self.of_to("token"),
            "policies" => self.of_to("policy"),
            "upstream" => self.of_to("application"),
            _ => None,
        };
        match status.and_then(|step| step.status) {
            Some(status) => status.to_string(),
            None if http => "503 from its own proxy".to_owned(),
            None => "connection reset".to_owned(),
        }
    }
}

fn of_step(rung: &'static str, step: &Step) -> Rung {
    let state = match step.outcome.as_str() {
        "ok" => State::Ok,
        "refused" => State::Failed,
        _ => State::Depends,
    };
    Rung {
        reason: step.reason.clone(),
        policy: step.policy.clone(),
        ..Rung::new(rung, state, step.sentence.clone())
    }
}

/// What to do about a refusal of TO's proxy.
fn fix_of(rung: &str, step: &Step) -> Vec<String> {
    let fix = match (rung, step.reason.as_deref().unwrap_or_default()) {
        ("upstream", _) => "start the application, or correct `upstream` of that listener",
        ("token", "token_no_keys") => {
            "the proxy or its agent has never reached the issuer's keys: its log says why"
        }
        ("token", "token_ambiguous") => "send one token",
        ("token", _) => {
            "a token of that issuer for that audience, not ended, signed with a key of its key set"
        }
        ("request", _) => "send a request that every server reads in the same way",
        (_, "policy_not_allowed") => {
            "an ALLOW rule for this caller and request: `signet policy explain` writes it; ALLOW policies add up"
        }
        (_, "policy_denied") => "narrow that DENY; an ALLOW cannot help",
        (_, "policy_faulty") => "correct that policy: `signet policy check` names file, line and field",
        (_, "policy_provider_unknown") => "name that provider in the proxy's ext_authz",
        _ => "docs/policy.md has what each reason means",
    };
    vec![fix.to_owned()]
}

#[cfg(test)]
mod tests;
