//! Every code: documents that show the mistake, and the same documents mended, which do not.

use signet_policy::Mesh;
use signet_policy::principal::LocalDomains;

use super::super::documents::{Documents, set};
use super::super::inventory::Inventory;
use super::finding::Code;
use super::{Analyzed, Evidence};

mod single;

fn codes(text: &str) -> Vec<Code> {
    codes_in("cluster.local", text)
}

/// What is found in a mesh of this trust domain.
fn codes_in(domain: &str, text: &str) -> Vec<Code> {
    let mut documents = Documents::default();
    documents.add_text("test.yaml", text, Some("shop"));
    let own = domain.parse().unwrap();
    let mesh = Mesh {
        domains: LocalDomains::new(own, []),
        root_namespace: "istio-system".to_owned(),
        providers: [("asked".to_owned(), signet_policy::scope::ProviderKind::Grpc)].into(),
    };
    let own = domain.parse().unwrap();
    let (set, inventory) = (set(&documents), Inventory::of(&documents));
    let evidence = Evidence {
        documents: &documents,
        set: &set,
        inventory: &inventory,
        mesh: &mesh,
        own: &own,
    };
    let analyzed = Analyzed::of(&evidence, &[]);
    for finding in &analyzed.findings {
        assert!(
            finding.place.as_ref().is_some_and(|place| place.line.is_some()),
            "{finding:?} says where"
        );
    }
    analyzed.findings.iter().map(|finding| finding.code).collect()
}

fn policy(spec: &str) -> String {
    let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n";
    format!("{head}spec: {spec}\n---\n")
}

fn peer(meta: &str, spec: &str) -> String {
    let head = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n";
    format!("{head}metadata: {meta}\nspec: {spec}\n---\n")
}

fn tokens(rule: &str) -> String {
    let head = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r}\n";
    format!("{head}spec: {{jwtRules: [{rule}]}}\n---\n")
}

fn strict() -> String {
    peer("{name: strict}", "{mtls: {mode: STRICT}}")
}

fn deployment(name: &str, account: &str, port: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  template:\n    \
         metadata: {{labels: {{app: {name}}}}}\n    spec:\n      serviceAccountName: {account}\n      containers:\n      \
         - {{name: {name}, image: a, ports: [{port}]}}\n      - {{name: signet-proxy, image: b}}\n---\n"
    )
}

fn cart(port: &str) -> String {
    deployment("cart", "cart", port)
}

fn service(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\nspec: {{selector: {{app: cart}}, \
         {spec}}}\n---\n"
    )
}

fn namespace(meta: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, {meta}}}\n---\n")
}

fn from(source: &str) -> String {
    format!("{{rules: [{{from: [{{source: {{{source}}}}}]}}]}}")
}

fn to(action: &str, operation: &str) -> String {
    format!("{{action: {action}, rules: [{{to: [{{operation: {{{operation}}}}}]}}]}}")
}

const HTTP: &str = "{containerPort: 8080, name: http}";
const PUBLIC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

