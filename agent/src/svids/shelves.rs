//! The shelves: one place per identity and the trust bundles, changed together. One writer, the keeper;
//! whoever reads gets a whole: an SVID is served only beside the bundle it verified under (I6), and
//! bundles never go back (I5). A change of one identity wakes only those who look at it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signet_certs::{SpiffeId, TrustDomain};
use tokio::sync::watch;

use super::trust::Trust;
use super::verified::Verified;
use super::view::{Held, Seen, View, Wish, spread};
use crate::attest::{Subject, Workload};
use crate::bundle_watch::{Verdict, judge};
use crate::status::Status;

/// Whose SVID it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The agent's own, whatever the CA calls it.
    Own,
    /// That of a workload on this node.
    Of(SpiffeId),
}

/// One place on the shelves, as an operator sees it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Whose it is.
    pub whose: Whose,
    /// Its name; not known for our own until the token or the CA says it.
    pub id: Option<SpiffeId>,
    /// The SVID served.
    pub verified: Option<Verified>,
    /// How its keeping goes.
    pub status: Arc<Status>,
}

#[derive(Debug)]
struct Place {
    id: Option<SpiffeId>,
    verified: Option<Verified>,
    status: Arc<Status>,
    /// Whether the keeper keeps an SVID here, as against somebody merely looking.
    kept: bool,
    bell: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    trust: Arc<Trust>,
    places: BTreeMap<Whose, Place>,
}

#[derive(Debug)]
struct Inner {
    domain: TrustDomain,
    state: Mutex<State>,
    trust_bell: watch::Sender<()>,
    news: watch::Sender<()>,
}

/// The readers' end. Clones share the shelves.
#[derive(Clone, Debug)]
pub struct Shelves(Arc<Inner>);

/// The writer's end.
#[derive(Debug)]
pub struct Keeping(Shelves);

impl Shelves {
    /// Empty shelves of an agent of `domain`, and their writer.
    #[must_use]
    pub fn new(domain: TrustDomain) -> (Keeping, Self) {
        let shelves = Self(Arc::new(Inner {
            domain,
            state: Mutex::default(),
            trust_bell: watch::Sender::new(()),
            news: watch::Sender::new(()),
        }));
        (Keeping(shelves.clone()), shelves)
    }

    /// What one who may have these identities sees, in this order.
    #[must_use]
    pub fn view_of(&self, wishes: Vec<(Whose, Option<String>)>) -> View {
        let mut state = self.lock();
        let wishes = wishes
            .into_iter()
            .map(|(whose, hint)| {
                let place = state
                    .places
                    .entry(whose.clone())
                    .or_insert_with(|| Place::new(&whose));
                let bell = place.bell.subscribe();
                Wish { whose, hint, bell }
            })
            .collect();
        drop(state);
        View::new(self.clone(), wishes, self.0.trust_bell.subscribe())
    }

    /// What an attested workload sees.
    #[must_use]
    pub fn view(&self, workload: &Workload) -> View {
        let ids = workload.identities.iter();
        self.view_of(match workload.subject {
            Subject::Own => vec![(Whose::Own, None)],
            _ => ids
                .map(|entitled| (Whose::Of(entitled.id.clone()), entitled.hint.clone()))
                .collect(),
        })
    }

    /// Our trust domain.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.0.domain
    }

    /// The bundles in force.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.lock().trust)
    }

    /// Whether an SVID of `id` is kept, served or not.
    #[must_use]
    pub fn keeps(&self, id: &SpiffeId) -> bool {
        self.lock()
            .places
            .values()
            .any(|place| place.kept && place.id.as_ref() == Some(id))
    }

    /// Everything that is kept, in a stable order.
    #[must_use]
    pub fn all(&self) -> Vec<Shown> {
        let state = self.lock();
        let kept = state.places.iter().filter(|(_, place)| place.kept);
        kept.map(|(whose, place)| Shown {
            whose: whose.clone(),
            id: place.id.clone(),
            verified: place.verified.clone(),
            status: Arc::clone(&place.status),
        })
        .collect()
    }

    /// Told of every change, whatever it is: for operators, not for streams.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    /// Over how long those who look may hear of other bundles.
    pub(super) fn spread(&self) -> Duration {
        spread(self.0.trust_bell.receiver_count())
    }

    pub(super) fn seen(&self, wishes: &[Wish]) -> Seen {
        let state = self.lock();
        let mut seen = Seen::new(self.0.domain.clone(), Vec::new(), Arc::clone(&state.trust));
        for wish in wishes {
            let Some(place) = state.places.get(&wish.whose) else {
                continue;
            };
            match &place.id {
                Some(id) => seen.svids.push(Held {
                    id: id.clone(),
                    hint: wish.hint.clone(),
                    verified: place.verified.clone(),
                    status: Arc::clone(&place.status),
                }),
                None => seen = seen.with_nameless(Arc::clone(&place.status)),
            }
        }
        seen
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn new(whose: &Whose) -> Self {
        Self {
            id: match whose {
                Whose::Own => None,
                Whose::Of(id) => Some(id.clone()),
            },
            verified: None,
            status: Arc::default(),
            kept: false,
            bell: watch::Sender::new(()),
        }
    }
}

