//! After an upgrade that both sides agreed on: bytes both ways until one of them has no more.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::sleep_until;

use super::exchange::Kept;
use super::judge::still_passes;
use super::pool::Upgraded;
use super::ticket::{Account, Ticket};
use crate::access_log::{Client, Policy, Reason, Upstream as Fault};
use crate::connection::Direction;
use crate::tcp::copying::{Broken, Copying};

/// Two sides that agreed on another protocol.
#[derive(Debug)]
pub struct Tunnel {
    /// The client's side.
    pub on: OnUpgrade,
    /// The upstream's.
    pub upgraded: Upgraded,
    /// What it was permitted by.
    pub kept: Kept,
    /// The request's account.
    pub ticket: Box<Ticket>,
}

/// Carries the bytes on a task of its own, since the connection's own driver ends with the upgrade. It ends when
/// either side does, when policy withdraws what it permitted, or when the process does.
pub fn spawn(account: &Arc<Account>, tunnel: Tunnel) {
    let account = Arc::clone(account);
    let tasks = account.shared.http.tasks().clone();
    tasks.spawn(async move { carry(&account, tunnel).await });
}

async fn carry(account: &Account, tunnel: Tunnel) {
    let Tunnel {
        on,
        upgraded,
        kept,
        mut ticket,
    } = tunnel;
    let (client, upstream) = tokio::join!(on, upgraded.open());
    let (client, (upstream, _lease)) = match (client, upstream) {
        (Ok(client), Ok(upstream)) => (TokioIo::new(client), upstream),
        (Err(error), _) => return ticket.ended(Reason::Client(Client::Gone), Some(error.to_string())),
        (_, Err(error)) => return ticket.ended(Reason::Upstream(Fault::Reset), Some(error.to_string())),
    };
    let mut copying = Copying::new(client, TokioIo::new(upstream));
    let idle = account.shared.config.limits.tcp_idle;
    let (withdrawn, drained) = (withdrawn(account, &kept), account.shared.drain.cancelled());
    tokio::pin!(withdrawn, drained);
    let (reason, detail) = loop {
        let silent = sleep_until(copying.last() + idle);
        tokio::select! {
            ended = &mut copying => break match ended {
                Ok(()) => (Reason::Ok, None),
                Err(Broken::Downstream(error)) => (Reason::Client(Client::Gone), Some(error.to_string())),
                Err(Broken::Upstream(error)) => (Reason::Upstream(Fault::Reset), Some(error.to_string())),
            },
            () = &mut withdrawn => break (Reason::Policy(Policy::Withdrawn), None),
            () = &mut drained => break (Reason::Drained, None),
            () = silent => if copying.last().elapsed() >= idle {
                break (Reason::Client(Client::Idle), None);
            },
        }
    };
    let (received, sent) = copying.bytes();
    ticket.carried(received, sent);
    ticket.ended(reason, detail);
}

/// Waits until policy would no longer let the request pass that began it.
async fn withdrawn(account: &Account, kept: &Kept) {
    if account.accepted.direction == Direction::Outbound {
        return std::future::pending().await;
    }
    let mut policies = account.shared.policies.clone();
    loop {
        if let Some(enforced) = policies.seen()
            && !still_passes(&enforced, &account.accepted, &kept.head, &kept.passed)
        {
            return;
        }
        policies.changed().await;
    }
}
