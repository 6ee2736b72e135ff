//! Specs, good and bad, and who refuses them.

/// Who refuses a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody.
    Good,
    /// Nobody; but the old server of these tests, built by a Go that is younger, takes empty texts for null.
    GoodEmpty,
    /// The schema, as the engine does.
    Bad,
    /// Unknown fields, which the API server refuses where it is asked to, and drops elsewhere.
    Unknown,
    /// The engine alone: a schema cannot say it (`docs/policy.md` lists these).
    OnlyHere,
}

/// A spec.
pub(super) struct Sample {
    pub(super) kind: &'static str,
    /// As YAML.
    pub(super) spec: &'static str,
    pub(super) verdict: Verdict,
}

const fn authorization(verdict: Verdict, spec: &'static str) -> Sample {
    Sample {
        kind: "AuthorizationPolicy",
        spec,
        verdict,
    }
}

const fn peer(verdict: Verdict, spec: &'static str) -> Sample {
    Sample {
        kind: "PeerAuthentication",
        spec,
        verdict,
    }
}

const fn request(verdict: Verdict, spec: &'static str) -> Sample {
    Sample {
        kind: "RequestAuthentication",
        spec,
        verdict,
    }
}

use Verdict::{Bad, Good, GoodEmpty, OnlyHere, Unknown};

