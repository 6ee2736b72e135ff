//! Room for objects: a share for each namespace, so that none takes what others need, and a part that is the root
//! namespace's alone, whose policies are the mesh's. Pure.
//!
//! What had no room is remembered by name, and is asked for again when there may be room.

use std::collections::{BTreeMap, BTreeSet};

use signet_policy::model::{Kind, ObjectKey};

use crate::policy::KINDS;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most objects of one kind in one namespace.
    pub of_one: usize,
    /// Most objects in all.
    pub objects: usize,
    /// Most bytes of objects as they travel.
    pub bytes: usize,
}

/// The bounds in use.
pub const BOUNDS: Bounds = Bounds {
    of_one: 4_000,
    objects: 50_000,
    bytes: 64 << 20,
};

/// A namespace may take this part of the bounds; the root namespace has one of its own.
const SHARES: usize = 4;

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) objects: usize,
    pub(super) bytes: usize,
}

impl Used {
    fn part(self, parts: usize) -> Self {
        Self {
            objects: self.objects / SHARES * parts,
            bytes: self.bytes / SHARES * parts,
        }
    }

    fn fits(self, more: Self, most: Self) -> bool {
        self.objects + more.objects <= most.objects && self.bytes + more.bytes <= most.bytes
    }

    fn add(&mut self, more: Self) {
        self.objects += more.objects;
        self.bytes += more.bytes;
    }

    fn subtract(&mut self, less: Self) {
        self.objects = self.objects.saturating_sub(less.objects);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There are as many objects of this kind in this namespace as are kept.
    Kind(usize),
    /// The namespace has used its share.
    Namespace(Used),
    /// All namespaces together have used what is theirs.
    All(Used),
}

impl Full {
    /// What is wrong, and what helps.
    pub(super) fn told(self) -> (String, String) {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        let missing = "the agent has no room for this policy".to_owned();
        let hint = match self {
            Self::Kind(most) => {
                format!("of one kind it keeps {most} policies in a namespace; remove some of this namespace")
            }
            Self::Namespace(most) => format!(
                "of one namespace it keeps {} policies, of {} MiB; remove or shorten some of this namespace",
                most.objects,
                mib(most.bytes)
            ),
            Self::All(most) => format!(
                "it keeps {} policies, of {} MiB, of all namespaces but the root namespace; remove or shorten some",
                most.objects,
                mib(most.bytes)
            ),
        };
        (missing, hint)
    }
}

/// What is used, and what had no room.
#[derive(Debug)]
pub(super) struct Room {
    bounds: Bounds,
    root: String,
    each: BTreeMap<String, Used>,
    /// Of all but the root namespace.
    others: Used,
    /// Objects whose newest version had no room, with its bytes.
    refused: BTreeMap<ObjectKey, usize>,
    /// Where objects had to be left out whole.
    left_out: BTreeMap<(Kind, String), Full>,
    /// Kinds for which there may be room again, as something was freed.
    hopeful: BTreeSet<Kind>,
    /// Kinds of which something that was left out may be gone.
    doubtful: BTreeSet<Kind>,
}

impl Room {
    pub(super) fn new(bounds: Bounds, root: String) -> Self {
        Self {
            bounds,
            root,
            each: BTreeMap::new(),
            others: Used::default(),
            refused: BTreeMap::new(),
            left_out: BTreeMap::new(),
            hopeful: BTreeSet::new(),
            doubtful: BTreeSet::new(),
        }
    }

    /// Whether one more object of a kind fits into this namespace, beside so many.
    pub(super) fn one_more(&self, namespace: &str, beside: usize) -> Result<(), Full> {
        if beside >= self.bounds.of_one {
            return Err(Full::Kind(self.bounds.of_one));
        }
        let one = Used { objects: 1, bytes: 0 };
        self.fits(namespace, Used::default(), one)
    }

    /// Whether a version of so many bytes fits in the place of one.
    pub(super) fn instead(&self, namespace: &str, before: usize, bytes: usize) -> Result<(), Full> {
        let of = |bytes| Used { objects: 0, bytes };
        self.fits(namespace, of(before), of(bytes))
    }

