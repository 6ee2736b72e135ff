//! All objects this proxy was told of, each in its last good version. Pure.

use std::collections::BTreeMap;

use signet_policy::PolicySet;
use signet_policy::decision::PolicyName;
use signet_policy::document::{Content, Reading};
use signet_policy::fault::Fault;
use signet_policy::model::ObjectKey;
use signet_proto::policy::Received;

/// The objects.
#[derive(Clone, Debug, Default)]
pub struct Held {
    set: PolicySet,
    /// Uids of objects, where the source has them: a namesake does not inherit a last good version.
    uids: BTreeMap<ObjectKey, String>,
    /// What the agent finds wrong with newer versions of objects that came sound.
    newer: BTreeMap<ObjectKey, Newer>,
}

#[derive(Clone, Debug)]
struct Newer {
    origin: String,
    faults: Vec<Fault>,
}

/// A version that cannot be read, and what is in force instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// The object, or the document.
    pub name: PolicyName,
    /// Where the version came from.
    pub origin: String,
    /// What the object counts as; nothing while its last good version is in force.
    pub effect: Option<&'static str>,
    /// What is wrong with it, as sentences.
    pub faults: Vec<String>,
}

impl Outstanding {
    /// A stable word for what is in force instead.
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.effect.unwrap_or("last_good")
    }
}

impl Held {
    /// The objects.
    #[must_use]
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// Takes a whole listing of a directory.
    pub fn take_files(&mut self, readings: Vec<Reading>) {
        self.uids.clear();
        self.newer.clear();
        self.set.replace(readings);
    }

    /// Takes a whole snapshot of the agent.
    pub fn take_snapshot(&mut self, objects: Vec<Received>) {
        let mut uids = BTreeMap::new();
        self.newer.clear();
        let mut readings = Vec::with_capacity(objects.len());
        for Received { reading, uid, faults } in objects {
            if let Some(key) = key(&reading.content) {
                if self.uids.get(&key).is_some_and(|known| *known != uid) {
                    self.set.remove(&key);
                }
                if !faults.is_empty() {
                    let origin = reading.origin.to_string();
                    self.newer.insert(key.clone(), Newer { origin, faults });
                }
                uids.insert(key, uid);
            }
            readings.push(reading);
        }
        self.uids = uids;
        self.set.replace(readings);
    }

    /// Versions that cannot be read, here or by the agent.
    #[must_use]
    pub fn outstanding(&self) -> Vec<Outstanding> {
        let sentences = |faults: &[Fault]| faults.iter().map(ToString::to_string).collect();
        let here = self.set.outstanding().map(|found| Outstanding {
            name: found.name,
            origin: found.origin.to_owned(),
            effect: (!found.last_good).then(|| found.faulty.effect.as_str()),
            faults: sentences(&found.faulty.faults),
        });
        let there = self.newer.iter().map(|(key, newer)| Outstanding {
            name: PolicyName::Object(key.clone()),
            origin: newer.origin.clone(),
            effect: None,
            faults: sentences(&newer.faults),
        });
        here.chain(there).collect()
    }
}

fn key(content: &Content) -> Option<ObjectKey> {
    match content {
        Content::Sound(object) => Some(object.key()),
        Content::Faulty(faulty) => faulty.key.clone(),
        Content::Foreign(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use signet_policy::{read_object, read_text};

    use super::*;

    fn received(uid: &str, action: &str) -> Received {
        let object = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop"}, "spec": {"action": action, "rules": [{}]},
        });
        Received {
            reading: read_object("kubernetes", &object),
            uid: uid.to_owned(),
            faults: Vec::new(),
        }
    }

    fn states(held: &Held) -> Vec<&'static str> {
        held.outstanding().iter().map(Outstanding::state).collect()
    }

    #[test]
    fn a_bad_version_keeps_the_good_one_through_a_new_agent_and_a_namesake_does_not() {
        let mut held = Held::default();
        held.take_snapshot(vec![received("u1", "DENY")]);
        assert!(states(&held).is_empty());
        held.take_snapshot(vec![received("u1", "NO")]);
        assert_eq!(states(&held), ["last_good"]);
        held.take_snapshot(vec![received("u2", "NO")]);
        assert_eq!(states(&held), ["denies_all"]);
        held.take_snapshot(vec![received("u2", "DENY")]);
        assert!(states(&held).is_empty());
        held.take_snapshot(Vec::new());
        assert_eq!(held.set().objects().count(), 0);
    }

    #[test]
    fn what_the_agent_finds_wrong_with_a_newer_version_is_told_with_it() {
        let mut bad = read_text("x", "{", None);
        let Content::Faulty(faulty) = bad.remove(0).content else {
            panic!("it is no YAML")
        };
        let mut held = Held::default();
        let faults = faulty.faults.clone();
        held.take_snapshot(vec![Received {
            faults,
            ..received("u1", "DENY")
        }]);
        assert_eq!(
            (states(&held), held.set().objects().count()),
            (vec!["last_good"], 1)
        );
    }
}
