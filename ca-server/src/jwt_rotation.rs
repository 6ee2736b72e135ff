//! When a JWT authority is prepared, becomes active, grows old and goes. Pure: the driver makes keys,
//! stores what comes out, and asks again (SPIFFE Federation §4.1).
//!
//! Replicas share the keys, and each has its own copy of the operator's file, which is some seconds older
//! or newer than that of the others. So a replica brings the keys in line with its file when it starts and
//! when that file changed, and at no other time: what another one did by a newer file is left alone.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::lifetime::{minus, plus};
use signet_certs::{JwtAuthority, JwtKey, UnixTime};

use crate::jwt_keys::{Entry, JwtKeys, MAX_KEYS, Phase};

/// A key is published for this many refresh hints before it signs: the standard asks for three to five.
const LEAD_IN_HINTS: u32 = 4;
/// When nothing is due, all is looked at again after this.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// The times of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a key is published before it signs.
    pub lead: Duration,
    /// How long one key of ours signs.
    pub life: Duration,
    /// How long a key stays in the bundle after it stopped signing.
    pub keep: Duration,
}

impl Policy {
    /// For bundles that are asked for every `hint`, keys that sign for `life`, tokens of at most `max_ttl`.
    /// Another replica may go on with the old key until it learns of the change; it has as long for that
    /// as everyone else has to learn of a new key.
    #[must_use]
    pub fn new(hint: Duration, life: Duration, max_ttl: Duration) -> Self {
        let lead = hint * LEAD_IN_HINTS;
        Self {
            lead,
            life,
            keep: max_ttl + signet_certs::jwt::LEEWAY + lead,
        }
    }
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supply {
    /// We make them.
    Own,
    /// The operator's file.
    File {
        /// The keys in it; the first is to sign, all are published.
        wanted: Vec<JwtKey>,
        /// Those whose private half is at hand, earlier contents of the file included.
        held: Vec<JwtKey>,
        /// Whether the first is to take over here: it has not signed since the file became as it is.
        turning: bool,
    },
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed, or another replica changed the keys.
    Woke,
    /// This replica starts, or its file changed.
    Supplied,
    /// The key asked for.
    Made(Arc<JwtAuthority>),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a key and come back with it.
    Make,
    /// Store and publish the keys, then ask again.
    Store(Change),
    /// Nothing before then.
    WakeAt(UnixTime),
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key was published.
    Prepared,
    /// A key signs now.
    Activated,
    /// A key stopped signing without a successor, or left the bundle.
    Retired,
}

impl Change {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Activated => "activated",
            Self::Retired => "retired",
        }
    }
}

/// One step: the keys as they shall be, and what is to be done next.
#[must_use]
pub fn step(
    mut keys: JwtKeys,
    event: Event,
    supply: &Supply,
    policy: &Policy,
    now: UnixTime,
) -> (JwtKeys, Action) {
    if let Event::Made(made) = event {
        return add_own(keys, made, now);
    }
    let before = keys.0.len();
    keys.0
        .retain(|entry| !matches!(entry.phase, Phase::Old { until } if until <= now));
    if keys.0.len() < before {
        return (keys, Action::Store(Change::Retired));
    }
    if (matches!(event, Event::Supplied) || keys.active().is_none())
        && let Some(change) = follow_supply(&mut keys, supply, policy, now)
    {
        return (keys, Action::Store(change));
    }
    match supply {
        Supply::Own => own(keys, policy, now),
        Supply::File { wanted, turning, .. } => file(keys, wanted, *turning, policy, now),
    }
}

/// A fresh key signs at once only where no other does.
fn add_own(mut keys: JwtKeys, made: Arc<JwtAuthority>, now: UnixTime) -> (JwtKeys, Action) {
    let (phase, change) = if keys.active().is_some() {
        (Phase::Prepared, Change::Prepared)
    } else {
        (Phase::Active { since: now }, Change::Activated)
    };
    keys.0.push(Entry {
        key: made.public().clone(),
        own: Some(made),
        published_at: now,
        phase,
    });
    (keys, Action::Store(change))
}

/// The first change that the supply asks for at once.
fn follow_supply(keys: &mut JwtKeys, supply: &Supply, policy: &Policy, now: UnixTime) -> Option<Change> {
    let wanted: &[JwtKey] = match supply {
        Supply::Own => &[],
        Supply::File { wanted, .. } => wanted,
    };
    for key in wanted {
        match keys.0.iter().position(|entry| entry.key == *key) {
            None if keys.0.len() < MAX_KEYS => {
                keys.0.push(Entry {
                    key: key.clone(),
                    own: None,
                    published_at: now,
                    phase: Phase::Prepared,
                });
                return Some(Change::Prepared);
            }
            Some(known) => {
                let old = keys.0.get_mut(known);
                if let Some(entry) = old.filter(|entry| matches!(entry.phase, Phase::Old { .. })) {
                    entry.phase = Phase::Prepared;
                    return Some(Change::Prepared);
                }
            }
            None => {}
        }
    }
    let unwanted = keys.0.iter().position(|entry| match entry.phase {
        Phase::Old { .. } => false,
        Phase::Active { .. } => !usable(entry, supply),
        Phase::Prepared if entry.own.is_some() => *supply != Supply::Own,
        Phase::Prepared => !wanted.contains(&entry.key),
    })?;
    retire(keys, unwanted, policy, now);
    Some(Change::Retired)
}