    fn fits(&self, namespace: &str, less: Used, more: Used) -> Result<(), Full> {
        let bounds = Used {
            objects: self.bounds.objects,
            bytes: self.bounds.bytes,
        };
        let (share, all) = (bounds.part(1), bounds.part(SHARES - 1));
        let mut own = self.each.get(namespace).copied().unwrap_or_default();
        own.subtract(less);
        if !own.fits(more, share) {
            return Err(Full::Namespace(share));
        }
        let mut others = self.others;
        others.subtract(less);
        if namespace != self.root && !others.fits(more, all) {
            return Err(Full::All(all));
        }
        Ok(())
    }

    /// So much more is used.
    pub(super) fn add(&mut self, namespace: &str, more: Used) {
        self.each.entry(namespace.to_owned()).or_default().add(more);
        if namespace != self.root {
            self.others.add(more);
        }
    }

    /// So much less is used: others may find room.
    pub(super) fn free(&mut self, namespace: &str, less: Used) {
        if less == Used::default() {
            return;
        }
        if let Some(used) = self.each.get_mut(namespace) {
            used.subtract(less);
            if *used == Used::default() {
                self.each.remove(namespace);
            }
        }
        if namespace != self.root {
            self.others.subtract(less);
        }
        self.hopeful.extend(KINDS);
    }

    /// The newest version of this object had no room.
    pub(super) fn refuse(&mut self, key: ObjectKey, bytes: usize) {
        self.refused.insert(key, bytes);
    }

    /// This object is in its newest version, or gone.
    pub(super) fn settle(&mut self, key: &ObjectKey) {
        self.refused.remove(key);
    }

    /// An object had to be left out whole.
    pub(super) fn leave_out(&mut self, place: (Kind, String), full: Full) {
        self.left_out.insert(place, full);
    }

    /// An object is gone that was not known: what was left out in its namespace may have been it.
    pub(super) fn gone(&mut self, kind: Kind, namespace: &str) {
        if self.full(kind, namespace).is_some() {
            self.doubtful.insert(kind);
        }
    }

    /// Why objects of this kind had to be left out in this namespace, if any were.
    pub(super) fn full(&self, kind: Kind, namespace: &str) -> Option<Full> {
        self.left_out.get(&(kind, namespace.to_owned())).copied()
    }

    /// Where objects had to be left out.
    pub(super) fn left_out(&self) -> impl Iterator<Item = &(Kind, String)> {
        self.left_out.keys()
    }

    /// A list of a kind begins: what had no room is in it. Answers in which namespaces objects had been left out.
    pub(super) fn list(&mut self, kind: Kind) -> Vec<String> {
        let of_kind = |place: &&(Kind, String)| place.0 == kind;
        let places: Vec<(Kind, String)> = self.left_out.keys().filter(of_kind).cloned().collect();
        for place in &places {
            self.left_out.remove(place);
        }
        self.hopeful.remove(&kind);
        self.doubtful.remove(&kind);
        places.into_iter().map(|(_, namespace)| namespace).collect()
    }

    /// The kinds to be listed anew, as something that had no room may have it now. Each is told once. `beside` is how
    /// many objects there are in a place, `held` how many bytes of an object.
    pub(super) fn hopes(
        &mut self,
        beside: impl Fn(&(Kind, String)) -> usize,
        held: impl Fn(&ObjectKey) -> usize,
    ) -> BTreeSet<Kind> {
        let mut hopes = std::mem::take(&mut self.doubtful);
        let hopeful = std::mem::take(&mut self.hopeful);
        if hopeful.is_empty() {
            return hopes;
        }
        for place in self.left_out.keys().filter(|(kind, _)| hopeful.contains(kind)) {
            if self.one_more(&place.1, beside(place)).is_ok() {
                hopes.insert(place.0);
            }
        }
        for (key, bytes) in self.refused.iter().filter(|(key, _)| hopeful.contains(&key.kind)) {
            if self.instead(&key.namespace, held(key), *bytes).is_ok() {
                hopes.insert(key.kind);
            }
        }
        hopes
    }

    /// What is used in all.
    #[cfg(test)]
    pub(super) fn used(&self) -> Used {
        let mut all = Used::default();
        self.each.values().for_each(|used| all.add(*used));
        all
    }
}
