//! Which identities are kept, and whose turn it is to ask the CA. Pure: one [`rotation`] machine per
//! identity, a bounded number of requests at once, the most urgent first.
//!
//! The caller tells what happened and carries out what [`Roster::take_deeds`] lists, in its order. It
//! calls [`Roster::wake`] at [`Roster::wake_at`] or before, and every few seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use signet_certs::UnixTime;
use signet_certs::lifetime::{Jitter, plus};

use crate::rotation::{self, Action, Chance, Event, Facts, State};

/// Most requests to the CA at once.
pub const PARALLEL: usize = 8;
/// Most of these for identities that have no SVID: a CA that is slow to refuse some must not keep others
/// from being renewed.
pub const FIRSTS: usize = 6;
/// How long an SVID is kept after its last workload left, unless its place is needed: a pod that is replaced
/// finds it.
pub const LINGER: Duration = Duration::from_secs(60);
/// Most identities kept. The largest nodes run a few hundred pods.
pub const MAX_KEPT: usize = 1_024;

/// Time alone decides nothing by chance.
const NO_CHANCE: Chance = Chance {
    jitter: Jitter::NONE,
    backoff: 1.0,
};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed<K> {
    /// A place is to be made for this identity.
    Keep(K),
    /// The CA is to be asked; the outcome is to be told.
    Request(K),
    /// What is served is to be put in force: the newest bundle, and the SVID if [`Roster::serves`].
    Publish(K),
    /// Whoever asked for a renewal is to be told that none is made before then.
    TooSoon(K, UnixTime),
    /// The SVID, its key and any request for it are to be dropped.
    Drop(K),
}

/// How many identities are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// An SVID is served.
    pub served: usize,
    /// There is none to serve.
    pub waiting: usize,
    /// Nobody wants it any more; it is dropped soon.
    pub lingering: usize,
    /// Requests under way.
    pub in_flight: usize,
    /// Requests that wait for their turn.
    pub queued: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing is to be asked.
    Idle,
    /// Waits since this turn was drawn.
    Queued(u64),
    /// Asked.
    InFlight,
}

#[derive(Clone, Copy, Debug)]
struct Ward {
    rotation: State,
    wake: UnixTime,
    turn: Turn,
    leaves_at: Option<UnixTime>,
}

/// Who comes first: the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Has nothing to serve. Those refused again and again stand behind those that ask for the first time.
    None {
        /// Failures since the last success.
        failures: u32,
        /// Which turn was drawn.
        turn: u64,
    },
    /// Has an SVID that ends then.
    Ends {
        /// Its last second.
        at: UnixTime,
        /// Which turn was drawn.
        turn: u64,
    },
}

/// The identities kept.
#[derive(Debug)]
pub struct Roster<K> {
    wards: BTreeMap<K, Ward>,
    next_turn: u64,
    deeds: Vec<Deed<K>>,
}

impl<K> Default for Roster<K> {
    fn default() -> Self {
        Self {
            wards: BTreeMap::new(),
            next_turn: 0,
            deeds: Vec::new(),
        }
    }
}

impl<K: Ord + Clone> Roster<K> {
    /// Keeps exactly `wanted`; what is kept and no longer wanted goes after [`LINGER`], or when a newcomer
    /// needs its place. While the list is not `whole`, nothing goes for not being on it. Says how many
    /// there was no room for.
    pub fn want(&mut self, wanted: &BTreeSet<K>, whole: bool, now: UnixTime) -> usize {
        for (key, ward) in &mut self.wards {
            if wanted.contains(key) {
                ward.leaves_at = None;
            } else if whole {
                ward.leaves_at.get_or_insert(plus(now, LINGER));
            }
        }
        self.make_room(wanted);
        let mut refused = 0;
        for key in wanted {
            if self.wards.contains_key(key) {
                continue;
            }
            if self.wards.len() >= MAX_KEPT {
                refused += 1;
                continue;
            }
            let ward = Ward {
                rotation: State::new(),
                wake: now,
                turn: Turn::Idle,
                leaves_at: None,
            };
            self.wards.insert(key.clone(), ward);
            self.deeds.push(Deed::Keep(key.clone()));
        }
        self.wake(now);
        refused
    }

    /// Drops as many of those that linger as `wanted` needs places, the longest first: who waits for a place
    /// is asked for again only when the list changes, so it must not wait for one that nobody uses.
    fn make_room(&mut self, wanted: &BTreeSet<K>) {
        let newcomers = wanted.iter().filter(|key| !self.wards.contains_key(key));
        let lacking = (self.wards.len() + newcomers.count()).saturating_sub(MAX_KEPT);
        if lacking == 0 {
            return;
        }
        let leaving = self
            .wards
            .iter()
            .filter_map(|(key, ward)| Some((ward.leaves_at?, key)));
        let mut leaving: Vec<(UnixTime, K)> = leaving.map(|(at, key)| (at, key.clone())).collect();
        leaving.sort();
        for (_, key) in leaving.into_iter().take(lacking) {
            self.wards.remove(&key);
            self.deeds.push(Deed::Drop(key));
        }
    }

    /// Something happened to one identity. One that is not kept is left alone.
    pub fn tell(&mut self, key: &K, event: Event, now: UnixTime, chance: Chance) {
        if let Some(ward) = self.wards.get_mut(key) {
            if matches!(event, Event::Issued(_) | Event::Failed { .. }) {
                ward.turn = Turn::Idle;
            }
            let mut out = Out {
                deeds: &mut self.deeds,
                next_turn: &mut self.next_turn,
            };
            out.settle((key, ward), event, now, chance);
        }
        self.start(now);
    }

