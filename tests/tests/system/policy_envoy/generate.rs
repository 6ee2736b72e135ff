//! Policies and requests, by chance but always the same chance.

use serde_json::{Map, Value, json};

use super::object;

/// A small generator of numbers (xorshift64*); good enough to ask varied questions.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % bound
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn chance(&mut self, in_ten: usize) -> bool {
        self.below(10) < in_ten
    }

    /// One to three, without repetition.
    fn some(&mut self, of: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = (0..=self.below(3)).map(|_| self.one(of).to_owned()).collect();
        all.sort();
        all.dedup();
        all
    }
}

const PRINCIPALS: &[&str] = &[
    "*",
    "cluster.local/ns/web/sa/frontend",
    "cluster.local/ns/web/*",
    "*/sa/batch",
    "cluster.local/ns/data/sa/batch",
    "spiffe://cluster.local/ns/web/sa/frontend",
    "cluster.local/ns/web/sa/front",
];
const NAMESPACES: &[&str] = &["web", "data", "*", "we*", "*ta", "w*b", "none"];
const ACCOUNTS: &[&str] = &["frontend", "web/frontend", "batch", "data/batch", "web/intruder"];
const BLOCKS: &[&str] = &["127.0.0.0/8", "127.0.0.1", "10.0.0.0/8", "::1", "0.0.0.0/0"];
const HOSTS: &[&str] = &[
    "example.com",
    "example.com:8080",
    "EXAMPLE.COM",
    "*.com",
    "example*",
    "*",
    "other.test",
];
const METHODS: &[&str] = &["GET", "POST", "*", "DEL*", "*T"];
const PATHS: &[&str] = &[
    "/api/v1/items",
    "/api/*",
    "*/items",
    "*",
    "/admin",
    "/admin/*",
    "/api/{*}/items",
    "/api/{**}",
    "/{**}/items",
    "/api/v1/it*",
];
const PORTS: &[&str] = &["9", "19"];
/// None with a comma: what such a value matches Envoy never has, since it compares line by line.
const TIERS: &[&str] = &["gold", "*", "go*", "*er", "silver"];
const KEYS: &[(&str, &[&str])] = &[
    ("request.headers[x-tier]", TIERS),
    ("source.ip", BLOCKS),
    ("remote.ip", BLOCKS),
    ("source.namespace", NAMESPACES),
    ("source.principal", PRINCIPALS),
    ("destination.port", PORTS),
    ("destination.ip", BLOCKS),
];

