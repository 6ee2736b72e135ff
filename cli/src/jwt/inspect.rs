//! `signet jwt inspect`: what a token says of itself. Nothing is verified, and the output says so.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use signet_certs::UnixTime;
use signet_certs::jwt::{JwtSvid, Unverified};

use crate::Shell;
use crate::args::JwtInspectArgs;
use crate::fault::{Answer, Fault};
use crate::inputs;
use crate::print::{Cell, Page, Tone, View};
use crate::times::{Moment, seconds_until};

/// A token's own words. Never the token: its signature is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Inspected {
    /// Never true: who signed it is not looked at.
    pub verified: bool,
    /// Whether header and claims have the form of a JWT-SVID.
    pub well_formed: bool,
    /// The first rule of the standard that it breaks.
    pub fault: Option<String>,
    /// Whom it names, if that is a SPIFFE ID.
    pub spiffe_id: Option<String>,
    /// For whom it is.
    pub audiences: Vec<String>,
    /// Its issuer.
    pub issuer: Option<String>,
    /// Its algorithm.
    pub algorithm: Option<String>,
    /// The key that is said to have signed it.
    pub kid: Option<String>,
    /// When it was issued.
    pub issued_at: Option<Moment>,
    /// When it ends.
    pub expires_at: Option<Moment>,
    /// Seconds until then; negative when it is past.
    pub seconds_left: Option<i64>,
    /// Its header.
    pub header: Map<String, Value>,
    /// Its claims.
    pub claims: Map<String, Value>,
}

impl Inspected {
    /// What `says` says, as seen `now`.
    #[must_use]
    pub fn of(says: Unverified, now: UnixTime) -> Self {
        let fault = says.check().err().map(|e| e.to_string());
        let expires_at = says.expires_at();
        Self {
            verified: false,
            well_formed: fault.is_none(),
            fault,
            spiffe_id: says.id().map(|id| id.to_string()),
            audiences: audiences(&says),
            issuer: text(&says.claims, "iss"),
            algorithm: text(&says.header, "alg"),
            kid: text(&says.header, "kid"),
            issued_at: seconds(&says.claims, "iat"),
            expires_at: expires_at.map(Moment),
            seconds_left: expires_at.map(|end| seconds_until(end, now)),
            header: says.header,
            claims: says.claims,
        }
    }
}

/// A text member.
pub(super) fn text(members: &Map<String, Value>, name: &str) -> Option<String> {
    members.get(name)?.as_str().map(str::to_owned)
}

/// One audience or several (RFC 7519 §4.1.3).
pub(super) fn audiences(says: &Unverified) -> Vec<String> {
    match says.claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn seconds(claims: &Map<String, Value>, name: &str) -> Option<Moment> {
    let whole = claims.get(name)?.as_u64()?;
    Some(Moment(UnixTime::since_unix_epoch(Duration::from_secs(whole))))
}

impl View for Inspected {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.line(Cell::new(
            "nothing of this is verified: anybody can write it",
            Tone::Warn,
        ));
        page.gap();
        let or_none = |text: &Option<String>| text.as_deref().unwrap_or("none").to_owned();
        match (&self.spiffe_id, text(&self.claims, "sub")) {
            (Some(id), _) => page.fact("SPIFFE ID", &**id),
            (None, Some(subject)) => page.fact("SPIFFE ID", format!("none; the subject is {subject:?}")),
            (None, None) => page.fact("SPIFFE ID", "none"),
        }
        page.fact(
            "audience",
            if self.audiences.is_empty() {
                "none".into()
            } else {
                self.audiences.join(", ")
            },
        );
        page.fact("issuer", or_none(&self.issuer));
        page.fact("algorithm", or_none(&self.algorithm));
        page.fact("key", or_none(&self.kid));
        if let Some(at) = self.issued_at {
            page.fact("issued", at.words(now));
        }
        match (self.expires_at, self.seconds_left) {
            (Some(at), Some(left)) if left < 0 => {
                page.fact(
                    "ends",
                    Cell::new(format!("{}, expired", at.words(now)), Tone::Bad),
                );
            }
            (Some(at), _) => page.fact("ends", at.words(now)),
            (None, _) => page.fact("ends", Cell::new("never, which no JWT-SVID may", Tone::Bad)),
        }
        match &self.fault {
            None => page.fact("form", "of a JWT-SVID"),
            Some(fault) => page.fact("form", Cell::new(format!("of no JWT-SVID: {fault}"), Tone::Bad)),
        }
        let usual = ["sub", "aud", "iss", "iat", "exp"];
        let others: Vec<_> = self
            .claims
            .iter()
            .filter(|(name, _)| !usual.contains(&name.as_str()))
            .collect();
        if !others.is_empty() {
            page.gap();
            let rows = others
                .into_iter()
                .map(|(name, value)| vec![name.as_str().into(), value.to_string().into()]);
            page.table(&["claim", "value"], rows.collect());
        }
    }
}

pub(crate) fn run(args: &JwtInspectArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let token = inputs::token(&args.token, "JWT-SVID")?;
    let says = JwtSvid::read_unverified(&token)
        .map_err(|e| Fault::Unanswered(format!("{}: {e}", args.token.display())))?;
    let now = shell.now();
    shell.show(&Inspected::of(says, now))?;
    Ok(Answer::Yes)
}
