//! Which listeners of a workload demand mutual TLS: the most specific PeerAuthentication counts, port by port.

use std::collections::BTreeMap;

use crate::decision::PolicyName;
use crate::model::{Mode, PeerAuthentication};
use crate::scope::Level;

/// The mode of every port of a workload, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerModes {
    workload: Ruling,
    ports: BTreeMap<u16, Ruling>,
}

/// A mode and the object it comes from; nothing for the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The mode.
    pub mode: Mode,
    /// The object.
    pub by: Option<PolicyName>,
}

impl PeerModes {
    /// The mode of a workload port, and the object it comes from.
    #[must_use]
    pub fn ruling(&self, port: u16) -> &Ruling {
        self.ports.get(&port).unwrap_or(&self.workload)
    }

    /// The mode of a workload port.
    #[must_use]
    pub fn mode(&self, port: u16) -> Mode {
        self.ruling(port).mode
    }

    /// Ports with a ruling of their own.
    pub fn ports(&self) -> impl Iterator<Item = (u16, &Ruling)> {
        self.ports.iter().map(|(port, ruling)| (*port, ruling))
    }
}

/// Objects that concern a workload, on their way to modes.
#[derive(Default)]
pub(crate) struct Resolver<'a> {
    sound: Vec<(Level, &'a PeerAuthentication, PolicyName)>,
    strict: Vec<(Level, PolicyName)>,
}

impl<'a> Resolver<'a> {
    /// A sound object.
    pub(crate) fn add(&mut self, level: Level, object: &'a PeerAuthentication, name: PolicyName) {
        self.sound.push((level, object, name));
    }

    /// An object that cannot be read: strict on its level, beside whatever else is there. `certain` says
    /// whether it is known what it selects; if not, it may be meant for this very workload.
    pub(crate) fn add_faulty(&mut self, level: Level, certain: bool, name: PolicyName) {
        let level = if certain { level } else { Level::Workload };
        self.strict.push((level, name));
    }

    pub(crate) fn finish(mut self) -> PeerModes {
        // Of two on one level the older one counts; without an age, the one that comes first by name.
        self.sound.sort_by(|(a_level, a, _), (b_level, b, _)| {
            let age = |one: &PeerAuthentication| one.meta.created.clone();
            let name = |one: &PeerAuthentication| (one.meta.name.clone(), one.meta.namespace.clone());
            a_level
                .cmp(b_level)
                .then_with(|| age(a).cmp(&age(b)))
                .then_with(|| name(a).cmp(&name(b)))
        });
        let mut ruling = Ruling {
            mode: Mode::Permissive,
            by: None,
        };
        let mut ports = BTreeMap::new();
        for level in [Level::Mesh, Level::Namespace, Level::Workload] {
            if let Some((_, name)) = self.strict.iter().find(|(at, _)| *at == level) {
                ruling = Ruling {
                    mode: Mode::Strict,
                    by: Some(name.clone()),
                };
                continue;
            }
            let Some((_, object, name)) = self.sound.iter().find(|(at, ..)| *at == level) else {
                continue;
            };
            let say = |mode| Ruling {
                mode,
                by: Some(name.clone()),
            };
            if let Some(mode) = object.mode {
                ruling = say(mode);
            }
            if level == Level::Workload {
                let set = object.ports.iter();
                ports = set
                    .filter_map(|(port, mode)| Some((*port, say((*mode)?))))
                    .collect();
            }
        }
        PeerModes {
            workload: ruling,
            ports,
        }
    }
}
