//! `signet federation list`: the foreign trust domains whose SVIDs are accepted here.

use signet_certs::UnixTime;

use crate::Shell;
use crate::admin::{Admin, FederatedDomain, Federation};
use crate::args::AdminArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};
use crate::times::{relative, span};

/// Stands where there is nothing to say.
const NONE: &str = "–";
const HEADINGS: [&str; 8] = [
    "trust domain",
    "sequence",
    "roots",
    "JWT keys",
    "refresh",
    "received",
    "next poll",
    "last error",
];

impl View for Federation {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("own trust domain", &*self.trust_domain);
        if let Some(sequence) = self.sequence {
            page.fact("bundle sequence", sequence.to_string());
        }
        page.gap();
        if self.federated.is_empty() {
            page.line("no foreign trust domain is accepted");
            return;
        }
        let rows = self.federated.iter().map(|domain| row(domain, now));
        page.table(&HEADINGS, rows.collect());
    }
}

fn row(domain: &FederatedDomain, now: UnixTime) -> Vec<Cell> {
    let number = |number: Option<u64>| Cell::from(number.map_or_else(|| NONE.into(), |n| n.to_string()));
    let text = |text: Option<String>| Cell::from(text.unwrap_or_else(|| NONE.into()));
    vec![
        (&*domain.trust_domain).into(),
        match domain.sequence {
            None => Cell::new("no bundle yet", Tone::Bad),
            found => number(found),
        },
        number(domain.roots),
        number(domain.jwt_keys),
        text(domain.refresh_hint_seconds.map(span)),
        text(domain.received_at.map(|at| relative(at.0, now))),
        text(domain.next_poll.map(|at| relative(at.0, now))),
        match &domain.error {
            None => NONE.into(),
            Some(error) => Cell::new(&**error, Tone::Warn),
        },
    ]
}

pub(crate) async fn list(args: &AdminArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    shell.show(&Admin::at(&args.admin).federation().await?)?;
    Ok(Answer::Yes)
}
