//! After an upgrade that both sides agreed on: bytes both ways until one of them has no more.

use std::future::poll_fn;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::sleep_until;

use super::pool::Upgraded;
use super::ticket::{Account, Ticket};
use crate::access_log::{Client, Identity, Policy, Reason, Upstream as Fault};
use crate::keys::Trust;
use crate::tcp::copying::{Broken, Copying};
use crate::tcp::expired;

/// Two sides that agreed on another protocol.
#[derive(Debug)]
pub struct Tunnel {
    /// The client's side.
    pub on: OnUpgrade,
    /// The upstream's.
    pub upgraded: Upgraded,
    /// The request's account.
    pub ticket: Box<Ticket>,
}

/// Carries the bytes on a task of its own, since the connection's own driver ends with the upgrade. It ends when
/// either side does, when what permitted its request does so no longer, when either end is no longer trusted, or when
/// the process ends.
pub fn spawn(account: &Arc<Account>, tunnel: Tunnel) {
    let account = Arc::clone(account);
    let tasks = account.shared.http.tasks().clone();
    tasks.spawn(async move { carry(&account, tunnel).await });
}

async fn carry(account: &Account, tunnel: Tunnel) {
    let Tunnel {
        on,
        upgraded,
        mut ticket,
    } = tunnel;
    let (client, upstream) = tokio::join!(on, upgraded.open());
    let (client, (upstream, lease)) = match (client, upstream) {
        (Ok(client), Ok(upstream)) => (TokioIo::new(client), upstream),
        (Err(error), _) => return ticket.ended(Reason::Client(Client::Gone), Some(error.to_string())),
        (_, Err(error)) => return ticket.ended(Reason::Upstream(Fault::Reset), Some(error.to_string())),
    };
    let mut copying = Copying::new(client, TokioIo::new(upstream));
    let idle = account.shared.config.limits.tcp_idle;
    let (expired, drained) = (
        expired(&account.shared, &account.accepted),
        account.shared.drain.cancelled(),
    );
    let untrusted = untrusted(lease.trust().cloned());
    tokio::pin!(expired, drained, untrusted);
    let (reason, detail) = loop {
        let silent = sleep_until(copying.last() + idle);
        tokio::select! {
            // What ends it comes first: nothing moves on a permit that is gone.
            biased;
            () = poll_fn(|cx| ticket.poll_ended(cx)) => break (Reason::Policy(Policy::Withdrawn), None),
            detail = &mut untrusted => break (Reason::Identity(Identity::TrustWithdrawn), Some(detail)),
            ended = &mut copying => break match ended {
                Ok(()) => (Reason::Ok, None),
                Err(Broken::Downstream(error)) => (Reason::Client(Client::Gone), Some(error.to_string())),
                Err(Broken::Upstream(error)) => (Reason::Upstream(Fault::Reset), Some(error.to_string())),
            },
            () = &mut expired => break (Reason::Policy(Policy::Expired), None),
            () = &mut drained => break (Reason::Drained, None),
            () = silent => if copying.last().elapsed() >= idle {
                break (Reason::Client(Client::Idle), None);
            },
        }
    };
    let (received, sent) = copying.bytes();
    ticket.carried(received, sent);
    if !ticket.is_ended() {
        ticket.ended(reason, detail);
    }
}

/// Waits until the bundles no longer vouch for the upstream; why.
async fn untrusted(trust: Option<Arc<Trust>>) -> String {
    let Some(trust) = trust else {
        return std::future::pending().await;
    };
    trust.withdrawn().await;
    trust.fault().map(ToString::to_string).unwrap_or_default()
}
