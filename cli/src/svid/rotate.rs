//! `signet svid rotate`: renews now, through the agent, without a restart.

use serde::Serialize;
use signet_certs::UnixTime;

use crate::Shell;
use crate::admin::Admin;
use crate::args::AdminArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Page, View};
use crate::times::Moment;

/// What a rotation changed.
#[derive(Clone, Debug, Serialize)]
pub struct Rotated {
    /// The identity.
    pub spiffe_id: String,
    /// Serial before, if there was an SVID.
    pub old_serial: Option<String>,
    /// Serial now.
    pub new_serial: String,
    /// Last second of validity now.
    pub not_after: Moment,
    /// When the next one is asked for.
    pub renews_at: Option<Moment>,
}

impl View for Rotated {
    fn page(&self, page: &mut Page, now: UnixTime) {
        page.fact("SPIFFE ID", &*self.spiffe_id);
        page.fact("old serial", self.old_serial.as_deref().unwrap_or("none"));
        page.fact("new serial", &*self.new_serial);
        page.fact("ends", self.not_after.words(now));
        if let Some(at) = self.renews_at {
            page.fact("next renewal", at.words(now));
        }
    }
}

pub(crate) async fn run(args: &AdminArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let admin = Admin::at(&args.admin);
    let before = admin.svids().await?;
    let after = admin.rotate().await?;
    let old = before.into_iter().find(|svid| svid.spiffe_id == after.spiffe_id);
    shell.show(&Rotated {
        spiffe_id: after.spiffe_id,
        old_serial: old.map(|svid| svid.serial),
        new_serial: after.serial,
        not_after: after.not_after,
        renews_at: after.renews_at,
    })?;
    Ok(Answer::Yes)
}
