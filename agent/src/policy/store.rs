//! All objects, each in its last good version, and the view of them that is shared. Pure.
//!
//! The unit is one object (I4). What the store has no room for counts as the strictest it could be, in its own
//! namespace, until there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use signet_policy::PolicySet;
use signet_policy::decision::PolicyName;
use signet_policy::document::{Content, Reading};
use signet_policy::fault::Fault;
use signet_policy::model::salvage::Faulty;
use signet_policy::model::{Kind, Object, ObjectKey};
use signet_proto::policy::sound_object;

use super::object::{ORIGIN, Told};
use super::services::{self, MAX_SERVICES, Services};
use super::space::{Item, Message, Spaces};
use items::{faulty_item, issuers, no_room, strictest};
pub use room::{BOUNDS, Bounds};
use room::{Full, Room, Used};

mod items;
mod room;

/// What stands for the objects of a namespace that were left out. No object has this name.
const LEFT_OUT: &str = "*";

/// What a source says.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object is there, or changed.
    Applied(Told),
    /// An object is gone.
    Deleted(ObjectKey),
    /// These are all objects of a kind.
    Listed(Kind, Vec<Told>),
    /// These are all documents of a directory, with what travels of each.
    Files(Vec<(Reading, Option<Bytes>)>),
    /// Something about services.
    Services(services::Event),
}

/// What there is. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The policies.
    pub spaces: Spaces,
    /// The services.
    pub services: Services,
}

/// What events changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether the view is another one.
    pub view: bool,
    /// Objects for which there was no room.
    pub no_room: usize,
    /// Services for which there was no room.
    pub services_left_out: usize,
    /// Kinds of which something had no room and may have it now: a list shows it.
    pub list_again: BTreeSet<Kind>,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    room: Room,
    set: PolicySet,
    /// The good versions in `set`, as they travel.
    good: BTreeMap<ObjectKey, Good>,
    /// Every object told of, with its uid, by kind and namespace.
    known: BTreeMap<(Kind, String), BTreeMap<String, String>>,
    view: View,
}

#[derive(Clone, Debug)]
struct Good {
    object: Arc<Object>,
    json: Bytes,
    origin: Arc<str>,
}

impl Default for Store {
    /// Without a root namespace.
    fn default() -> Self {
        Self::bounded(BOUNDS, String::new())
    }
}

impl Store {
    /// Nothing yet, within these bounds.
    #[must_use]
    pub fn bounded(bounds: Bounds, root_namespace: String) -> Self {
        Self {
            room: Room::new(bounds, root_namespace),
            set: PolicySet::default(),
            good: BTreeMap::new(),
            known: BTreeMap::new(),
            view: View::default(),
        }
    }

    /// What there is now.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The policies there are now.
    #[must_use]
    pub fn spaces(&self) -> &Spaces {
        &self.view.spaces
    }

