//! The questions of a comparison that are made up of the literals of both sets.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use signet_policy::model::{Attachment, Object};
use signet_policy::scope::Role;
use signet_policy::{Mesh, PolicySet, Workload};

use super::super::inventory::{Inventory, carries};
use super::super::literals::{Maker, PORT};
use super::super::question::{Addresses, Caller, Http, Question, Token};

/// Most workloads that are asked about.
pub(super) const MAX_WORKLOADS: usize = 256;

/// A workload that is asked, under its name.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// As policies see it.
    pub workload: Workload,
    /// What it is called.
    pub name: String,
    /// Its ports.
    pub ports: BTreeSet<u16>,
}

/// Every workload there is, and for each selector one that it selects; for each namespace one that none does;
/// and one in a namespace that nobody speaks of.
#[must_use]
pub(super) fn workloads(inventory: &Inventory, sets: &[&PolicySet], root: &str) -> Vec<Asked> {
    let mut wanted: BTreeMap<(String, BTreeMap<String, String>), Asked> = BTreeMap::new();
    let mut add = |namespace: &str, labels: BTreeMap<String, String>, name: String, ports: BTreeSet<u16>| {
        let key = (namespace.to_owned(), labels.clone());
        wanted.entry(key).or_insert_with(|| Asked {
            workload: Workload {
                namespace: namespace.to_owned(),
                labels,
                role: Role::Sidecar,
            },
            name,
            ports,
        });
    };
    for real in inventory.real() {
        let name = format!("{}/{}", real.meta.namespace, real.meta.name);
        let ports = inventory.ports(real).into_keys().collect();
        add(&real.meta.namespace, real.meta.labels.clone(), name, ports);
    }
    let objects = || sets.iter().flat_map(|set| set.objects());
    let mut namespaces: BTreeSet<String> = objects().map(|one| one.meta().namespace.clone()).collect();
    namespaces.insert("elsewhere".to_owned());
    for namespace in &namespaces {
        add(
            namespace,
            BTreeMap::new(),
            format!("{namespace}/(no labels)"),
            BTreeSet::new(),
        );
    }
    for object in objects() {
        let Attachment::Labels(labels) = object.attachment() else {
            continue;
        };
        let own = &object.meta().namespace;
        let reached = namespaces
            .iter()
            .filter(|namespace| *namespace == own || own == root);
        for namespace in reached {
            let known = inventory
                .real()
                .any(|real| real.meta.namespace == *namespace && carries(&real.meta.labels, labels));
            if !known {
                let words: Vec<_> = labels
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let name = format!("{namespace}/({})", words.join(","));
                add(namespace, labels.clone(), name, BTreeSet::new());
            }
        }
    }
    wanted.into_values().collect()
}

/// The objects that concern a workload. No other has a say in what it answers.
pub(super) fn in_scope(set: &PolicySet, workload: &Workload, mesh: &Mesh) -> Vec<Arc<Object>> {
    let away: BTreeSet<_> = set
        .out_of_scope(workload, mesh)
        .map(|(object, _)| object.key())
        .collect();
    set.objects()
        .filter(|object| !away.contains(&object.key()))
        .cloned()
        .collect()
}

/// Everything that `objects` speak of, asked of a workload with these ports, at most `most` questions; and
/// whether there were more. Those that rules are made of come first.
pub(super) fn made_up(
    maker: &Maker,
    objects: &[Arc<Object>],
    own_ports: &BTreeSet<u16>,
    most: usize,
) -> (Vec<Question>, bool) {
    let mut of_rules = Vec::new();
    let mut ports: BTreeSet<u16> = own_ports.clone();
    ports.insert(PORT);
    for object in objects {
        match &**object {
            Object::Authorization(policy) => {
                for rule in &policy.rules {
                    if of_rules.len() <= most {
                        of_rules.extend(maker.of_rule(rule));
                    }
                }
            }
            Object::Peer(peer) => ports.extend(peer.ports.keys()),
            Object::Request(_) => {}
        }
    }
    let mut pool = Pool::of(maker, &of_rules);
    let plain = ports
        .into_iter()
        .flat_map(|port| [(port, None), (port, Some(plain()))]);
    pool.operations.extend(plain);
    let mut seen = HashSet::new();
    let all = of_rules.into_iter().chain(pool.pairs());
    let questions = all.filter(|question| seen.insert(same(question)));
    let mut questions: Vec<_> = questions.take(most.saturating_add(1)).collect();
    let more = questions.len() > most;
    questions.truncate(most);
    (questions, more)
}

