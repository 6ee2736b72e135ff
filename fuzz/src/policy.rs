//! What decides who may: policy documents, and the paths of requests.

use std::collections::BTreeMap;
use std::net::IpAddr;

use signet_certs::{SpiffeId, TrustDomain};
use signet_policy::document::{Content, Reading};
use signet_policy::principal::LocalDomains;
use signet_policy::scope::{ProviderKind, Role};
use signet_policy::{
    Connection, Gate, Mesh, Normalization, PolicySet, Program, Request, RequestPath, Workload, read_text,
};
use signet_proto::policy::parse as parse_snapshot;
use signet_proto::wire::signet::policy::v1::PolicySnapshot;

/// Longest sentence about one fault.
const MAX_SENTENCE: usize = 1024;

/// A file of policies. Every fault is one short line; a faulty object never lets pass what would be refused
/// without it; reading the same again changes nothing; the trace says what the decision says.
pub fn policy_documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let readings = read_text("fuzz", text, Some("shop"));
    let sound = |reading: &&Reading| matches!(reading.content, Content::Sound(_));
    let mut only_sound = PolicySet::default();
    only_sound.replace(readings.iter().filter(sound).cloned().collect());
    let mut all = PolicySet::default();
    all.replace(readings.clone());
    for outstanding in all.outstanding() {
        assert!(!outstanding.faulty.faults.is_empty());
        for fault in &outstanding.faulty.faults {
            let sentence = fault.to_string();
            assert!(!sentence.contains(char::is_control), "{sentence:?}");
            assert!(sentence.len() - fault.path.len() < MAX_SENTENCE, "{sentence:?}");
        }
    }
    let Some(mesh) = mesh() else {
        return;
    };
    let workload = workload();
    let program = |set: &PolicySet| set.in_force(&workload, &mesh).program;
    let (with, without) = (program(&all), program(&only_sound));
    let mut again = all.clone();
    again.replace(readings);
    let again = program(&again);
    questions(|connection, request| {
        let verdict = allowed(&with, connection, request);
        assert!(
            !verdict || allowed(&without, connection, request),
            "a fault widens"
        );
        assert_eq!(verdict, allowed(&again, connection, request));
        let trace = with.explain(connection, request);
        assert_eq!(trace.verdict.is_ok() && trace.asks.is_empty(), verdict);
    });
}

/// The target of a request. What is accepted is a fixed point, has no dot segments, and lies below the root.
pub fn policy_path(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else {
        return;
    };
    for form in [
        Normalization::None,
        Normalization::Base,
        Normalization::MergeSlashes,
        Normalization::DecodeAndMergeSlashes,
    ] {
        let Ok(path) = RequestPath::new(target, form) else {
            continue;
        };
        let seen = path.as_str();
        assert!(seen.starts_with('/') || seen == "*", "{seen:?}");
        assert!(!seen.contains(['?', '#', '\0']), "{seen:?}");
        let again = RequestPath::new(seen, form);
        assert_eq!(again.as_ref().map(RequestPath::as_str), Ok(seen));
        if form == Normalization::None {
            continue;
        }
        assert!(!seen.contains('\\'), "{seen:?}");
        assert!(
            !seen.split('/').any(|segment| matches!(segment, "." | "..")),
            "{seen:?}"
        );
        assert!(form == Normalization::Base || !seen.contains("//"), "{seen:?}");
    }
}

fn mesh() -> Option<Mesh> {
    let domain = |name: &str| name.parse::<TrustDomain>().ok();
    Some(Mesh {
        domains: LocalDomains::new(domain("cluster.local")?, domain("old")),
        root_namespace: "istio-system".to_owned(),
        providers: BTreeMap::from([("grpc".to_owned(), ProviderKind::Grpc)]),
    })
}

fn workload() -> Workload {
    Workload {
        namespace: "shop".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
        role: Role::Sidecar,
    }
}

fn allowed(program: &Program, connection: &Connection<'_>, request: Option<&Request<'_>>) -> bool {
    match program.gate(connection, request) {
        Gate::Open(cleared) => cleared.decide(connection, request).is_ok(),
        Gate::Ask(_) | Gate::Shut(_) => false,
    }
}

/// A handful of connections, with a request and without.
fn questions(mut ask: impl FnMut(&Connection<'_>, Option<&Request<'_>>)) {
    let peers = [
        "spiffe://cluster.local/ns/web/sa/front",
        "spiffe://partner/ns/web/sa/front",
    ];
    let peers = peers.map(|id| id.parse::<SpiffeId>().ok());
    let addresses = ["10.1.2.3", "fd00::1"].map(str::parse::<IpAddr>);
    for peer in peers.iter().map(Option::as_ref).chain([None]) {
        for address in addresses.iter().flatten() {
            let connection = Connection {
                peer,
                source: *address,
                remote: *address,
                destination: *address,
                port: 8080,
                sni: None,
            };
            ask(&connection, None);
            let Ok(path) = RequestPath::new("/api/v1/items", Normalization::Base) else {
                continue;
            };
            let request = Request {
                method: "GET",
                authority: "cart.shop",
                path: &path,
                headers: &[("x-team", "blue")],
                identity: None,
            };
            ask(&connection, Some(&request));
        }
    }
}

/// A snapshot of policies as the agent sends it. It is read whole or not at all; what was read is compiled; and
/// an object that only the agent found faulty counts for the proxy as the agent says.
pub fn policy_snapshot(data: &[u8]) {
    let Ok(message) = <PolicySnapshot as prost::Message>::decode(data) else {
        return;
    };
    let sent = message.objects.len() + message.faulty.len();
    let told = message.faulty.len();
    let Ok(snapshot) = parse_snapshot(message) else {
        return;
    };
    assert_eq!(snapshot.objects.len(), sent);
    let faulty = |content: &Content| matches!(content, Content::Faulty(_));
    let count = snapshot
        .objects
        .iter()
        .filter(|object| faulty(&object.reading.content))
        .count();
    assert!(count >= told, "what the agent calls faulty is faulty");
    for object in &snapshot.objects {
        assert!(!matches!(object.reading.content, Content::Foreign(_)));
        if let Content::Faulty(found) = &object.reading.content {
            assert!(!found.faults.is_empty());
        }
    }
    let mesh = Mesh {
        domains: LocalDomains::new(snapshot.trust_domain, snapshot.aliases),
        root_namespace: snapshot.root_namespace,
        providers: BTreeMap::new(),
    };
    let mut set = PolicySet::default();
    let readings: Vec<Reading> = snapshot
        .objects
        .into_iter()
        .map(|object| object.reading)
        .collect();
    set.replace(readings.clone());
    let once = set.in_force(&snapshot.workload, &mesh).program;
    set.replace(readings);
    let twice = set.in_force(&snapshot.workload, &mesh).program;
    questions(|connection, request| {
        assert_eq!(
            allowed(&once, connection, request),
            allowed(&twice, connection, request)
        );
    });
}
