//! `signet authority show`: what the CA accepts and what it signs with.

use signet_certs::UnixTime;

use crate::Shell;
use crate::admin::{Admin, Authorities, Authority};
use crate::args::AdminArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};

impl View for Authorities {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("trust domain", &*self.trust_domain);
        page.fact("bundle sequence", self.sequence.to_string());
        let source = match self.issuing.source.as_str() {
            "own_root" => "an intermediate below our own root",
            "plugged_in" => "an intermediate below a plugged-in CA",
            "direct" => "a plugged-in CA itself, without an intermediate",
            other => other,
        };
        page.fact("issues from", source);
        let renews = self
            .issuing
            .renews_at
            .map_or_else(|| "not planned".into(), |at| at.words(now));
        page.fact("issuer renews", renews);
        page.gap();
        let mut rows: Vec<_> = self.roots.iter().map(|root| row("root", root, now)).collect();
        rows.push(row("issuing", &self.issuing.authority, now));
        page.table(&["role", "authority", "state", "subject", "key", "ends"], rows);
        if !self.jwt_keys.is_empty() {
            page.gap();
            let rows = self.jwt_keys.iter().map(|key| {
                let signs = if key.signs { "yes" } else { "no" };
                vec![
                    (&*key.kid).into(),
                    (&*key.key).into(),
                    (&*key.algorithm).into(),
                    signs.into(),
                ]
            });
            page.table(&["JWT key", "key", "algorithm", "signs now"], rows.collect());
        }
    }
}

fn row(role: &str, authority: &Authority, now: UnixTime) -> Vec<Cell> {
    let tone = if authority.not_after.0 < now {
        Tone::Bad
    } else {
        Tone::Plain
    };
    vec![
        role.into(),
        (&*authority.authority_id).into(),
        authority.state.as_deref().unwrap_or("–").into(),
        (&*authority.subject).into(),
        (&*authority.key).into(),
        Cell::new(authority.not_after.words(now), tone),
    ]
}

pub(crate) async fn run(args: &AdminArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    shell.show(&Admin::at(&args.admin).authorities().await?)?;
    Ok(Answer::Yes)
}
