//! Many rules of few forms, and the questions that they answer: what the bench measures, and what must not allocate.

use std::collections::BTreeMap;
use std::net::IpAddr;

use signet_certs::SpiffeId;
use signet_policy::principal::LocalDomains;
use signet_policy::scope::Role;
use signet_policy::{Connection, Mesh, Normalization, PolicySet, Request, RequestPath, Workload, read_text};

/// Rules in one policy, at most.
const PER_POLICY: usize = 500;

/// A rule by its number, the question that it answers, and whether it is a request.
pub(crate) struct Form {
    pub(crate) name: &'static str,
    action: &'static str,
    rule: fn(usize) -> String,
    peer: fn(usize) -> String,
    path: fn(usize) -> String,
    http: bool,
}

pub(crate) const FORMS: &[Form] = &[
    Form {
        name: "principal, method and path",
        action: "ALLOW",
        rule: |n| {
            format!(
                "{{from: [{{source: {{principals: [cluster.local/ns/team-{n}/sa/frontend]}}}}], to: [{{operation: \
                 {{methods: [GET, HEAD], paths: ['/api/v1/service-{n}/*', /healthz], ports: ['8080']}}}}]}}"
            )
        },
        peer: |n| format!("spiffe://cluster.local/ns/team-{n}/sa/frontend"),
        path: |n| format!("/api/v1/service-{n}/items/42"),
        http: true,
    },
    Form {
        name: "100 namespaces times 100 paths",
        action: "ALLOW",
        rule: |n| {
            let (a, b) = (n / 100, n % 100);
            format!(
                "{{from: [{{source: {{namespaces: [team-{a}]}}}}], to: [{{operation: {{methods: [GET], paths: \
                 ['/api/v1/service-{b}/*']}}}}]}}"
            )
        },
        peer: |n| format!("spiffe://cluster.local/ns/team-{}/sa/frontend", n / 100),
        path: |n| format!("/api/v1/service-{}/items/42", n % 100),
        http: true,
    },
    Form {
        name: "paths with templates, any caller",
        action: "ALLOW",
        rule: |n| {
            format!(
                "{{to: [{{operation: {{methods: [GET], paths: ['/shop/service-{n}/{{*}}/items/{{**}}']}}}}]}}"
            )
        },
        peer: |_| "spiffe://cluster.local/ns/web/sa/frontend".to_owned(),
        path: |n| format!("/shop/service-{n}/eu/items/1/2"),
        http: true,
    },
    Form {
        name: "DENY by principal, nothing allowed",
        action: "DENY",
        rule: |n| format!("{{from: [{{source: {{principals: [cluster.local/ns/team-{n}/sa/intruder]}}}}]}}"),
        peer: |n| format!("spiffe://cluster.local/ns/team-{n}/sa/frontend"),
        path: |_| "/".to_owned(),
        http: true,
    },
    Form {
        name: "request header, any caller",
        action: "ALLOW",
        rule: |n| format!("{{when: [{{key: 'request.headers[x-service]', values: [/service-{n}]}}]}}"),
        peer: |_| "spiffe://cluster.local/ns/web/sa/frontend".to_owned(),
        path: |n| format!("/service-{n}"),
        http: true,
    },
    Form {
        name: "namespace and port, TCP",
        action: "ALLOW",
        rule: |n| {
            format!(
                "{{from: [{{source: {{namespaces: [team-{n}]}}}}], to: [{{operation: {{ports: ['8080', '8443']}}}}]}}"
            )
        },
        peer: |n| format!("spiffe://cluster.local/ns/team-{n}/sa/frontend"),
        path: |_| "/".to_owned(),
        http: false,
    },
];

impl Form {
    /// So many rules.
    pub(crate) fn set(&self, count: usize) -> PolicySet {
        let mut set = PolicySet::default();
        for start in (0..count).step_by(PER_POLICY) {
            let rules: Vec<String> = (start..count.min(start + PER_POLICY)).map(self.rule).collect();
            let text = format!(
                "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p{start}, \
                 namespace: shop}}, spec: {{action: {}, rules: [{}]}}}}",
                self.action,
                rules.join(", ")
            );
            for reading in read_text("bench", &text, None) {
                set.apply(reading);
            }
        }
        assert_eq!(set.outstanding().count(), 0);
        set
    }

    /// Shows `look` the question of rule `number`.
    pub(crate) fn with<R>(
        &self,
        number: usize,
        look: impl FnOnce(&Connection<'_>, Option<&Request<'_>>) -> R,
    ) -> R {
        let peer: SpiffeId = (self.peer)(number).parse().unwrap();
        let target = (self.path)(number);
        let path = RequestPath::new(&target, Normalization::Base).unwrap();
        let address: IpAddr = "10.1.2.3".parse().unwrap();
        let connection = Connection {
            peer: Some(&peer),
            source: address,
            remote: address,
            destination: address,
            port: 8080,
            sni: None,
        };
        let headers = [
            ("accept", "*/*"),
            ("user-agent", "bench"),
            ("x-service", path.as_str()),
        ];
        let request = Request {
            method: "GET",
            authority: "cart.shop.svc:8080",
            path: &path,
            headers: &headers,
            identity: None,
        };
        look(&connection, self.http.then_some(&request))
    }
}

pub(crate) fn mesh() -> Mesh {
    Mesh {
        domains: LocalDomains::new("cluster.local".parse().unwrap(), []),
        root_namespace: "istio-system".to_owned(),
        providers: BTreeMap::new(),
    }
}

pub(crate) fn workload() -> Workload {
    Workload {
        namespace: "shop".to_owned(),
        labels: BTreeMap::new(),
        role: Role::Sidecar,
    }
}
