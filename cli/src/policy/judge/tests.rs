//! The order of the steps, and tokens that are verified for real.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use signet_certs::{TrustDomain, UnixTime};
use signet_policy::scope::Role;
use signet_policy::{Mesh, Normalization, PolicySet, Workload, read_text};
use zeroize::Zeroizing;

use super::super::question::{Addresses, Http, Question, Token};
use super::*;

const NOW: u64 = 1_800_000_000;

struct World {
    set: PolicySet,
    mesh: Mesh,
    own: TrustDomain,
}

impl World {
    fn of(policies: &str) -> Self {
        let own: TrustDomain = "cluster.local".parse().unwrap();
        let mut set = PolicySet::default();
        set.replace(read_text("test", policies, Some("shop")));
        assert_eq!(set.outstanding().count(), 0);
        Self {
            set,
            mesh: Mesh {
                domains: signet_policy::principal::LocalDomains::new(own.clone(), []),
                root_namespace: "istio-system".to_owned(),
                providers: [].into(),
            },
            own,
        }
    }

    fn ask(&self, from: &str, path: &str, token: Token) -> Ruled {
        self.ask_by("GET", &[], (from, path, token))
    }

    fn ask_by(&self, method: &str, headers: &[(&str, &str)], question: (&str, &str, Token)) -> Ruled {
        let (from, path, token) = question;
        let workload = Workload {
            namespace: "shop".to_owned(),
            labels: [].into(),
            role: Role::Sidecar,
        };
        let judge = Judge {
            mesh: &self.mesh,
            own: &self.own,
            normalization: Normalization::Base,
            now: UnixTime::since_unix_epoch(Duration::from_secs(NOW)),
        };
        let question = Question {
            caller: from.parse().unwrap(),
            port: 8080,
            addresses: Addresses::default(),
            sni: None,
            http: Some(Http {
                method: method.to_owned(),
                path: path.to_owned(),
                host: "cart".to_owned(),
                headers: headers
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            }),
            token,
        };
        judge.rule(&self.set.in_force(&workload, &self.mesh), &question)
    }
}

fn reason(ruled: &Ruled) -> &'static str {
    match &ruled.outcome {
        Outcome::Allowed { .. } => "allowed",
        Outcome::Refused(refusal) => refusal.reason,
    }
}

fn policy(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

#[test]
fn the_steps_come_in_the_order_of_a_proxy() {
    let bad_token = || Token::Jwt(Zeroizing::new("no.token.atall".to_owned()));
    let strict = policy("PeerAuthentication", "p", "{mtls: {mode: STRICT}}");
    let custom = policy(
        "AuthorizationPolicy",
        "c",
        "{action: CUSTOM, provider: {name: gone}, rules: [{}]}",
    );
    let tokens = policy(
        "RequestAuthentication",
        "r",
        "{jwtRules: [{issuer: i, jwksUri: \"https://i.example\"}]}",
    );
    let deny = policy("AuthorizationPolicy", "d", "{action: DENY, rules: [{}]}");
    let all = World::of(&[&*strict, &custom, &tokens, &deny].concat());
    assert_eq!(reason(&all.ask("none", "/..;x", bad_token())), "plaintext_strict");
    assert_eq!(
        reason(&all.ask("a/b", "/..;x", bad_token())),
        "path_dot_parameters"
    );
    assert_eq!(reason(&all.ask("a/b", "/", bad_token())), "provider_unknown");
    let rest = World::of(&[&*strict, &tokens, &deny].concat());
    assert_eq!(reason(&rest.ask("a/b", "/", bad_token())), "token_invalid");
    assert_eq!(reason(&rest.ask("a/b", "/", Token::None)), "denied");
    assert_eq!(
        reason(&World::of(&strict).ask("a/b", "/", Token::None)),
        "allowed"
    );
}

#[test]
fn methods_that_no_proxy_serves_are_refused_before_the_path() {
    let world = World::of(&policy("AuthorizationPolicy", "a", "{rules: [{}]}"));
    for (method, reason_wanted, wire) in [
        ("get", "method_malformed", "400"),
        ("GeT", "method_malformed", "400"),
        ("CONNECT", "method_connect", "405"),
    ] {
        let ruled = world.ask_by(method, &[], ("a/b", "/..;x", Token::None));
        assert_eq!(
            (reason(&ruled), ruled.outcome.on_the_wire(true)),
            (reason_wanted, wire),
            "{method}"
        );
    }
    let plain = world.ask_by("PURGE-9", &[], ("a/b", "/", Token::None));
    assert_eq!(reason(&plain), "allowed");
}

#[test]
fn the_token_of_a_preflight_is_not_looked_at() {
    let tokens = policy(
        "RequestAuthentication",
        "r",
        "{jwtRules: [{issuer: i, jwksUri: \"https://i.example\"}]}",
    );
    let world = World::of(&tokens);
    let bad_token = || Token::Jwt(Zeroizing::new("no.token.atall".to_owned()));
    let preflight = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "GET"),
    ];
    assert_eq!(
        reason(&world.ask_by("OPTIONS", &preflight, ("a/b", "/", bad_token()))),
        "allowed"
    );
    assert_eq!(
        reason(&world.ask_by("GET", &preflight, ("a/b", "/", bad_token()))),
        "token_invalid"
    );
    assert_eq!(
        reason(&world.ask_by("OPTIONS", &[], ("a/b", "/", bad_token()))),
        "token_invalid"
    );
}

