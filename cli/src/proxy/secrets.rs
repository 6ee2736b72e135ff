//! `signet proxy secrets`, for people.

use signet_runtime::UnixTime;

use super::wire::{Certificate, Secrets};
use crate::print::{Cell, Page, Tone, View};
use crate::times::relative;

const HEADINGS: [&str; 7] = [
    "name",
    "kind",
    "subject",
    "valid",
    "serial",
    "not after",
    "not before",
];
/// The names under which the agent serves them.
const OWN: &str = "default";
const ROOTS: &str = "ALL";

impl View for Secrets {
    fn page(&self, page: &mut Page, now: UnixTime) {
        match &self.svid {
            None => {
                page.line(Cell::new("no SVID: no TLS is possible", Tone::Bad));
                page.line(
                    "ask the agent: signet workload list --admin /run/signet/admin/admin.sock on the proxy's node",
                );
            }
            Some(svid) => {
                let ends = svid.not_after.words(now);
                let tone = if svid.valid { Tone::Good } else { Tone::Bad };
                page.fact("SPIFFE ID", &*svid.spiffe_id);
                page.fact("serial", &*svid.serial);
                page.fact("not after", Cell::new(ends, tone));
            }
        }
        let chains = &self.verified_chains;
        page.fact(
            "peers",
            format!(
                "{} chains kept; {} handshakes found theirs, {} did not",
                chains.kept, chains.hits, chains.misses
            ),
        );
        page.gap();
        let rows = self.rows(now);
        if rows.is_empty() {
            page.line(Cell::new("no trust bundle: nobody is believed", Tone::Bad));
            return;
        }
        page.table(&HEADINGS, rows);
    }
}

impl Secrets {
    fn rows(&self, now: UnixTime) -> Vec<Vec<Cell>> {
        let own = self.svid.iter().flat_map(|svid| {
            svid.chain.iter().enumerate().map(|(place, one)| match place {
                0 => row([OWN, "SVID", &svid.spiffe_id], one, now),
                _ => row([OWN, "intermediate", &one.subject], one, now),
            })
        });
        let roots = self.bundles.iter().flat_map(|bundle| {
            let kind = format!("root of {}", bundle.trust_domain);
            let row = move |root: &Certificate| row([ROOTS, &kind, &root.subject], root, now);
            bundle.roots.iter().map(row)
        });
        own.chain(roots).collect()
    }
}

fn row([name, kind, subject]: [&str; 3], certificate: &Certificate, now: UnixTime) -> Vec<Cell> {
    let valid = if certificate.valid {
        Cell::new("yes", Tone::Good)
    } else {
        Cell::new("no", Tone::Bad)
    };
    vec![
        name.into(),
        kind.into(),
        subject.into(),
        valid,
        (&*certificate.serial).into(),
        certificate.not_after.words(now).into(),
        relative(certificate.not_before.0, now).into(),
    ]
}