/// A mistake and its mending.
fn cases(code: Code) -> (String, String) {
    let get = policy(&to("ALLOW", "methods: [GET]"));
    let selects = |label: &str| policy(&format!("{{selector: {{matchLabels: {{{label}}}}}}}"));
    match code {
        Code::Faulty => (policy("{acton: DENY}"), policy("{}")),
        Code::SelectsNothing => (
            selects("app: carts") + &cart(HTTP),
            selects("app: cart") + &cart(HTTP),
        ),
        Code::HttpOnTcp => (
            get.clone() + &cart("{containerPort: 8080}"),
            get + &cart("{containerPort: 8080, name: http-api}"),
        ),
        Code::Scheme => principals("\"spiffe://cluster.local/ns/a/sa/b\"", "cluster.local/ns/a/sa/b"),
        Code::NoTokens => {
            let demand = policy(&from("requestPrincipals: [\"*\"]"));
            (
                demand.clone(),
                demand + &tokens("{issuer: a, jwksUri: \"https://a.example\"}"),
            )
        }
        Code::BroadDeny => (
            policy(&to("DENY", "paths: [\"/admin*\"]")),
            policy(&to("DENY", "paths: [\"/admin*\"], ports: [\"8080\"]")),
        ),
        Code::PlaintextPasses | Code::PlaintextRefused | Code::NoIdentity => identity(code),
        Code::SharedAccount
        | Code::DefaultAccount
        | Code::WaypointLabel
        | Code::NotEnrolled
        | Code::HttpInAmbient => around(code),
        Code::HostWithoutPort => (
            policy(&to("ALLOW", "hosts: [a.example]")),
            policy(&to("ALLOW", "hosts: [a.example, \"a.example:*\"]")),
        ),
        Code::NegatedAllow => (
            policy(&to("ALLOW", "notPaths: [/admin]")),
            policy(&to("ALLOW", "paths: [\"/*\"], notPaths: [/admin]")),
        ),
        Code::NoDefaultDeny => (
            policy("{selector: {matchLabels: {app: cart}}, rules: [{}]}"),
            policy("{}"),
        ),
        Code::BehindBalancer => {
            let block = policy(&from("ipBlocks: [10.0.0.0/8]")) + &cart(HTTP);
            let local = "type: LoadBalancer, externalTrafficPolicy: Local";
            (
                block.clone() + &service("type: LoadBalancer"),
                block + &service(local),
            )
        }
        Code::SelectsGateway => (
            selects("gateway.networking.k8s.io/gateway-name: way"),
            policy("{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: way}]}"),
        ),
        Code::AbsentNamespace => (
            strict() + &policy(&from("namespaces: [shops]")) + &namespace("labels: {}"),
            strict() + &policy(&from("namespaces: [shop]")) + &namespace("labels: {}"),
        ),
        Code::TokenNotDemanded
        | Code::PrivateKey
        | Code::NoUsableKey
        | Code::KeysInClear
        | Code::AnyAudience => of_tokens(code),
        Code::ServicePort => {
            let around = cart(HTTP) + &service("ports: [{port: 80, targetPort: 8080}]");
            (
                policy(&to("ALLOW", "ports: [\"80\"]")) + &around,
                policy(&to("ALLOW", "ports: [\"8080\"]")) + &around,
            )
        }
        Code::EmptySelector => (policy("{selector: {}}"), policy("{}")),
        Code::RootSelector => {
            let spec = "{selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}}";
            (
                peer("{name: a, namespace: istio-system}", spec),
                peer("{name: a, namespace: shop}", spec),
            )
        }
        Code::SecondPeer => (strict() + &peer("{name: other}", "{}"), strict()),
        Code::AllowUnderDeny => {
            let allow = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow}\nspec: \
                         {rules: [{to: [{operation: {ports: [\"80\"]}}]}]}\n---\n";
            (
                allow.to_owned() + &policy(&to("DENY", "ports: [\"80\"]")),
                allow.to_owned() + &policy(&to("DENY", "ports: [\"81\"]")),
            )
        }
        Code::PrincipalForm => principals("web/frontend", "cluster.local/ns/web/sa/frontend"),
        Code::LowerMethod => (
            policy(&to("ALLOW", "methods: [get]")),
            policy(&to("ALLOW", "methods: [GET]")),
        ),
        Code::PathWithoutSlash => (
            policy(&to("ALLOW", "paths: [\"api/*\"]")),
            policy(&to("ALLOW", "paths: [\"/api/*\"]")),
        ),
        Code::ForeignDomain => principals("far.example/ns/a/sa/b", "cluster.local/ns/a/sa/b"),
        // In the mesh of another name.
        Code::LiteralDomain => principals("cluster.local/ns/a/*", "cluster.local/ns/a/sa/*"),
    }
}

fn principals(wrong: &str, right: &str) -> (String, String) {
    let with = |principal: &str| strict() + &policy(&from(&format!("principals: [{principal}]")));
    (with(wrong), with(right))
}

fn identity(code: Code) -> (String, String) {
    let deny = "{action: DENY, rules: [{from: [{source: {namespaces: [dev]}}]}]}";
    let allow = policy(&from("namespaces: [web]"));
    match code {
        Code::PlaintextPasses => (policy(deny), policy(deny) + &strict()),
        Code::PlaintextRefused => (allow.clone(), allow + &strict()),
        _ => (
            allow.clone() + &peer("{name: off}", "{mtls: {mode: DISABLE}}"),
            allow + &strict(),
        ),
    }
}

fn around(code: Code) -> (String, String) {
    let empty = policy("{}");
    match code {
        Code::SharedAccount => (
            empty.clone() + &cart(HTTP) + &deployment("store", "cart", HTTP),
            empty + &cart(HTTP) + &deployment("store", "store", HTTP),
        ),
        Code::DefaultAccount => (
            empty.clone() + &deployment("cart", "default", HTTP),
            empty + &cart(HTTP),
        ),
        Code::WaypointLabel => (
            empty.clone() + &namespace("labels: {istio.io/waypoint: way}"),
            empty + &namespace("labels: {istio.io/use-waypoint: way}"),
        ),
        Code::HttpInAmbient => {
            let enrolled = policy(&to("ALLOW", "methods: [GET]"))
                + &namespace("labels: {istio.io/dataplane-mode: ambient}")
                + &cart(HTTP);
            (enrolled.replace("signet-proxy", "helper"), enrolled)
        }
        _ => (
            empty.clone() + &cart(HTTP).replace("signet-proxy", "helper"),
            empty + &cart(HTTP),
        ),
    }
}

fn of_tokens(code: Code) -> (String, String) {
    let good = "issuer: a, audiences: [shop], jwksUri: \"https://a.example/keys\"";
    let rule = |fields: &str| tokens(&format!("{{{fields}}}"));
    let inline = |key: &str| {
        rule(&format!(
            "issuer: a, audiences: [shop], jwks: '{{\"keys\":[{key}}}]}}'"
        ))
    };
    match code {
        Code::TokenNotDemanded => (
            rule(good),
            rule(good) + &policy(&from("requestPrincipals: [\"*\"]")),
        ),
        Code::PrivateKey => (
            inline(&format!(
                "{PUBLIC},\"d\":\"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI\""
            )),
            inline(PUBLIC),
        ),
        Code::NoUsableKey => (inline("{\"kty\":\"oct\",\"k\":\"c2VjcmV0\""), inline(PUBLIC)),
        Code::KeysInClear => (rule(&good.replace("https", "http")), rule(good)),
        _ => (rule(&good.replace("audiences: [shop], ", "")), rule(good)),
    }
}

#[test]
fn every_mistake_is_found_and_gone_when_it_is_mended() {
    for code in Code::ALL {
        let (wrong, right) = cases(*code);
        let name = code.as_str();
        let domain = match code {
            Code::LiteralDomain => "mesh.example",
            _ => "cluster.local",
        };
        let codes = |text: &str| codes_in(domain, text);
        assert!(
            codes(&wrong).contains(code),
            "{name} is not found in\n{wrong}: {:?}",
            codes(&wrong)
        );
        assert!(!codes(&right).contains(code), "{name} is found in\n{right}");
        if *code != Code::Faulty {
            assert!(
                !codes(&wrong).contains(&Code::Faulty),
                "{name} shows a mistake, not a fault:\n{wrong}"
            );
        }
        assert!(
            !codes(&right).contains(&Code::Faulty),
            "{name} is mended without faults:\n{right}"
        );
    }
}
