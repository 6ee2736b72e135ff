//! `signet why`: the whole ladder between two workloads, and one verdict.

use serde::Serialize;
use signet_runtime::UnixTime;

use super::asked::{AskedRequest, Decided, TlsChecked, Vote};
use super::ladder::{Ladder, Rung, State, Verdict, climb};
use super::place::Place;
use super::ruling::{Ruling, of};
use super::tls_check::{Other, ask};
use crate::args::WhyArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};
use crate::{Shell, inputs};

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    /// Verdict and rungs.
    #[serde(flatten)]
    pub ladder: Ladder,
    /// Who calls.
    pub from: String,
    /// Whom.
    pub to: String,
    /// Who was asked at the other end.
    pub to_proxy: Option<String>,
    /// What is asked for, on ports that speak HTTP.
    pub request: Requested,
    /// Who the caller is to the other side's policies.
    pub caller: Option<String>,
    /// What every policy of the other side says.
    pub votes: Vec<Vote>,
}

/// A request, without what may be secret in it.
#[derive(Clone, Debug, Serialize)]
pub struct Requested {
    /// The method.
    pub method: String,
    /// The path, as sent.
    pub path: String,
    /// The host.
    pub host: String,
    /// Names of the other headers.
    pub headers: Vec<String>,
    /// Whether it carries a token.
    pub token: bool,
}

/// Who was asked, and for what.
#[derive(Clone, Debug)]
pub struct Names {
    /// Who calls.
    pub from: String,
    /// Who was asked at the other end.
    pub to_proxy: Option<String>,
    /// The request.
    pub request: Requested,
}

impl Why {
    /// Of these answers.
    #[must_use]
    pub fn of(names: Names, checked: &TlsChecked, to: Result<&Decided, &str>) -> Self {
        let decided = to.ok();
        let ruling: Ruling = of(checked, decided);
        Self {
            ladder: climb(checked, &ruling, to),
            from: names.from,
            to: checked.destination.clone(),
            to_proxy: names.to_proxy,
            request: names.request,
            caller: decided.and_then(|decided| decided.caller.clone()),
            votes: decided.map(|decided| decided.votes.clone()).unwrap_or_default(),
        }
    }

    /// The rung that decides.
    fn decides(&self) -> Option<&Rung> {
        let name = self.ladder.rung?;
        self.ladder.rungs.iter().find(|rung| rung.rung == name)
    }
}

impl From<&AskedRequest> for Requested {
    fn from(request: &AskedRequest) -> Self {
        Self {
            method: request.method.clone(),
            path: request.path.clone(),
            host: request.host.clone(),
            headers: request.headers.iter().map(|(name, _)| name.clone()).collect(),
            token: request.token.is_some(),
        }
    }
}

impl View for Why {
    fn page(&self, page: &mut Page, _: UnixTime) {
        let decides = self.decides();
        let sentence = decides.map_or("every rung holds", |rung| &rung.sentence);
        let name = decides.map_or("", |rung| rung.rung);
        let line = match self.ladder.verdict {
            Verdict::Allowed => Cell::new(format!("ALLOWED: {sentence}"), Tone::Good),
            Verdict::Refused => Cell::new(format!("REFUSED at {name}: {sentence}"), Tone::Bad),
            Verdict::Unknown => Cell::new(format!("UNKNOWN at {name}: {sentence}"), Tone::Warn),
        };
        page.line(line);
        page.gap();
        page.fact("from", &*self.from);
        page.fact("to", &*self.to);
        let token = if self.request.token { ", with a token" } else { "" };
        let asks = format!(
            "{} {} of {}{token}",
            self.request.method, self.request.path, self.request.host
        );
        page.fact("asks", asks);
        if let Some(gets) = &self.ladder.caller_gets {
            page.fact("caller gets", Cell::new(&**gets, Tone::Bad));
        }
        page.gap();
        page.table(
            &["rung", "stands", "because"],
            self.ladder.rungs.iter().map(row).collect(),
        );
        if self.ladder.rung == Some("policies") && !self.votes.is_empty() {
            page.gap();
            page.heading("what every policy says");
            for vote in &self.votes {
                let dry = if vote.dry_run { " (dry run)" } else { "" };
                let says = vote.says.replace('_', " ");
                page.line(format!("  {} {}{dry}: {says}", vote.action, vote.policy));
                for because in vote.because.iter().filter(|_| vote.says != "matches") {
                    page.line(format!("    {because}"));
                }
            }
        }
        if let Some(rung) = decides.filter(|rung| !rung.fix.is_empty()) {
            page.gap();
            page.heading("what to do");
            rung.fix.iter().for_each(|fix| page.line(format!("  {fix}")));
        }
    }
}

fn row(rung: &Rung) -> Vec<Cell> {
    let (word, tone) = match rung.state {
        State::Ok => ("ok", Tone::Good),
        State::Failed => ("FAILED", Tone::Bad),
        State::Depends => ("depends", Tone::Warn),
        State::NotAsked => ("not asked", Tone::Warn),
    };
    let reason = rung.reason.as_ref().map(|reason| format!(" [{reason}]"));
    let because = format!("{}{}", rung.sentence, reason.unwrap_or_default());
    vec![rung.rung.into(), Cell::new(word, tone), because.into()]
}

pub(crate) async fn run(args: &WhyArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let WhyArgs { ends, request: http } = args;
    let token = match &http.jwt_file {
        Some(file) => Some(inputs::token(file, "token")?),
        None => None,
    };
    let request = AskedRequest {
        method: http.method.clone(),
        path: http.path.clone(),
        host: http.host.clone().unwrap_or_else(|| ends.to.clone()),
        headers: http.header.clone(),
        token,
    };
    let kubectl = ends.pods.kubectl();
    let names = Names {
        from: ends.from.to_string(),
        to_proxy: ends.to_proxy.as_ref().map(Place::to_string),
        request: Requested::from(&request),
    };
    let other = Other {
        proxy: ends.to_proxy.as_ref(),
        address: ends.to_address,
        request,
    };
    let (checked, decided) = ask((&ends.from, &ends.to), other, &kubectl).await?;
    let why = Why::of(names, &checked, decided.as_ref().map_err(String::as_str));
    shell.show(&why)?;
    match why.ladder.verdict {
        Verdict::Allowed => Ok(Answer::Yes),
        Verdict::Refused => Ok(Answer::No),
        Verdict::Unknown => {
            let rung = why.decides();
            let said = rung.map_or("", |rung| &rung.sentence);
            let name = rung.map_or("", |rung| rung.rung);
            Err(Fault::unanswered(format!("{name}: {said}")))
        }
    }
}