/// All of them.
pub(super) static SAMPLES: &[Sample] = &[
    authorization(Good, "{}"),
    authorization(Good, "{rules: []}"),
    authorization(Good, "{rules: [{}]}"),
    authorization(Good, "{action: AUDIT}"),
    authorization(Good, "{action: DENY, rules: [{}]}"),
    authorization(
        Good,
        "{action: CUSTOM, provider: {name: grpc}, rules: [{to: [{operation: {paths: [/a]}}]}]}",
    ),
    authorization(Good, "{selector: {}}"),
    authorization(
        Good,
        "{selector: {matchLabels: {app.kubernetes.io/name: a, b: c.d}}}",
    ),
    authorization(GoodEmpty, "{selector: {matchLabels: {empty: ''}}}"),
    authorization(GoodEmpty, "{targetRefs: [{kind: Service, group: '', name: a}]}"),
    authorization(
        Good,
        "{targetRefs: [{kind: Service, name: a}, {kind: Service, group: core, name: b}]}",
    ),
    authorization(
        Good,
        "{targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: a.b}}",
    ),
    authorization(
        Good,
        "{targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: a}]}",
    ),
    authorization(
        Good,
        "{rules: [{from: [{source: {principals: ['*'], notNamespaces: [a], trustDomains: ['*', 'a*', '*b']}}]}]}",
    ),
    authorization(
        Good,
        "{rules: [{from: [{source: {ipBlocks: [10.0.0.0/8, 1.2.3.4, '::1', '::ffff:10.1.2.3', 'fd00::/08', 10.0.0.0/032], \
         notRemoteIpBlocks: ['::/0']}}]}]}",
    ),
    authorization(
        Good,
        "{rules: [{from: [{source: {serviceAccounts: [a, b/c, a/x.y-z]}}, {source: {notServiceAccounts: [a]}}]}]}",
    ),
    authorization(
        Good,
        "{rules: [{to: [{operation: {ports: ['0', '080', '65535'], hosts: ['*.a:80'], methods: ['*'], \
         notPaths: ['/a/{*}/b/{**}', '*x']}}]}]}",
    ),
    authorization(
        Good,
        "{rules: [{when: [{key: 'request.headers[X-A]', values: ['*']}, {key: 'request.auth.claims[a][b.c/d]', \
         notValues: [x]}, {key: 'experimental.envoy.filters.a.b[c]', values: [d]}, {key: source.ip, values: ['::1/128']}]}]}",
    ),
    authorization(Bad, "{action: deny, rules: [{}]}"),
    authorization(Bad, "{action: DENY}"),
    authorization(Bad, "{action: DENY, rules: []}"),
    authorization(Bad, "{action: CUSTOM, rules: [{}]}"),
    authorization(Bad, "{action: CUSTOM, provider: {}, rules: [{}]}"),
    authorization(Bad, "{action: CUSTOM, provider: {name: a}}"),
    authorization(Bad, "{action: DENY, provider: {name: a}, rules: [{}]}"),
    authorization(Bad, "{provider: {name: a}, rules: [{}]}"),
    authorization(
        Bad,
        "{action: CUSTOM, provider: {name: a}, rules: [{from: [{source: {namespaces: [a]}}]}]}",
    ),
    authorization(
        Bad,
        "{action: CUSTOM, provider: {name: a}, rules: [{when: [{key: source.principal, values: [a]}]}]}",
    ),
    authorization(Bad, "{selector: {matchLabels: {app: 'a*'}}}"),
    authorization(Bad, "{selector: {matchLabels: {app: 1}}}"),
    authorization(Bad, "{selector: {}, targetRefs: [{kind: Service, name: a}]}"),
    authorization(
        Bad,
        "{targetRef: {kind: Service, name: a}, targetRefs: [{kind: Service, name: a}]}",
    ),
    authorization(Bad, "{targetRefs: []}"),
    authorization(Bad, "{targetRefs: [{kind: Pod, name: a}]}"),
    authorization(Bad, "{targetRefs: [{kind: Gateway, name: a}]}"),
    authorization(Bad, "{targetRefs: [{kind: Service}]}"),
    authorization(Bad, "{targetRefs: [{kind: Service, name: A}]}"),
    authorization(Bad, "{rules: [{from: []}]}"),
    authorization(Bad, "{rules: [{to: []}]}"),
    authorization(Bad, "{rules: [{when: []}]}"),
    authorization(Bad, "{rules: [{from: [{}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {}}]}]}"),
    authorization(Bad, "{rules: [{to: [{operation: {}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {principals: []}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {principals: ['']}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {ipBlocks: [10.0.0]}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {ipBlocks: [10.0.0.256]}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {ipBlocks: ['fd00::/129']}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {serviceAccounts: ['*']}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {serviceAccounts: [a/b/c]}}]}]}"),
    authorization(
        Bad,
        "{rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]}",
    ),
    authorization(
        Bad,
        "{rules: [{from: [{source: {notServiceAccounts: [a], notNamespaces: [b]}}]}]}",
    ),
    authorization(
        Bad,
        "{rules: [{from: [{source: {serviceAccounts: [a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a]}}]}]}",
    ),
    authorization(Bad, "{rules: [{from: [{source: {trustDomains: ['a*b']}}]}]}"),
    authorization(Bad, "{rules: [{from: [{source: {trustDomains: [a/b]}}]}]}"),
    authorization(Bad, "{rules: [{to: [{operation: {ports: ['65536']}}]}]}"),
    authorization(Bad, "{rules: [{to: [{operation: {ports: ['+80']}}]}]}"),
    authorization(Bad, "{rules: [{to: [{operation: {ports: [http]}}]}]}"),
    authorization(Bad, "{rules: [{to: [{operation: {ports: [80]}}]}]}"),
    authorization(Bad, "{rules: [{to: [{operation: {methods: GET}}]}]}"),
    authorization(Bad, "{rules: [{when: [{key: source.ip}]}]}"),
    authorization(Bad, "{rules: [{when: [{values: [x]}]}]}"),
    authorization(
        Bad,
        "{rules: [{when: [{key: source.ip, values: [], notValues: [1.1.1.1]}]}]}",
    ),
    authorization(
        Bad,
        "{rules: [{when: [{key: 'destination.labels[a]', values: [b]}]}]}",
    ),
    authorization(Bad, "{rules: [{when: [{key: source.user, values: [b]}]}]}"),
    authorization(Bad, "{rules: [{when: [{key: request.headers, values: [b]}]}]}"),
    authorization(Unknown, "{acton: DENY}"),
    authorization(Unknown, "{rules: [{form: []}]}"),
    authorization(
        Unknown,
        "{rules: [{to: [{operation: {methods: [GET], path: [/a]}}]}]}",
    ),
    authorization(Unknown, "{selector: {matchLabels: {a: b}, matchExpressions: []}}"),
    authorization(OnlyHere, "{rules: [{to: [{operation: {paths: ['/a/{*}b']}}]}]}"),
    authorization(OnlyHere, "{rules: [{when: [{key: source.ip, values: [x]}]}]}"),
    authorization(
        OnlyHere,
        "{rules: [{when: [{key: 'request.headers[:path]', values: [x]}]}]}",
    ),
    authorization(OnlyHere, "{selector: {matchLabels: {'a*': b}}}"),
    authorization(
        OnlyHere,
        "{targetRefs: [{kind: Service, name: a, namespace: elsewhere}]}",
    ),
    authorization(OnlyHere, "{rules: [{from: [{source: {ipBlocks: ['1:2']}}]}]}"),
    peer(Good, "{}"),
    peer(Good, "{mtls: {}}"),
    peer(Good, "{mtls: {mode: UNSET}}"),
    peer(
        Good,
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: DISABLE}, 1: {}}}",
    ),
    peer(Bad, "{mtls: {mode: strict}}"),
    peer(Bad, "{mtls: STRICT}"),
    peer(Bad, "{portLevelMtls: {8080: {mode: DISABLE}}}"),
    peer(Bad, "{selector: {}, portLevelMtls: {8080: {mode: DISABLE}}}"),
    peer(Bad, "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}"),
    peer(
        Bad,
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {8080: {mode: OFF}}}",
    ),
    peer(Unknown, "{mtls: {mod: STRICT}}"),
    peer(Unknown, "{mtsl: {mode: STRICT}}"),
    peer(
        OnlyHere,
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: DISABLE}}}",
    ),
    request(Good, "{}"),
    request(Good, "{jwtRules: []}"),
    request(
        Good,
        "{jwtRules: [{issuer: a}, {jwksUri: 'http://[::1]:80/keys?a=b'}]}",
    ),
    request(
        Good,
        "{jwtRules: [{issuer: a, audiences: [b], jwks: '{\"keys\": []}', fromHeaders: [{name: X-A, prefix: 'B '}], \
         fromParams: [t], fromCookies: [c], outputPayloadToHeader: x-p, forwardOriginalToken: true, \
         outputClaimToHeaders: [{header: x-c, claim: a.b}], timeout: 1m1.5s, spaceDelimitedClaims: [s]}]}",
    ),
    request(
        Good,
        "{targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: a}]}",
    ),
    request(
        GoodEmpty,
        "{jwtRules: [{issuer: a, fromHeaders: [{name: X-A, prefix: ''}], forwardOriginalToken: false}]}",
    ),
    request(Bad, "{jwtRules: [{}]}"),
    request(Bad, "{jwtRules: [{issuer: ''}]}"),
    request(
        Bad,
        "{jwtRules: [{issuer: a, jwks: '{\"keys\": []}', jwksUri: 'https://a'}]}",
    ),
    request(Bad, "{jwtRules: [{jwks: '{\"keys\": []}'}]}"),
    request(Bad, "{jwtRules: [{issuer: a, jwksUri: 'ftp://a'}]}"),
    request(Bad, "{jwtRules: [{issuer: a, jwksUri: 'https://user@a'}]}"),
    request(Bad, "{jwtRules: [{issuer: a, jwksUri: 'https:///a'}]}"),
    request(Bad, "{jwtRules: [{issuer: a, audiences: []}]}"),
    request(Bad, "{jwtRules: [{issuer: a, fromHeaders: [{prefix: a}]}]}"),
    request(Bad, "{jwtRules: [{issuer: a, fromHeaders: [{name: 'a b'}]}]}"),
    request(Bad, "{jwtRules: [{issuer: a, forwardOriginalToken: 'true'}]}"),
    request(
        Bad,
        "{jwtRules: [{issuer: a, outputClaimToHeaders: [{header: a}]}]}",
    ),
    request(Bad, "{jwtRules: [{issuer: a, timeout: 5}]}"),
    request(Bad, "{jwtRules: [{issuer: a, timeout: 5 seconds}]}"),
    request(Bad, "{selector: {}, targetRefs: [{kind: Service, name: a}]}"),
    request(Unknown, "{jwtRules: [{issuer: a, jwks_uri: 'https://a'}]}"),
    request(OnlyHere, "{jwtRules: [{issuer: a, jwks: '{}'}]}"),
    request(OnlyHere, "{jwtRules: [{issuer: a, timeout: 0s}]}"),
];
