//! What an operator sees of policies: where they come from, which there are, which cannot be read.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use signet_policy::model::Kind;

use super::issuers::Issuers;
use super::{KINDS, Policies, Source};

/// How the source of one kind is, or that of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It is not known yet what there is.
    Unknown,
    /// What there is is known.
    Listed {
        /// The served version that is followed; nothing for a directory.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<&'static str>,
    },
    /// The API server does not have this kind.
    Absent,
}

/// How a source is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What is known.
    #[serde(flatten)]
    pub state: State,
    /// The last failure, unless it went well since: a word and a sentence.
    pub failure: Option<(&'static str, String)>,
}

/// Which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// One kind at the API server.
    Kind(Kind),
    /// The directory.
    Directory,
    /// Services at the API server.
    Services,
}

impl Part {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kind(kind) => kind.as_str(),
            Self::Directory => "directory",
            Self::Services => "Service",
        }
    }
}

/// How all sources are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(BTreeMap<Part, Health>);

impl Sources {
    /// None is known yet.
    #[must_use]
    pub fn new(source: &Source) -> Self {
        let unknown = |part| {
            let health = Health {
                state: State::Unknown,
                failure: None,
            };
            (part, health)
        };
        Self(match source {
            Source::Kubernetes { .. } => {
                let kinds = KINDS.map(|kind| unknown(Part::Kind(kind)));
                kinds.into_iter().chain([unknown(Part::Services)]).collect()
            }
            Source::Directory(_) => [unknown(Part::Directory)].into(),
        })
    }

    /// Notes that a source is well, and what is known of it.
    pub fn well(&mut self, part: Part, state: State) {
        self.0.insert(part, Health { state, failure: None });
    }

    /// Notes that a source is well again, and knows what it knew.
    pub fn recovered(&mut self, part: Part) {
        if let Some(health) = self.0.get_mut(&part) {
            health.failure = None;
        }
    }

    /// Notes a failure; what is known stays known.
    pub fn failed(&mut self, part: Part, reason: &'static str, error: String) {
        if let Some(health) = self.0.get_mut(&part) {
            health.failure = Some((reason, error));
        }
    }

    /// Whether it is known of every source what there is.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.0.values().all(|health| health.state != State::Unknown)
    }

    /// What is not known, and why, as one sentence; empty when everything is.
    #[must_use]
    pub fn missing(&self) -> String {
        let unknown = self.0.iter().filter(|(_, health)| health.state == State::Unknown);
        let told = unknown.map(|(part, health)| match &health.failure {
            Some((_, error)) => format!("{}: {error}", part.name()),
            None => format!("{}: not listed yet", part.name()),
        });
        told.collect::<Vec<_>>().join("; ")
    }

    fn json(&self) -> Value {
        let named = self
            .0
            .iter()
            .map(|(part, health)| (part.name().to_owned(), json!(health)));
        Value::Object(named.collect())
    }
}

/// The page `/v1/policies`, but for the streams.
#[must_use]
pub fn page(policies: &Policies) -> Value {
    let view = policies.view.borrow().clone();
    let items = view.as_ref().map(|view| {
        let item = |(name, item): (
            &signet_policy::decision::PolicyName,
            &std::sync::Arc<super::space::Item>,
        )| {
            json!({
                "policy": name.to_string(),
                "kind": item.kind.map(Kind::as_str),
                "namespace": item.namespace,
                "origin": item.origin,
                "state": item.state(),
                "faults": item.faults(),
            })
        };
        view.spaces.items().map(item).collect::<Vec<_>>()
    });
    let settings = &policies.mesh.settings;
    json!({
        "source": settings.source.name(),
        "root_namespace": settings.root_namespace,
        "synced": view.is_some(),
        "sources": policies.sources.borrow().json(),
        "policies": items.unwrap_or_default(),
        "services": view.map(|view| view.services.len()),
        "key_sets": policies.issuers.as_ref().map(Issuers::page),
    })
}
