//! `signet svid watch`: one line now and one after every renewal, until interrupted.

use signet_certs::UnixTime;

use crate::Shell;
use crate::admin::{Admin, Svid};
use crate::args::WatchArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Page, View};
use crate::times::relative;

impl View for Svid {
    fn page(&self, page: &mut Page, now: UnixTime) {
        let renews = self
            .renews_at
            .map_or_else(|| "not planned".into(), |at| relative(at.0, now));
        let mut line = format!(
            "{}  {}  serial {}  ends {}  renews {renews}  renewals {}",
            signet_runtime::clock::rfc3339(now),
            self.spiffe_id,
            self.serial,
            relative(self.not_after.0, now),
            self.renewals,
        );
        if let Some(failure) = &self.last_failure {
            line.push_str(&format!("  last failure {}: {}", failure.reason, failure.error));
        }
        page.line(line);
    }
}

pub(crate) async fn run(args: &WatchArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let mut left = args.count;
    let interrupted = signet_runtime::shutdown::signalled();
    tokio::pin!(interrupted);
    let mut lines = Admin::at(&args.admin.admin).watch_svids().await?;
    while left != Some(0) {
        let clock = std::sync::Arc::clone(&shell.clock);
        let next = tokio::select! {
            next = lines.next(clock.as_ref()) => next?,
            _ = &mut interrupted => return Ok(Answer::Yes),
        };
        let Some((svid, now)) = next else {
            let socket = args.admin.admin.display();
            return Err(Fault::Unanswered(format!(
                "{socket}: the agent ended the watch; is it shutting down?"
            )));
        };
        shell.printer.show_next(&svid, now)?;
        left = left.map(|left| left - 1);
    }
    Ok(Answer::Yes)
}