    /// Time passed: machines take their steps, and what has lingered long enough goes.
    pub fn wake(&mut self, now: UnixTime) {
        let mut gone = Vec::new();
        let mut out = Out {
            deeds: &mut self.deeds,
            next_turn: &mut self.next_turn,
        };
        for (key, ward) in &mut self.wards {
            // A clock that was set back does not keep anybody longer than agreed.
            ward.leaves_at = ward.leaves_at.map(|at| at.min(plus(now, LINGER)));
            if ward.leaves_at.is_some_and(|at| at <= now) {
                gone.push(key.clone());
                continue;
            }
            out.settle((key, ward), Event::Woke, now, NO_CHANCE);
        }
        for key in gone {
            self.wards.remove(&key);
            self.deeds.push(Deed::Drop(key));
        }
        self.start(now);
    }

    /// What is to be done now, in this order.
    pub fn take_deeds(&mut self) -> Vec<Deed<K>> {
        std::mem::take(&mut self.deeds)
    }

    /// When to call [`Roster::wake`] at the latest; nothing while nobody is kept.
    #[must_use]
    pub fn wake_at(&self) -> Option<UnixTime> {
        let wards = self.wards.values();
        wards.flat_map(|w| [Some(w.wake), w.leaves_at]).flatten().min()
    }

    /// Everybody kept.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.wards.keys()
    }

    /// Whether the SVID held for this identity is to be served.
    #[must_use]
    pub fn serves(&self, key: &K) -> bool {
        self.wards.get(key).is_some_and(|ward| ward.rotation.serves())
    }

    /// Whether this SVID is the one that its machine holds.
    #[must_use]
    pub fn holds(&self, key: &K, facts: Facts) -> bool {
        self.wards.get(key).is_some_and(|ward| ward.rotation.holds(facts))
    }

    /// Whether anybody still wants it.
    #[must_use]
    pub fn lingers(&self, key: &K) -> bool {
        self.wards.get(key).is_some_and(|ward| ward.leaves_at.is_some())
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.wards.get(key).map_or(0, |ward| ward.rotation.failures())
    }

    /// When its next request is due; it may be past.
    #[must_use]
    pub fn due(&self, key: &K, now: UnixTime) -> Option<UnixTime> {
        self.wards.get(key).map(|ward| ward.rotation.due(now))
    }

    /// The earliest of these among those somebody wants.
    #[must_use]
    pub fn next_due(&self, now: UnixTime) -> Option<UnixTime> {
        let wanted = self.wards.values().filter(|ward| ward.leaves_at.is_none());
        wanted.map(|ward| ward.rotation.due(now)).min()
    }

    /// How many are in which state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for ward in self.wards.values() {
            match (ward.leaves_at, ward.rotation.serves()) {
                (Some(_), _) => counts.lingering += 1,
                (None, true) => counts.served += 1,
                (None, false) => counts.waiting += 1,
            }
            match ward.turn {
                Turn::Idle => {}
                Turn::Queued(_) => counts.queued += 1,
                Turn::InFlight => counts.in_flight += 1,
            }
        }
        counts
    }

    /// Lets the most urgent ask, as many as may at once.
    fn start(&mut self, now: UnixTime) {
        loop {
            let under_way = self.wards.values().filter(|w| w.turn == Turn::InFlight);
            let (mut all, mut firsts) = (0, 0);
            for ward in under_way {
                all += 1;
                firsts += usize::from(ward.rotation.usable_until(now).is_none());
            }
            if all >= PARALLEL {
                return;
            }
            let queued = self
                .wards
                .iter()
                .filter_map(|(key, ward)| urgency(ward, now).map(|urgency| (urgency, key)));
            let may = |urgency: &Urgency| firsts < FIRSTS || matches!(urgency, Urgency::Ends { .. });
            let first = queued.filter(|(urgency, _)| may(urgency)).min();
            let Some(key) = first.map(|(_, key)| key.clone()) else {
                return;
            };
            if let Some(ward) = self.wards.get_mut(&key) {
                ward.turn = Turn::InFlight;
            }
            self.deeds.push(Deed::Request(key));
        }
    }
}

/// Where one who waits for its turn stands; nothing for others, and for those nobody wants any more.
fn urgency(ward: &Ward, now: UnixTime) -> Option<Urgency> {
    let (Turn::Queued(turn), None) = (ward.turn, ward.leaves_at) else {
        return None;
    };
    Some(match ward.rotation.usable_until(now) {
        Some(at) => Urgency::Ends { at, turn },
        None => Urgency::None {
            failures: ward.rotation.failures(),
            turn,
        },
    })
}

/// Where the steps of the machines go.
struct Out<'a, K> {
    deeds: &'a mut Vec<Deed<K>>,
    next_turn: &'a mut u64,
}

impl<K: Clone> Out<'_, K> {
    /// Steps one machine with `event` until it says how long to wait.
    fn settle(&mut self, (key, ward): (&K, &mut Ward), mut event: Event, now: UnixTime, chance: Chance) {
        loop {
            let (state, action) = rotation::step(ward.rotation, event, now, chance);
            ward.rotation = state;
            event = Event::Woke;
            match action {
                Action::Request => {
                    ward.turn = Turn::Queued(*self.next_turn);
                    *self.next_turn += 1;
                }
                Action::Publish => self.deeds.push(Deed::Publish(key.clone())),
                Action::TooSoon(when) => self.deeds.push(Deed::TooSoon(key.clone(), when)),
                Action::WakeAt(when) => {
                    ward.wake = when;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