#[test]
fn a_port_without_tls_never_learns_who_calls() {
    let allow = policy(
        "AuthorizationPolicy",
        "a",
        "{rules: [{from: [{source: {namespaces: [a]}}]}]}",
    );
    let off = policy("PeerAuthentication", "p", "{mtls: {mode: DISABLE}}");
    assert_eq!(reason(&World::of(&allow).ask("a/b", "/", Token::None)), "allowed");
    let ruled = World::of(&[&*allow, &off].concat()).ask("a/b", "/", Token::None);
    assert_eq!((reason(&ruled), ruled.peer), ("not_allowed", None));
}

/// A key and tokens of it.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap())
    }

    fn keys(&self) -> String {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}]}}"#)
    }

    fn token(&self, claims: &serde_json::Value) -> Token {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
        let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        Token::Jwt(Zeroizing::new(format!("{message}.{signature}")))
    }
}

#[test]
fn with_inline_keys_a_signature_is_verified_for_real() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let rule = format!(
        "{{jwtRules: [{{issuer: i, audiences: [shop], jwks: '{}'}}]}}",
        issuer.keys()
    );
    let demand = "{rules: [{from: [{source: {requestPrincipals: [i/ann]}}]}]}";
    let world = World::of(
        &[
            &*policy("RequestAuthentication", "r", &rule),
            &policy("AuthorizationPolicy", "a", demand),
        ]
        .concat(),
    );
    let good = serde_json::json!({"iss": "i", "sub": "ann", "aud": "shop", "exp": NOW + 60});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let ruled = world.ask("a/b", "/", issuer.token(&good));
    assert_eq!(reason(&ruled), "allowed");
    assert!(ruled.token.unwrap().contains("verifies"));
    assert_eq!(reason(&world.ask("a/b", "/", Token::None)), "not_allowed");
    assert_eq!(
        reason(&world.ask("a/b", "/", issuer.token(&with("sub", "bob".into())))),
        "not_allowed"
    );
    for (token, why) in [
        (other.token(&good), "signature does not verify"),
        (issuer.token(&with("exp", (NOW - 61).into())), "expired 61 s ago"),
        (issuer.token(&with("aud", "bank".into())), "none of the audiences"),
        (issuer.token(&with("iss", "j".into())), "has issuer \"j\""),
    ] {
        let ruled = world.ask("a/b", "/", token);
        assert_eq!(reason(&ruled), "token_invalid", "{why}");
        let Outcome::Refused(refusal) = ruled.outcome else {
            panic!("{why}");
        };
        assert!(refusal.sentence.contains(why), "{}", refusal.sentence);
    }
}