impl Keeping {
    /// The readers' end.
    #[must_use]
    pub fn shelves(&self) -> &Shelves {
        &self.0
    }

    /// Makes a place for an identity that is kept from now on.
    pub fn keep(&self, whose: &Whose) {
        let mut state = self.0.lock();
        let place = state
            .places
            .entry(whose.clone())
            .or_insert_with(|| Place::new(whose));
        place.kept = true;
        drop(state);
        self.tell_all();
    }

    /// Clears the place of an identity that is no longer kept: its key goes with it.
    pub fn clear(&self, whose: &Whose) {
        let mut state = self.0.lock();
        if let Some(place) = state.places.get_mut(whose) {
            place.kept = false;
            place.verified = None;
            place.status = Arc::default();
            place.bell.send_replace(());
        }
        // Whoever still looks keeps the place, and finds an SVID there if it is ever kept again.
        state
            .places
            .retain(|_, place| place.kept || place.bell.receiver_count() > 0);
        drop(state);
        self.tell_all();
    }

    /// Our own name, as far as it is known.
    pub fn name(&self, whose: &Whose, id: &SpiffeId) {
        let mut state = self.0.lock();
        let Some(place) = state.places.get_mut(whose) else {
            return;
        };
        if place.id.as_ref() == Some(id) {
            return;
        }
        place.id = Some(id.clone());
        place.bell.send_replace(());
        drop(state);
        self.tell_all();
    }

    /// Puts other bundles in force, together with what of each identity is served beside them. Bundles
    /// older than those in force are left out, with everything that came along.
    pub fn put_trust(&self, trust: &Arc<Trust>, served: Vec<(Whose, Option<Verified>)>) -> Verdict {
        let mut state = self.0.lock();
        let verdict = match (state.trust.own(), trust.own()) {
            (Some(_), None) => Verdict::Older,
            (None, None) => Verdict::Newer,
            (current, Some(offered)) => judge(current.map(AsRef::as_ref), offered, &self.0.0.domain),
        };
        if matches!(verdict, Verdict::Newer | Verdict::Same) {
            state.trust = Arc::clone(trust);
            for (whose, verified) in served {
                state.put(&whose, verified);
            }
            state.drop_unverified();
            drop(state);
            self.0.0.trust_bell.send_replace(());
            self.tell_all();
        }
        verdict
    }

    /// Serves this SVID, or none, under this identity.
    pub fn put(&self, whose: &Whose, verified: Option<Verified>) {
        let mut state = self.0.lock();
        state.put(whose, verified);
        state.drop_unverified();
        drop(state);
        self.tell_all();
    }

    /// Changes how the keeping goes; wakes no stream.
    pub fn tell(&self, whose: &Whose, change: impl FnOnce(&mut Status)) {
        let mut state = self.0.lock();
        let Some(place) = state.places.get_mut(whose) else {
            return;
        };
        let before = Arc::clone(&place.status);
        change(Arc::make_mut(&mut place.status));
        let changed = *before != *place.status;
        drop(state);
        if changed {
            self.tell_all();
        }
    }

    fn tell_all(&self) {
        self.0.0.news.send_replace(());
    }
}

impl State {
    fn put(&mut self, whose: &Whose, verified: Option<Verified>) {
        let Some(place) = self.places.get_mut(whose) else {
            return;
        };
        let same = match (&place.verified, &verified) {
            (Some(before), Some(after)) => before.same_svid(after),
            (None, None) => true,
            _ => false,
        };
        place.verified = verified;
        if !same {
            place.bell.send_replace(());
        }
    }

    /// Whatever the writer does, an SVID is beside the bundle it verified under or it is not served.
    fn drop_unverified(&mut self) {
        let own = self.trust.own();
        for place in self.places.values_mut() {
            let fits = |v: &mut Verified| own.is_some_and(|own| Arc::ptr_eq(own, v.bundle()));
            if place.verified.take_if(|v| !fits(v)).is_some() {
                place.bell.send_replace(());
            }
        }
    }
}
