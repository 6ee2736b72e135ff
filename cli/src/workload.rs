//! `signet workload list`: who is on this node, what they hold, and when it renews; and
//! [`policies`]: what their proxies are sent.

use std::collections::BTreeMap;

use signet_certs::UnixTime;

use crate::Shell;
use crate::admin::{Admin, Workload, Workloads};
use crate::args::AdminArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};
use crate::times::{relative, span};

pub mod policies;

/// Stands where there is nothing to say.
const NONE: &str = "–";
const HEADINGS: [&str; 8] = [
    "workload",
    "account",
    "SPIFFE ID",
    "state",
    "clients",
    "age",
    "renews",
    "last error",
];

impl View for Workloads {
    fn page(&self, page: &mut Page, now: UnixTime) {
        let by = match self.attestor.as_str() {
            "own" => "none: every peer admitted is the agent's own workload",
            "unix" => "processes, by the rules of the agent's configuration",
            "kubernetes" => "pods of this node",
            other => other,
        };
        page.fact("attested", by);
        page.gap();
        if self.workloads.is_empty() {
            page.line("no workloads");
            return;
        }
        let rows = self.workloads.iter().map(|workload| row(workload, now));
        page.table(&HEADINGS, rows.collect());
    }
}

fn row(workload: &Workload, now: UnixTime) -> Vec<Cell> {
    let or_none = |text: Option<&str>| Cell::from(text.unwrap_or(NONE));
    let renews = workload.renews_at.map(|at| relative(at.0, now));
    vec![
        who(workload).into(),
        or_none(workload.account.as_deref()),
        or_none(workload.spiffe_id.as_deref()),
        Cell::new(&*workload.state, tone(workload)),
        clients(&workload.clients).into(),
        or_none(workload.age_seconds.map(span).as_deref()),
        or_none(renews.as_deref()),
        match &workload.last_failure {
            None => NONE.into(),
            Some(failure) => {
                let when = relative(failure.at.0, now);
                Cell::new(
                    format!("{}, {when}: {}", failure.reason, failure.error),
                    Tone::Warn,
                )
            }
        },
    ]
}

fn tone(workload: &Workload) -> Tone {
    match workload.state.as_str() {
        "served" => Tone::Good,
        "waiting" => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// The pod or process in a few words.
fn who(workload: &Workload) -> String {
    let text = |part: &Option<String>| part.as_deref().unwrap_or("?").to_owned();
    match workload.kind.as_str() {
        "pod" => format!("pod {}/{}", text(&workload.namespace), text(&workload.pod)),
        "own" => "the agent's own".into(),
        "identity" => "nobody now".into(),
        _ => {
            let mut words = format!("process {}", number(workload.pid));
            if let Some(uid) = workload.uid {
                words.push_str(&format!(" of uid {uid}"));
            }
            if let Some(executable) = &workload.executable {
                words.push_str(&format!(", {executable}"));
            }
            words
        }
    }
}

fn number(number: Option<u32>) -> String {
    number.map_or_else(|| "?".into(), |number| number.to_string())
}

fn clients(by_kind: &BTreeMap<String, u64>) -> String {
    let kinds: Vec<String> = by_kind
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    if kinds.is_empty() {
        NONE.into()
    } else {
        kinds.join(", ")
    }
}

pub(crate) async fn list(args: &AdminArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    shell.show(&Admin::at(&args.admin).workloads().await?)?;
    Ok(Answer::Yes)
}