    /// Takes events in, one after the other.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Change {
        let mut change = Change::default();
        let mut touched = BTreeSet::new();
        for event in events {
            match event {
                Event::Applied(told) => {
                    touched.insert(told.key.clone());
                    self.put(told, &mut change);
                }
                Event::Deleted(key) => {
                    self.remove(&key);
                    touched.insert(key);
                }
                Event::Listed(kind, all) => self.list(kind, all, &mut touched, &mut change),
                Event::Files(documents) => {
                    self.files(documents);
                    change.view |= self.rebuild();
                }
                Event::Services(event) => {
                    let (changed, left_out) = self.view.services.apply(event, MAX_SERVICES);
                    change.view |= changed;
                    change.services_left_out += left_out;
                }
            }
        }
        if !touched.is_empty() {
            change.view |= self.refresh(&touched);
        }
        let Self {
            room, known, good, ..
        } = self;
        change.list_again = room.hopes(
            |place| known.get(place).map_or(0, BTreeMap::len),
            |key| good.get(key).map_or(0, |good| good.json.len()),
        );
        change
    }

    fn list(&mut self, kind: Kind, all: Vec<Told>, touched: &mut BTreeSet<ObjectKey>, change: &mut Change) {
        let listed: BTreeSet<&ObjectKey> = all.iter().map(|told| &told.key).collect();
        let of_kind = self.known.iter().filter(|((known, _), _)| *known == kind);
        let gone: Vec<ObjectKey> = of_kind
            .flat_map(|((kind, namespace), names)| names.keys().map(|name| key(*kind, namespace, name)))
            .filter(|key| !listed.contains(key))
            .collect();
        for key in gone {
            self.remove(&key);
            touched.insert(key);
        }
        // Room is looked for anew: whatever had none is in the list as well.
        for namespace in self.room.list(kind) {
            touched.insert(key(kind, &namespace, LEFT_OUT));
        }
        for told in all {
            touched.insert(told.key.clone());
            self.put(told, change);
        }
    }

    fn put(&mut self, told: Told, change: &mut Change) {
        let Told {
            key,
            uid,
            json,
            reading,
        } = told;
        if let Err(full) = self.enter(&key) {
            change.no_room += 1;
            self.room.leave_out((key.kind, key.namespace), full);
            return;
        }
        let names = self.known.entry((key.kind, key.namespace.clone())).or_default();
        if names
            .insert(key.name.clone(), uid.clone())
            .is_some_and(|known| known != uid)
        {
            // Another object under the same name: the former one's last good version was not its own.
            self.forget_good(&key);
            self.set.remove(&key);
        }
        let before = self.good.get(&key).map_or(0, |good| good.json.len());
        if let Err(full) = self.room.instead(&key.namespace, before, json.len()) {
            change.no_room += 1;
            self.set.apply(no_room(&key, full));
            self.room.refuse(key, json.len());
            return;
        }
        self.room.settle(&key);
        if let Content::Sound(object) = &reading.content {
            self.forget_good(&key);
            self.room.add(&key.namespace, of_bytes(json.len()));
            let (object, origin) = (object.clone(), reading.origin.clone());
            self.good.insert(key, Good { object, json, origin });
        }
        self.set.apply(reading);
    }

    /// Gives an object a place, unless it has one.
    fn enter(&mut self, key: &ObjectKey) -> Result<(), Full> {
        let place = (key.kind, key.namespace.clone());
        let names = self.known.get(&place);
        if names.is_some_and(|names| names.contains_key(&key.name)) {
            return Ok(());
        }
        self.room
            .one_more(&key.namespace, names.map_or(0, BTreeMap::len))?;
        self.room.add(&key.namespace, ONE);
        Ok(())
    }

    fn remove(&mut self, key: &ObjectKey) {
        let place = (key.kind, key.namespace.clone());
        let known = self.known.get_mut(&place);
        if known.is_some_and(|names| names.remove(&key.name).is_some()) {
            self.room.free(&key.namespace, ONE);
        } else {
            self.room.gone(key.kind, &key.namespace);
        }
        if self.known.get(&place).is_some_and(BTreeMap::is_empty) {
            self.known.remove(&place);
        }
        self.room.settle(key);
        self.forget_good(key);
        self.set.remove(key);
    }

    fn forget_good(&mut self, key: &ObjectKey) {
        if let Some(good) = self.good.remove(key) {
            self.room.free(&key.namespace, of_bytes(good.json.len()));
        }
    }

    /// Takes a whole directory: which version of what is good is up to the set.
    fn files(&mut self, documents: Vec<(Reading, Option<Bytes>)>) {
        let mut fresh: Vec<Good> = Vec::new();
        let mut readings = Vec::with_capacity(documents.len());
        for (reading, json) in documents {
            if let (Content::Sound(object), Some(json)) = (&reading.content, json) {
                let (object, origin) = (object.clone(), reading.origin.clone());
                fresh.push(Good { object, json, origin });
            }
            readings.push(reading);
        }
        self.set.replace(readings);
        let mut former = std::mem::take(&mut self.good);
        let mut fresh: BTreeMap<*const Object, Good> = fresh
            .into_iter()
            .map(|good| (Arc::as_ptr(&good.object), good))
            .collect();
        for object in self.set.objects() {
            let good = fresh
                .remove(&Arc::as_ptr(object))
                .or_else(|| former.remove(&object.key()));
            if let Some(good) = good {
                self.good.insert(object.key(), good);
            }
        }
    }

    /// Brings the places of these objects up to date.
    fn refresh(&mut self, touched: &BTreeSet<ObjectKey>) -> bool {
        let mut faulty = BTreeMap::new();
        for found in self.set.outstanding() {
            if let PolicyName::Object(key) = &found.name
                && touched.contains(key)
            {
                faulty.insert(key.clone(), (found.faulty.clone(), found.origin.to_owned()));
            }
        }
        let mut changed = false;
        for key in touched {
            let fault = faulty.get(key).map(|(faulty, origin)| (faulty, origin.as_str()));
            let name = PolicyName::Object(key.clone());
            let item = if key.name == LEFT_OUT {
                self.left_out(key)
            } else {
                self.item(key, fault)
            };
            changed |= match item {
                Some(item) => self.view.spaces.put(name, item),
                None => self.view.spaces.remove(Some(&key.namespace), &name),
            };
        }
        let left_out: Vec<(Kind, String)> = self.room.left_out().cloned().collect();
        for (kind, namespace) in left_out {
            let key = key(kind, &namespace, LEFT_OUT);
            if let Some(item) = self.left_out(&key) {
                changed |= self.view.spaces.put(PolicyName::Object(key), item);
            }
        }
        changed
    }

    /// Makes the view anew; what is the same stays where it is.
    fn rebuild(&mut self) -> bool {
        let mut items: BTreeMap<PolicyName, Item> = BTreeMap::new();
        for found in self.set.outstanding() {
            let item = match &found.name {
                PolicyName::Object(key) => self.item(key, Some((found.faulty, found.origin))),
                PolicyName::Document { line, .. } => Some(faulty_item(found.faulty, "", found.origin, *line)),
            };
            items.extend(item.map(|item| (found.name, item)));
        }
        for key in self.good.keys() {
            let name = PolicyName::Object(key.clone());
            if let Some(item) = (!items.contains_key(&name))
                .then(|| self.item(key, None))
                .flatten()
            {
                items.insert(name, item);
            }
        }
        let mut changed = self.view.spaces.retain(|namespace, name| {
            items
                .get(name)
                .is_some_and(|item| item.namespace.as_deref() == namespace)
        });
        for (name, item) in items {
            changed |= self.view.spaces.put(name, item);
        }
        changed
    }

    fn item(&self, key: &ObjectKey, fault: Option<(&Faulty, &str)>) -> Option<Item> {
        let place = (key.kind, key.namespace.clone());
        let uid = self.known.get(&place).and_then(|names| names.get(&key.name));
        let uid = uid.map(String::as_str).unwrap_or_default();
        let Some(good) = self.good.get(key) else {
            let (faulty, origin) = fault?;
            return Some(faulty_item(faulty, uid, origin, 0));
        };
        let faults: &[Fault] = fault.map_or(&[], |(faulty, _)| &faulty.faults);
        let message = sound_object(key, uid, &good.origin, good.json.clone(), faults);
        let item = Item::new(
            (Some(key.kind), Some(key.namespace.clone())),
            good.object.attachment().clone(),
            &good.origin,
            Message::Sound(message),
        );
        Some(item.asking(issuers(&good.object)))
    }

    /// What stands for the objects of a namespace that were left out, if any were.
    fn left_out(&self, key: &ObjectKey) -> Option<Item> {
        let full = self.room.full(key.kind, &key.namespace)?;
        Some(faulty_item(&strictest(key, full), "", ORIGIN, 0))
    }
}

/// One object, whose bytes count apart.
const ONE: Used = Used { objects: 1, bytes: 0 };

fn of_bytes(bytes: usize) -> Used {
    Used { objects: 0, bytes }
}

fn key(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