/// Keys that we make ourselves: one signs, the next is prepared in time.
fn own(mut keys: JwtKeys, policy: &Policy, now: UnixTime) -> (JwtKeys, Action) {
    let prepared = keys
        .0
        .iter()
        .position(|entry| entry.phase == Phase::Prepared && entry.own.is_some());
    let since = match keys.active() {
        // Another replica made a key sign that we do not have: it is of a newer configuration.
        Some(entry) if entry.own.is_none() => {
            let wake = wake_at(&keys, plus(now, FAR));
            return (keys, Action::WakeAt(wake));
        }
        Some(Entry {
            phase: Phase::Active { since },
            ..
        }) => Some(*since),
        _ => None,
    };
    let (due, next) = match (since, prepared) {
        (None, None) => return (keys, Action::Make),
        (None, Some(next)) => (now, Some(next)),
        (Some(since), None) => (minus(plus(since, policy.life), policy.lead), None),
        (Some(since), Some(next)) => {
            let ready = ready_at(&keys, next, policy);
            (ready.max(plus(since, policy.life)), Some(next))
        }
    };
    if now < due {
        let wake = wake_at(&keys, due);
        return (keys, Action::WakeAt(wake));
    }
    match next {
        None => (keys, Action::Make),
        Some(next) => {
            activate(&mut keys, next, &[], policy, now);
            (keys, Action::Store(Change::Activated))
        }
    }
}

/// The operator's keys: the first in a file that became as it is signs as soon as it has been published
/// long enough, and in any file at once where nothing signs.
fn file(
    mut keys: JwtKeys,
    wanted: &[JwtKey],
    turning: bool,
    policy: &Policy,
    now: UnixTime,
) -> (JwtKeys, Action) {
    let next = keys
        .0
        .iter()
        .position(|entry| Some(&entry.key) == wanted.first() && entry.phase == Phase::Prepared);
    let due = match (next, keys.active()) {
        (Some(_), None) => now,
        (Some(next), Some(_)) if turning => ready_at(&keys, next, policy),
        _ => plus(now, FAR),
    };
    match next {
        Some(next) if due <= now => {
            activate(&mut keys, next, wanted, policy, now);
            (keys, Action::Store(Change::Activated))
        }
        _ => {
            let wake = wake_at(&keys, due);
            (keys, Action::WakeAt(wake))
        }
    }
}

/// Until when a published key that signed before may go on, where this replica does not have the one that
/// signs now: its last token has to end before it leaves the bundle. Nothing when it is to stay there.
#[must_use]
pub fn signs_until(entry: &Entry, policy: &Policy) -> Option<UnixTime> {
    match entry.phase {
        Phase::Old { until } => Some(minus(until, policy.keep.saturating_sub(policy.lead))),
        Phase::Prepared | Phase::Active { .. } => None,
    }
}

/// When the key at `index` has been published long enough.
fn ready_at(keys: &JwtKeys, index: usize, policy: &Policy) -> UnixTime {
    keys.0
        .get(index)
        .map_or(UnixTime::since_unix_epoch(Duration::ZERO), |entry| {
            plus(entry.published_at, policy.lead)
        })
}

/// `due`, or the end of an old key where that comes sooner.
fn wake_at(keys: &JwtKeys, due: UnixTime) -> UnixTime {
    let ends = keys.0.iter().filter_map(|entry| match entry.phase {
        Phase::Old { until } => Some(until),
        _ => None,
    });
    ends.chain([due]).min().unwrap_or(due)
}

/// Whether its private half is at hand.
fn usable(entry: &Entry, supply: &Supply) -> bool {
    let held = match supply {
        Supply::Own => false,
        Supply::File { held, .. } => held.contains(&entry.key),
    };
    entry.own.is_some() || held
}

/// The key at `next` signs from now on. Whatever signed before grows old, unless it is still in
/// `wanted`: then it stays published as it was.
fn activate(keys: &mut JwtKeys, next: usize, wanted: &[JwtKey], policy: &Policy, now: UnixTime) {
    for index in 0..keys.0.len() {
        let Some(entry) = keys.0.get_mut(index) else {
            continue;
        };
        if index == next {
            entry.phase = Phase::Active { since: now };
        } else if matches!(entry.phase, Phase::Active { .. }) {
            if wanted.contains(&entry.key) {
                entry.phase = Phase::Prepared;
            } else {
                retire(keys, index, policy, now);
            }
        }
    }
}

/// The key at `index` signs no more; its private half is forgotten.
fn retire(keys: &mut JwtKeys, index: usize, policy: &Policy, now: UnixTime) {
    if let Some(entry) = keys.0.get_mut(index) {
        entry.own = None;
        entry.phase = Phase::Old {
            until: plus(now, policy.keep),
        };
    }
}

#[cfg(test)]
mod tests;
