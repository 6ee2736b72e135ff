//! All objects, each in its last good version, and what is in force for a workload.
//!
//! The unit is one object. A version that cannot be read leaves the object's last good one in force; an object
//! without a good version counts as the strictest it could be. Neither touches other objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::decision::PolicyName;
use crate::document::{Content, Reading};
use crate::fault::{Conflict, Fault};
use crate::model::remains::{MAX_REMAINS_BYTES, Remains};
use crate::model::salvage::{Effect, Faulty};
use crate::model::{Kind, Object, ObjectKey};
use crate::mtls::{PeerModes, Resolver};
use crate::program::{Compiler, Program, Source};
use crate::scope::{Level, Mesh, OutOfScope, Workload, level, peer_level};
use crate::tokens::TokenRules;

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    objects: BTreeMap<ObjectKey, Entry>,
    /// Documents whose names could not be read, and that stand for no known object.
    nameless: BTreeMap<(Arc<str>, u64), Arc<Faulty>>,
}

/// An object. It has a good version, a fault, or both.
#[derive(Clone, Debug)]
struct Entry {
    origin: Arc<str>,
    good: Option<Arc<Object>>,
    fault: Option<Arc<Faulty>>,
}

/// A version that cannot be read, and what is in force instead.
#[derive(Clone, Debug)]
pub struct Outstanding<'s> {
    /// The object, or the document.
    pub name: PolicyName,
    /// Where the version came from.
    pub origin: &'s str,
    /// What is wrong with it.
    pub faulty: &'s Faulty,
    /// Whether the object's last good version is in force; if not, `faulty` counts as its `effect`.
    pub last_good: bool,
}

/// What is in force for one workload.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Who may do what.
    pub program: Program,
    /// Which ports demand mutual TLS.
    pub peers: PeerModes,
    /// Which tokens are good.
    pub tokens: TokenRules,
}

impl Entry {
    fn contents(&self) -> impl Iterator<Item = Content> {
        let good = self.good.iter().map(|object| Content::Sound(object.clone()));
        let fault = self.fault.iter().map(|faulty| Content::Faulty(faulty.clone()));
        good.chain(fault)
    }
}

impl PolicySet {
    /// Takes one object as it is now.
    pub fn apply(&mut self, reading: Reading) {
        let Reading {
            origin,
            line,
            content,
        } = reading;
        match content {
            Content::Foreign(_) => {}
            Content::Sound(object) => {
                let good = Some(object.clone());
                let fault = None;
                self.objects.insert(object.key(), Entry { origin, good, fault });
            }
            Content::Faulty(faulty) => match &faulty.key {
                Some(key) => {
                    let good = self.objects.get(key).and_then(|entry| entry.good.clone());
                    let fault = Some(faulty.clone());
                    self.objects.insert(key.clone(), Entry { origin, good, fault });
                }
                None => {
                    self.nameless.insert((origin, line), faulty);
                }
            },
        }
    }

    /// Forgets an object that was deleted.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }

    /// Takes a whole listing: what is not in it was deleted. In a file with a document whose name cannot be read,
    /// that may be any object of this file that is missing now, so these stay in their last good versions.
    pub fn replace(&mut self, readings: Vec<Reading>) {
        let old = std::mem::take(&mut self.objects);
        self.nameless.clear();
        let mut twice: BTreeMap<ObjectKey, (Fault, Vec<Content>)> = BTreeMap::new();
        for reading in readings {
            if let Some((key, fault)) = self.second_version(&reading) {
                let (_, versions) = twice.entry(key).or_insert_with(|| (fault, Vec::new()));
                versions.push(reading.content);
                continue;
            }
            if let Content::Faulty(faulty) = &reading.content
                && let Some(key) = &faulty.key
                && let Some(before) = old.get(key)
            {
                self.objects.insert(key.clone(), before.clone());
            }
            self.apply(reading);
        }
        for (key, (fault, mut versions)) in twice {
            let good = old.get(&key).and_then(|entry| entry.good.clone());
            if let Some(entry) = self.objects.get_mut(&key) {
                versions.extend(entry.contents());
                let fault = Faulty::ambiguous(&key, &versions, vec![fault]);
                entry.good = good;
                entry.fault = Some(Arc::new(fault));
            }
        }
        self.keep_unaccounted(old);
    }

    /// The object that a reading gives a second, different version of in one listing.
    fn second_version(&self, reading: &Reading) -> Option<(ObjectKey, Fault)> {
        let key = match &reading.content {
            Content::Sound(object) => object.key(),
            Content::Faulty(faulty) => faulty.key.clone()?,
            Content::Foreign(_) => return None,
        };
        let first = self.objects.get(&key)?;
        let same = match &reading.content {
            Content::Sound(object) => first.good.as_ref() == Some(object) && first.fault.is_none(),
            Content::Faulty(_) | Content::Foreign(_) => false,
        };
        let line = Some(reading.line).filter(|line| *line > 0);
        let fault = Fault {
            path: "metadata.name".to_owned(),
            line,
            problem: Conflict::Twice.into(),
        };
        (!same).then_some((key, fault))
    }

