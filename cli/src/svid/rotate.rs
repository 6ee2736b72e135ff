//! `signet svid rotate`: renews now, through the agent, without a restart.

use std::time::Duration;

use serde::Serialize;
use signet_certs::lifetime::{plus, renewal_floor, until};
use signet_certs::{SpiffeId, UnixTime};

use crate::Shell;
use crate::admin::{Admin, Svid};
use crate::args::RotateArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Page, View};
use crate::times::{Moment, relative};

/// How long an agent lets an operator wait for its floor before it refuses.
const PATIENCE: Duration = Duration::from_secs(10);

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

pub(crate) async fn run(args: &RotateArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let admin = Admin::at(&args.admin.admin);
    let id = args.id.as_ref().map(SpiffeId::as_str);
    let before = admin.svids().await?;
    let asked = before
        .iter()
        .filter(|svid| id.is_none_or(|id| svid.spiffe_id == id));
    if let [only] = asked.collect::<Vec<_>>().as_slice()
        && let Some(words) = wait(only, shell.now())
    {
        shell.say(words);
    }
    let after = admin.rotate(id).await?;
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

/// What to say while the agent waits: it keeps a tenth of the life between two renewals. Where that is
/// still far off it refuses at once, in words of its own.
fn wait(svid: &Svid, now: UnixTime) -> Option<String> {
    let received = svid.received_at.0;
    let soonest = plus(received, renewal_floor(until(svid.not_after.0, received)));
    let left = until(soonest, now);
    (!left.is_zero() && left <= PATIENCE).then(|| {
        format!(
            "the last renewal was a moment ago; the next one is asked for {}",
            relative(soonest, now)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(life: u64, age: u64) -> Option<String> {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000 + seconds));
        let svid = Svid {
            received_at: Moment(at(0)),
            not_before: Moment(at(0)),
            not_after: Moment(at(life)),
            ..crate::golden::svid()
        };
        wait(&svid, at(age))
    }

    #[test]
    fn a_wait_is_told_only_where_the_agent_waits() {
        let told = "the last renewal was a moment ago; the next one is asked for in 4s";
        assert_eq!(waits(60, 2).as_deref(), Some(told));
        assert_eq!(waits(60, 6), None, "the floor is over");
        assert_eq!(waits(86_400, 60), None, "refused at once, not waited for");
    }
}