/// What makes two questions the same.
fn same(question: &Question) -> String {
    let claims = match &question.token {
        Token::Claims(claims) => Value::Object(claims.clone()).to_string(),
        Token::None | Token::Jwt(_) | Token::Of(_) => String::new(),
    };
    format!("{question:?}{claims}")
}

fn plain() -> Http {
    Http {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: "workload.example".to_owned(),
        headers: Vec::new(),
    }
}

/// What the questions of rules consist of.
struct Pool {
    /// Somebody of ours whom no rule names.
    stranger: Caller,
    callers: BTreeSet<Caller>,
    operations: BTreeSet<(u16, Option<Http>)>,
    /// As text, which sorts.
    tokens: BTreeMap<String, Map<String, Value>>,
    addresses: BTreeSet<Addresses>,
}

impl Pool {
    fn of(maker: &Maker, questions: &[Question]) -> Self {
        let foreign = "spiffe://foreign.example/ns/somewhere/sa/somebody"
            .parse()
            .map(Caller::Id);
        let mut pool = Self {
            stranger: maker.stranger(),
            callers: [Caller::Plaintext, maker.stranger()]
                .into_iter()
                .chain(foreign)
                .collect(),
            operations: BTreeSet::new(),
            tokens: BTreeMap::new(),
            addresses: BTreeSet::from([Addresses::default()]),
        };
        let tokens = questions.iter().filter_map(|question| match &question.token {
            Token::Claims(claims) => Some(claims.clone()),
            Token::None | Token::Jwt(_) | Token::Of(_) => None,
        });
        for claims in tokens.chain(maker.tokens()) {
            pool.tokens
                .insert(Value::Object(claims.clone()).to_string(), claims);
        }
        for question in questions {
            pool.callers.insert(question.caller.clone());
            pool.operations.insert((question.port, question.http.clone()));
            pool.addresses.insert(question.addresses);
        }
        pool
    }

    /// Every caller with every operation, token and address; every operation with every token. Made as they
    /// are asked for: there may be very many.
    fn pairs(&self) -> impl Iterator<Item = Question> + '_ {
        let usual = || (PORT, Some(plain()));
        let with_operations = self.callers.iter().flat_map(move |caller| {
            let operations = self.operations.iter();
            operations.map(move |operation| question(caller, operation))
        });
        let with_addresses = self.callers.iter().flat_map(move |caller| {
            self.addresses.iter().map(move |addresses| Question {
                addresses: *addresses,
                ..question(caller, &usual())
            })
        });
        let with_tokens = self.tokens.values().flat_map(move |claims| {
            let http = self.operations.iter().filter(|(_, http)| http.is_some());
            let bare = self.callers.iter().map(move |caller| question(caller, &usual()));
            let operations = http.map(|operation| question(&self.stranger, operation));
            bare.chain(operations).map(|question| Question {
                token: Token::Claims(claims.clone()),
                ..question
            })
        });
        with_operations.chain(with_addresses).chain(with_tokens)
    }
}

fn question(caller: &Caller, (port, http): &(u16, Option<Http>)) -> Question {
    Question {
        caller: caller.clone(),
        port: *port,
        addresses: Addresses::default(),
        sni: None,
        http: http.clone(),
        token: Token::None,
    }
}
