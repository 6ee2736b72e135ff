//! Keeps watch over what is open: when policies or bundles change, and as time passes, everything that is under way is
//! judged again, and what lost its permit is told to end.
//!
//! One task for the whole process, so that an open connection costs a place in a list and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::shared::Shared;

/// How often time is looked at. What was told to end and did not is ended after two of these, so that nothing goes on
/// longer than a second without its permit.
const TICK: Duration = Duration::from_millis(300);
/// After so many ticks every request that was let pass by a token is judged again: its issuer's keys may have changed.
const TOKENS: u32 = 33;
/// So many connections are looked at before others get their turn.
const AT_ONCE: usize = 64;

/// Watches until it is dropped.
pub async fn keep(shared: Arc<Shared>) {
    let mut policies = shared.policies.clone();
    let mut bundles = shared.keys.changes();
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    // Whatever was opened before this began is looked at as well.
    let mut first = true;
    loop {
        tokio::select! {
            biased;
            () = std::future::ready(()), if first => {
                first = false;
                trust(&shared).await;
            }
            () = policies.changed() => {
                let Some(enforced) = policies.seen() else { continue };
                each(&shared, |account| account.judge_again(&enforced)).await;
            }
            Ok(()) = bundles.changed() => trust(&shared).await,
            _ = ticks.tick() => {
                count = count.wrapping_add(1);
                let tokens = count.is_multiple_of(TOKENS);
                let now = shared.clock.now();
                each(&shared, |account| account.tick(now, tokens)).await;
            }
        }
    }
}

/// Proves again what open connections rest on, and ends those that lost it.
async fn trust(shared: &Shared) {
    let lost = shared.keys.look_again(shared.clock.now()).await;
    if lost == 0 {
        return;
    }
    let connections = u64::try_from(lost).unwrap_or(u64::MAX);
    shared.metrics.trust_withdrawn.inc_by(connections);
    tracing::warn!(
        connections,
        "open connections end: the bundles no longer vouch for their other ends"
    );
    each(shared, |account| account.judge_trust()).await;
    shared.http.forget_untrusted();
}

async fn each(shared: &Shared, look: impl Fn(&crate::http::ticket::Account)) {
    for some in shared.http.accounts().all().chunks(AT_ONCE) {
        for account in some {
            look(account);
        }
        tokio::task::yield_now().await;
    }
}
