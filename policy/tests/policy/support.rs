//! A mesh, a workload and questions about it, in few words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use signet_certs::SpiffeId;
use signet_policy::document::Content;
use signet_policy::path::{Normalization, RequestPath};
use signet_policy::principal::LocalDomains;
use signet_policy::program::Trace;
use signet_policy::scope::{Mesh, ProviderKind, Role, Workload};
use signet_policy::{Connection, Gate, PolicySet, Program, Request, RequestIdentity, read_text};

pub(crate) fn mesh() -> Mesh {
    Mesh {
        domains: LocalDomains::new("td".parse().unwrap(), ["old".parse().unwrap()]),
        root_namespace: "root".to_owned(),
        providers: BTreeMap::from([
            ("grpc".to_owned(), ProviderKind::Grpc),
            ("grpc2".to_owned(), ProviderKind::Grpc),
            ("http".to_owned(), ProviderKind::Http),
        ]),
    }
}

/// `shop/cart`.
pub(crate) fn workload() -> Workload {
    Workload {
        namespace: "shop".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
        role: Role::Sidecar,
    }
}

/// The objects of a text, all of which must be sound.
pub(crate) fn sound(text: &str) -> PolicySet {
    let mut set = PolicySet::default();
    for reading in read_text("test", text, Some("shop")) {
        if let Content::Faulty(faulty) = &reading.content {
            panic!("{}\n{text}", faulty.faults[0]);
        }
        set.apply(reading);
    }
    set
}

/// What was found wrong, as people read it.
pub(crate) fn faults(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for reading in read_text("test", text, Some("shop")) {
        if let Content::Faulty(faulty) = &reading.content {
            found.extend(faulty.faults.iter().map(ToString::to_string));
        }
    }
    found
}

/// A policy of `shop` with these rules, given as a flow sequence.
pub(crate) fn policy(action: &str, rules: &str) -> String {
    named("shop", "p", action, rules)
}

pub(crate) fn named(namespace: &str, name: &str, action: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{action: {action}, rules: {rules}}}\n"
    )
}

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) peer: Option<String>,
    pub(crate) source: String,
    pub(crate) remote: Option<String>,
    pub(crate) destination: String,
    pub(crate) port: u16,
    pub(crate) sni: Option<String>,
    pub(crate) http: Option<Http>,
}

#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) claims: Option<Value>,
}

/// A GET of `/` by `td/ns/web/sa/front`.
pub(crate) fn ask() -> Ask {
    Ask {
        peer: Some("spiffe://td/ns/web/sa/front".to_owned()),
        source: "10.1.2.3".to_owned(),
        remote: None,
        destination: "10.9.9.9".to_owned(),
        port: 8080,
        sni: None,
        http: Some(Http {
            method: "GET".to_owned(),
            host: "cart.shop".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
            claims: None,
        }),
    }
}

impl Ask {
    pub(crate) fn peer(mut self, id: &str) -> Self {
        self.peer = Some(format!("spiffe://{id}"));
        self
    }

    pub(crate) fn plaintext(mut self) -> Self {
        self.peer = None;
        self
    }

    pub(crate) fn source_ip(mut self, source: &str) -> Self {
        self.source = source.to_owned();
        self
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    pub(crate) fn tcp(mut self) -> Self {
        self.http = None;
        self
    }

    fn http(mut self, change: impl FnOnce(&mut Http)) -> Self {
        change(self.http.as_mut().unwrap());
        self
    }

    pub(crate) fn method(self, method: &str) -> Self {
        self.http(|http| http.method = method.to_owned())
    }

    pub(crate) fn host(self, host: &str) -> Self {
        self.http(|http| http.host = host.to_owned())
    }

    pub(crate) fn path(self, path: &str) -> Self {
        self.http(|http| http.path = path.to_owned())
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.http(|http| http.headers.push((name.to_owned(), value.to_owned())))
    }

    pub(crate) fn claims(self, claims: Value) -> Self {
        self.http(|http| http.claims = Some(claims))
    }

    /// Gives `look` the question as the engine takes it.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&Connection<'_>, Option<&Request<'_>>) -> R) -> R {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let peer: Option<SpiffeId> = self.peer.as_ref().map(|id| id.parse().unwrap());
        let connection = Connection {
            peer: peer.as_ref(),
            source: ip(&self.source),
            remote: ip(self.remote.as_ref().unwrap_or(&self.source)),
            destination: ip(&self.destination),
            port: self.port,
            sni: self.sni.as_deref(),
        };
        let Some(http) = &self.http else {
            return look(&connection, None);
        };
        let headers: Vec<(&str, &str)> = http.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        let path = RequestPath::new(&http.path, Normalization::Base).unwrap();
        let identity = http.claims.as_ref().map(|claims| {
            let claims: Map<String, Value> = claims.as_object().unwrap().clone();
            RequestIdentity::assert_verified(claims, &["words".to_owned()])
        });
        let headers = Slice(&headers);
        let request = Request {
            method: &http.method,
            authority: &http.host,
            path: &path,
            headers: &headers,
            identity: identity.as_ref(),
        };
        look(&connection, Some(&request))
    }
}

struct Slice<'a>(&'a [(&'a str, &'a str)]);

impl signet_policy::Headers for Slice<'_> {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        self.0.each(name, visit);
    }
}

/// A verdict, in words that compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// By this rule of this policy, or by none.
    Allowed(Option<(String, usize)>),
    Asks(Vec<String>),
    /// The stable word of the denial, and its sentence.
    Denied(&'static str, String),
}

impl Verdict {
    pub(crate) fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

pub(crate) fn verdict(program: &Program, ask: &Ask) -> Verdict {
    ask.with(|connection, request| {
        let cleared = match program.gate(connection, request) {
            Gate::Open(cleared) => cleared,
            Gate::Ask(question) => return Verdict::Asks(question.providers().map(str::to_owned).collect()),
            Gate::Shut(denial) => return Verdict::Denied(denial.as_str(), denial.to_string()),
        };
        match cleared.decide(connection, request) {
            Ok(permit) => Verdict::Allowed(permit.by().map(|by| (by.policy.to_string(), by.rule))),
            Err(denial) => Verdict::Denied(denial.as_str(), denial.to_string()),
        }
    })
}

pub(crate) fn program(text: &str) -> Program {
    sound(text).in_force(&workload(), &mesh()).program
}

pub(crate) fn judge(text: &str, ask: &Ask) -> Verdict {
    verdict(&program(text), ask)
}

pub(crate) fn explain(text: &str, ask: &Ask) -> Trace {
    let program = program(text);
    ask.with(|connection, request| program.explain(connection, request))
}

/// Whether an ALLOW policy with this one rule lets it pass; a DENY policy with the same rule must then refuse it.
pub(crate) fn matches(rule: &str, ask: &Ask) -> bool {
    let rules = format!("[{rule}]");
    let allowed = judge(&policy("ALLOW", &rules), ask).is_allowed();
    let denied = !judge(&policy("DENY", &rules), ask).is_allowed();
    assert_eq!(
        allowed, denied,
        "ALLOW and DENY read {rule} differently for {ask:?}"
    );
    allowed
}

pub(crate) fn token() -> Value {
    json!({"iss": "https://idp/realm", "sub": "bob"})
}