/// A field and its values.
pub(super) type Fields = Vec<(&'static str, Vec<String>)>;

/// A rule.
pub(super) struct Rule {
    pub(super) from: Vec<Fields>,
    pub(super) to: Vec<Fields>,
    /// Key, values, values that must not be.
    pub(super) when: Vec<(&'static str, Vec<String>, Vec<String>)>,
}

/// A policy.
pub(super) struct Policy {
    pub(super) allow: bool,
    pub(super) rules: Vec<Rule>,
}

/// Policies in force together.
pub(super) struct Set(pub(super) Vec<Policy>);

impl Set {
    pub(super) fn random(random: &mut Random) -> Self {
        Self((0..=random.below(3)).map(|_| Policy::random(random)).collect())
    }

    /// One policy with one condition on the header.
    pub(super) fn on_gold(allow: bool, negated: bool) -> Self {
        let gold = vec!["gold".to_owned()];
        let (values, not) = if negated {
            (Vec::new(), gold)
        } else {
            (gold, Vec::new())
        };
        let when = vec![("request.headers[x-tier]", values, not)];
        let (from, to) = (Vec::new(), Vec::new());
        let rules = vec![Rule { from, to, when }];
        Self(vec![Policy { allow, rules }])
    }

    /// Whether a condition on the header lets pass what it matches: then its lines count joined, not one by one.
    pub(super) fn joins_lines(&self) -> bool {
        self.0.iter().any(|policy| {
            let conditions = policy.rules.iter().flat_map(|rule| &rule.when);
            let mut headers = conditions.filter(|(key, ..)| key.starts_with("request.headers"));
            headers.any(|(_, values, not)| !if policy.allow { values } else { not }.is_empty())
        })
    }

    /// As the API has them.
    pub(super) fn objects(&self) -> Vec<Value> {
        let named = self.0.iter().enumerate();
        named
            .map(|(number, policy)| object(&format!("policy-{number}"), &policy.spec()))
            .collect()
    }
}

impl Policy {
    fn random(random: &mut Random) -> Self {
        let allow = random.chance(6);
        // A DENY policy has to have rules.
        let fewest = usize::from(!allow || random.chance(8));
        let rules = (0..fewest + random.below(3))
            .map(|_| Rule::random(random))
            .collect();
        Self { allow, rules }
    }

    fn spec(&self) -> Value {
        let rules: Vec<Value> = self.rules.iter().map(Rule::json).collect();
        let action = if self.allow { "ALLOW" } else { "DENY" };
        let mut spec = json!({"action": action});
        if !rules.is_empty() {
            spec["rules"] = rules.into();
        }
        spec
    }
}

impl Rule {
    fn random(random: &mut Random) -> Self {
        let some = |random: &mut Random, make: fn(&mut Random) -> Fields| match random.below(3) {
            0 => Vec::new(),
            more => (0..more).map(|_| make(random)).collect(),
        };
        let from = some(random, source);
        let to = some(random, operation);
        let when = match random.below(4) {
            0 => vec![condition(random)],
            _ => Vec::new(),
        };
        Self { from, to, when }
    }

    fn json(&self) -> Value {
        let entries = |all: &[Fields], name: &str| -> Vec<Value> {
            all.iter()
                .map(|fields| {
                    let map: Map<String, Value> = fields
                        .iter()
                        .map(|(field, values)| ((*field).into(), json!(values)))
                        .collect();
                    json!({name: map})
                })
                .collect()
        };
        let mut rule = Map::new();
        for (name, inner, all) in [("from", "source", &self.from), ("to", "operation", &self.to)] {
            if !all.is_empty() {
                rule.insert(name.into(), entries(all, inner).into());
            }
        }
        if !self.when.is_empty() {
            let conditions: Vec<Value> = self
                .when
                .iter()
                .map(|(key, values, not)| {
                    let mut condition = json!({"key": key});
                    for (name, values) in [("values", values), ("notValues", not)] {
                        if !values.is_empty() {
                            condition[name] = json!(values);
                        }
                    }
                    condition
                })
                .collect();
            rule.insert("when".into(), conditions.into());
        }
        rule.into()
    }
}

fn source(random: &mut Random) -> Fields {
    // Accounts may not stand beside principals and namespaces.
    if random.chance(2) {
        let field = if random.chance(7) {
            "serviceAccounts"
        } else {
            "notServiceAccounts"
        };
        return vec![(field, random.some(ACCOUNTS))];
    }
    fields(
        random,
        &[
            ("principals", "notPrincipals", PRINCIPALS),
            ("namespaces", "notNamespaces", NAMESPACES),
            ("ipBlocks", "notIpBlocks", BLOCKS),
            ("remoteIpBlocks", "notRemoteIpBlocks", BLOCKS),
        ],
    )
}

fn operation(random: &mut Random) -> Fields {
    fields(
        random,
        &[
            ("paths", "notPaths", PATHS),
            ("methods", "notMethods", METHODS),
            ("hosts", "notHosts", HOSTS),
            ("ports", "notPorts", PORTS),
        ],
    )
}

/// At least one field; more often one than several, and more often the plain one than its negation.
fn fields(random: &mut Random, of: &[(&'static str, &'static str, &[&str])]) -> Fields {
    let first = random.below(of.len());
    let mut fields = Vec::new();
    for (number, (plain, negated, values)) in of.iter().enumerate() {
        if number == first || random.chance(2) {
            if random.chance(8) {
                fields.push((*plain, random.some(values)));
            }
            if random.chance(2) {
                fields.push((*negated, random.some(values)));
            }
        }
    }
    if fields.is_empty() {
        let (plain, _, values) = of[first];
        fields.push((plain, random.some(values)));
    }
    fields
}

fn condition(random: &mut Random) -> (&'static str, Vec<String>, Vec<String>) {
    let (key, values) = KEYS[random.below(KEYS.len())];
    match random.below(3) {
        0 => (key, random.some(values), Vec::new()),
        1 => (key, Vec::new(), random.some(values)),
        _ => (key, random.some(values), random.some(values)),
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    /// Who asks; 0 is nobody.
    pub(super) caller: usize,
    pub(super) method: &'static str,
    pub(super) authority: &'static str,
    pub(super) target: &'static str,
    /// Values of `x-tier`, a line each.
    pub(super) headers: Vec<&'static str>,
}

impl Asked {
    /// One of which nothing but the header matters.
    pub(super) fn of_lines(lines: &[&'static str]) -> Self {
        Self {
            caller: 1,
            method: "GET",
            authority: "example.com",
            target: "/api",
            headers: lines.to_vec(),
        }
    }

    pub(super) fn random(random: &mut Random) -> Self {
        let tiers: &[&str] = &["gold", "silver", "golden", ""];
        let count = random.below(3);
        Self {
            caller: random.below(4),
            method: random.one(&["GET", "GET", "POST", "DELETE", "PUT"]),
            authority: random.one(&["example.com", "example.com:8080", "Example.Com", "other.test"]),
            target: random.one(&[
                "/api/v1/items",
                "/api/v1/items?q=/admin",
                "/api/v1/./items",
                "/api/v2/items",
                "/api/items",
                "/api/",
                "/api",
                "/admin",
                "/admin/users",
                "/api/v1/../../admin",
                "/api/v1/%2e%2e/%2e%2e/admin",
                "/%61dmin",
                "/admin%2Fusers",
                "//admin",
                "/api//items",
                "/api/*/items",
                "/API/v1/items",
                "/",
            ]),
            headers: (0..count).map(|_| random.one(tiers)).collect(),
        }
    }
}