    fn keep_unaccounted(&mut self, old: BTreeMap<ObjectKey, Entry>) {
        let mut accounted: BTreeSet<(Arc<str>, u64)> = BTreeSet::new();
        for (key, entry) in old {
            if self.objects.contains_key(&key) || entry.good.is_none() {
                continue;
            }
            let mut nameless = self.nameless.iter();
            let Some((place, faulty)) = nameless.find(|((origin, _), _)| *origin == entry.origin) else {
                continue;
            };
            accounted.insert(place.clone());
            let fault = Some(faulty.clone());
            self.objects.insert(key, Entry { fault, ..entry });
        }
        let origins: BTreeSet<Arc<str>> = accounted.into_iter().map(|(origin, _)| origin).collect();
        self.nameless.retain(|(origin, _), _| !origins.contains(origin));
    }

    /// Versions that cannot be read.
    pub fn outstanding(&self) -> impl Iterator<Item = Outstanding<'_>> {
        let objects = self.objects.iter().filter_map(|(key, entry)| {
            Some(Outstanding {
                name: PolicyName::Object(key.clone()),
                origin: &entry.origin,
                faulty: entry.fault.as_deref()?,
                last_good: entry.good.is_some(),
            })
        });
        let nameless = self.nameless.iter().map(|((origin, line), faulty)| Outstanding {
            name: document(origin, *line),
            origin,
            faulty,
            last_good: false,
        });
        objects.chain(nameless)
    }

    /// The objects in force somewhere.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values().filter_map(|entry| entry.good.as_ref())
    }

    /// Objects that do not concern the workload, and why.
    pub fn out_of_scope(
        &self,
        workload: &Workload,
        mesh: &Mesh,
    ) -> impl Iterator<Item = (&Arc<Object>, OutOfScope)> {
        self.objects()
            .filter_map(move |object| Some((object, scope(object, workload, mesh).err()?)))
    }

    /// What is in force for a workload, compiled.
    #[must_use]
    pub fn in_force(&self, workload: &Workload, mesh: &Mesh) -> InForce {
        let mut making = Making {
            compiler: Compiler::new(mesh),
            peers: Resolver::default(),
            rules: Vec::new(),
            refused: None,
        };
        for (key, entry) in &self.objects {
            let name = PolicyName::Object(key.clone());
            match (&entry.good, &entry.fault) {
                (Some(object), _) => {
                    if let Ok(level) = scope(object, workload, mesh) {
                        making.sound(name, level, object);
                    }
                }
                (None, Some(faulty)) => making.faulty(name, faulty, workload, mesh),
                (None, None) => {}
            }
        }
        for ((origin, line), faulty) in &self.nameless {
            making.faulty(document(origin, *line), faulty, workload, mesh);
        }
        InForce {
            program: making.compiler.finish(),
            peers: making.peers.finish(),
            tokens: TokenRules::new(making.rules, making.refused),
        }
    }
}

fn document(origin: &Arc<str>, line: u64) -> PolicyName {
    let origin = origin.clone();
    PolicyName::Document { origin, line }
}

fn scope(object: &Object, workload: &Workload, mesh: &Mesh) -> Result<Level, OutOfScope> {
    let level = if matches!(object, Object::Peer(_)) {
        peer_level
    } else {
        level
    };
    let namespace = Some(object.meta().namespace.as_str());
    level(namespace, object.attachment(), workload, &mesh.root_namespace)
}

/// What is in force, being made.
struct Making<'a> {
    compiler: Compiler<'a>,
    peers: Resolver<'a>,
    rules: Vec<crate::model::JwtRule>,
    refused: Option<(PolicyName, Remains)>,
}

impl<'a> Making<'a> {
    fn sound(&mut self, name: PolicyName, level: Level, object: &'a Object) {
        match object {
            Object::Authorization(policy) => self.compiler.add(name, level, Source::Sound(policy)),
            Object::Peer(peer) => self.peers.add(level, peer, name),
            Object::Request(request) => self.rules.extend(request.rules.iter().cloned()),
        }
    }

    fn faulty(&mut self, name: PolicyName, faulty: &Faulty, workload: &Workload, mesh: &Mesh) {
        let namespace = faulty.namespace.as_deref();
        let peer = faulty.kind == Some(Kind::PeerAuthentication);
        let level = if peer { peer_level } else { level };
        let Ok(level) = level(namespace, &faulty.attachment, workload, &mesh.root_namespace) else {
            return;
        };
        match faulty.effect {
            Effect::AllowNothing | Effect::DenyAll => {
                self.compiler.add(name, level, Source::Faulty(faulty));
            }
            Effect::Strict => self.peers.add_faulty(level, faulty.certain, name),
            Effect::RefuseTokens => {
                let (_, remains) = self
                    .refused
                    .get_or_insert_with(|| (name.clone(), Remains::default()));
                if remains.bytes() <= MAX_REMAINS_BYTES {
                    remains.join(faulty.remains.clone());
                }
                // As of a single object: more than can be looked for in every request refuses every request.
                if remains.bytes() > MAX_REMAINS_BYTES {
                    let denying = Faulty {
                        effect: Effect::DenyAll,
                        ..faulty.clone()
                    };
                    self.compiler.add(name, level, Source::Faulty(&denying));
                }
            }
            Effect::Nothing => {}
        }
    }
}
