//! Tokens of issuers that are made here, under rules as they are written in YAML.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Request};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use signet_policy::model::JwtRule;
use signet_policy::principal::LocalDomains;
use signet_policy::scope::Role;
use signet_policy::{Mesh, PolicySet, Workload, read_text};

use super::*;

mod again;
mod faulty;
mod hidden;

const NOW: u64 = 1_800_000_000;

/// Stands still.
struct Still(u64);

impl Clock for Still {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.0))
    }
}

/// An issuer with one key.
pub(super) struct Issuer {
    key: EcdsaKeyPair,
    kid: &'static str,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        let (random, form) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(form, &random).unwrap();
        Self {
            key: EcdsaKeyPair::from_pkcs8(form, pkcs8.as_ref(), &random).unwrap(),
            kid,
        }
    }

    pub(super) fn jwks(&self) -> String {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        let (x, y, kid) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y), self.kid);
        format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"{y}"}}]}}"#)
    }

    pub(super) fn token(&self, claims: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.kid));
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

pub(super) static A: LazyLock<Issuer> = LazyLock::new(|| Issuer::new("a"));
pub(super) static B: LazyLock<Issuer> = LazyLock::new(|| Issuer::new("b"));

pub(super) const ALICE: &str = r#"{"iss":"https://a.test","sub":"alice","exp":1800000600,"n":7,"ok":true,"deep":{"er":"x"},"list":["y"]}"#;

pub(super) fn some_keys() -> Arc<KeySet> {
    Arc::new(KeySet::parse(A.jwks().as_bytes()).unwrap())
}

/// What a workload takes under these documents.
pub(super) fn in_force(yaml: &str) -> TokenRules {
    let mut set = PolicySet::default();
    set.replace(read_text("test.yaml", yaml, None));
    let workload = Workload {
        namespace: "n".into(),
        labels: BTreeMap::new(),
        role: Role::Sidecar,
    };
    let mesh = Mesh {
        domains: LocalDomains::new("cluster.local".parse().unwrap(), []),
        root_namespace: "istio-system".into(),
        providers: BTreeMap::new(),
    };
    set.in_force(&workload, &mesh).tokens
}

/// One object with these rules, each as the lines of a mapping.
pub(super) fn rules(rules: &[String]) -> TokenRules {
    let mut yaml = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
        metadata: {name: r, namespace: n}\nspec:\n  jwtRules:\n"
        .to_owned();
    for rule in rules {
        for (number, line) in rule.lines().enumerate() {
            let lead = if number == 0 { "  - " } else { "    " };
            yaml.push_str(&format!("{lead}{line}\n"));
        }
    }
    let taken = in_force(&yaml);
    assert_eq!(taken.rules().len(), rules.len(), "{yaml}");
    taken
}

pub(super) fn rule(lines: &str) -> JwtRule {
    rules(&[lines.to_owned()]).rules()[0].clone()
}

fn of_a(more: &str) -> String {
    format!("issuer: https://a.test\njwks: '{}'\n{more}", A.jwks())
}

fn of_b(more: &str) -> String {
    format!("issuer: https://b.test\njwks: '{}'\n{more}", B.jwks())
}

pub(super) fn get(target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn tokens() -> Tokens {
    Tokens::new(TokenMetrics::default())
}

async fn judge_at(rules: &TokenRules, request: &Parts, now: u64) -> Result<Judged, TokenRefused> {
    let keys = KeySets::new(rules, |_, _| IssuerKeys::Given(Given::fixed(None)));
    tokens().judge(rules, &keys, request, &Still(now)).await
}

async fn judge(rules: &TokenRules, request: &Parts) -> Result<Judged, TokenRefused> {
    judge_at(rules, request, NOW).await
}

/// What comes of a request, as a word.
pub(super) async fn word_of(
    tokens: &Tokens,
    rules: &TokenRules,
    keys: &KeySets,
    request: &Parts,
) -> &'static str {
    let judged = tokens.judge(rules, keys, request, &Still(NOW)).await;
    judged.map_or_else(|refused| refused.as_str(), |_| "accepted")
}

/// Whose a request is, or the word of its refusal.
async fn who(rules: &TokenRules, request: &Parts) -> String {
    match judge(rules, request).await {
        Ok(judged) => judged.identity.map_or("nobody".into(), |identity| {
            identity.principal().unwrap_or("nameless").into()
        }),
        Err(refused) => refused.as_str().into(),
    }
}

const IS_ALICE: &str = "https://a.test/alice";

#[tokio::test]
async fn tokens_are_found_where_rules_look_and_nowhere_else() {
    let token = A.token(ALICE);
    let (bearer, lower) = (format!("Bearer {token}"), format!("bearer  {token}"));
    let (cookie, query) = (
        format!("x=1; t=\"{token}\"; y=2"),
        format!("/p?a=1&access_token={token}"),
    );
    let escaped = format!("/p?access%5Ftoken={}", token.replace('-', "%2D"));
    let default = rules(&[of_a("")]);
    let elsewhere = rules(&[of_a(
        "fromHeaders: [{name: X-Token, prefix: 'T-'}, {name: x-bare}]\nfromParams: [t]\nfromCookies: [t]",
    )]);
    let prefixed = format!("T-{token}");
    for (at_default, at_elsewhere, request) in [
        (IS_ALICE, "nobody", get("/", &[("authorization", &bearer)])),
        (IS_ALICE, "nobody", get("/", &[("authorization", &lower)])),
        (IS_ALICE, "nobody", get(&query, &[])),
        (IS_ALICE, "nobody", get(&escaped, &[])),
        ("nobody", IS_ALICE, get("/", &[("x-token", &prefixed)])),
        ("nobody", IS_ALICE, get("/", &[("x-bare", &token)])),
        ("nobody", IS_ALICE, get(&format!("/?t={token}"), &[])),
        ("nobody", IS_ALICE, get("/", &[("cookie", &cookie)])),
        (
            "nobody",
            "nobody",
            get("/", &[("authorization", "Basic eDp5"), ("x-token", &token)]),
        ),
        (
            "malformed",
            "nobody",
            get("/", &[("authorization", "Bearer x.y")]),
        ),
        ("malformed", "nobody", get("/?access_token", &[])),
        ("nobody", "malformed", get("/", &[("x-bare", "")])),
        (
            "malformed",
            "nobody",
            get(
                "/",
                &[("authorization", "Basic eDp5"), ("authorization", "Bearer {}")],
            ),
        ),
    ] {
        assert_eq!(who(&default, &request).await, at_default, "{request:?}");
        assert_eq!(who(&elsewhere, &request).await, at_elsewhere, "{request:?}");
    }
}

#[tokio::test]
async fn one_good_token_suffices_two_different_ones_do_not() {
    let (alice, bob) = (A.token(ALICE), B.token(r#"{"iss":"https://b.test","sub":"bob"}"#));
    let both = rules(&[of_a(""), of_b("fromHeaders: [{name: x-b}]")]);
    let header = |token: &str| format!("Bearer {token}");
    let resigned = format!("{}.{}", bob.rsplit_once('.').unwrap().0, "A".repeat(86));
    let stranger = header(&A.token(r#"{"iss":"https://c.test","sub":"x"}"#));
    for (expected, request) in [
        ("nobody", get("/", &[])),
        (IS_ALICE, get("/", &[("authorization", &header(&alice))])),
        ("https://b.test/bob", get("/", &[("x-b", &bob)])),
        (
            IS_ALICE,
            get("/", &[("authorization", &header(&alice)), ("x-b", "junk")]),
        ),
        (
            "ambiguous",
            get("/", &[("authorization", &header(&alice)), ("x-b", &bob)]),
        ),
        (
            IS_ALICE,
            get(
                &format!("/?access_token={alice}"),
                &[("authorization", &header(&alice))],
            ),
        ),
        ("issuer", get("/", &[("authorization", &stranger)])),
        // A token where another rule looks is one of another issuer there.
        ("issuer", get("/", &[("authorization", &header(&bob))])),
        ("signature", get("/", &[("x-b", &resigned)])),
    ] {
        assert_eq!(who(&both, &request).await, expected, "{request:?}");
    }
    let many: Vec<String> = (0..=MAX_TOKENS).map(|n| format!("access_token={n}")).collect();
    assert_eq!(
        who(&both, &get(&format!("/?{}", many.join("&")), &[])).await,
        "too_many"
    );
}

#[tokio::test]
async fn rules_of_one_issuer_stand_beside_each_other_with_their_own_keys() {
    let old = format!("issuer: https://a.test\njwks: '{}'", B.jwks());
    let two = rules(&[old, of_a("")]);
    let request = get("/", &[("authorization", &format!("Bearer {}", A.token(ALICE)))]);
    assert_eq!(who(&two, &request).await, IS_ALICE);
}

#[tokio::test]
async fn claims_audiences_and_times_are_those_of_the_rule() {
    let narrow = rules(&[of_a("audiences: [me, us]")]);
    for (claims, now, expected) in [
        (
            r#"{"iss":"https://a.test","sub":"s","aud":"us"}"#,
            NOW,
            "accepted",
        ),
        (
            r#"{"iss":"https://a.test","sub":"s","aud":["x","me"]}"#,
            NOW,
            "accepted",
        ),
        (
            r#"{"iss":"https://a.test","sub":"s","aud":"you"}"#,
            NOW,
            "audience",
        ),
        (r#"{"iss":"https://a.test","sub":"s"}"#, NOW, "audience"),
        (r#"{"iss":"https://a.test/","sub":"s","aud":"me"}"#, NOW, "issuer"),
        (r#"{"sub":"s","aud":"me"}"#, NOW, "issuer"),
        (
            r#"{"iss":"https://a.test","aud":"me","exp":1800000000}"#,
            NOW + 60,
            "accepted",
        ),
        (
            r#"{"iss":"https://a.test","aud":"me","exp":1800000000}"#,
            NOW + 61,
            "expired",
        ),
        (
            r#"{"iss":"https://a.test","aud":"me","nbf":1800000061}"#,
            NOW,
            "not_yet_valid",
        ),
        (
            r#"{"iss":"https://a.test","aud":"me","exp":"soon"}"#,
            NOW,
            "claims",
        ),
    ] {
        let request = get("/", &[("authorization", &format!("Bearer {}", A.token(claims)))]);
        let judged = judge_at(&narrow, &request, now).await;
        let word = judged.err().map_or("accepted", |refused| refused.as_str());
        assert_eq!(word, expected, "{claims} at {now}");
    }
}

#[tokio::test]
async fn before_its_keys_came_an_issuers_tokens_are_refused_for_that() {
    let waiting = rules(&[
        "issuer: https://a.test\njwksUri: https://a.test/keys".into(),
        of_b(""),
    ]);
    let header = |token: String| get("/", &[("authorization", &format!("Bearer {token}"))]);
    assert_eq!(who(&waiting, &header(A.token(ALICE))).await, "keys_not_fetched");
    let bob = B.token(r#"{"iss":"https://b.test","sub":"bob"}"#);
    assert_eq!(
        who(&waiting, &header(bob)).await,
        "https://b.test/bob",
        "others are not touched"
    );
    let unusable =
        rules(&["issuer: https://a.test\njwks: '{\"keys\":[{\"kty\":\"oct\",\"k\":\"eA\"}]}'".into()]);
    assert_eq!(who(&unusable, &header(A.token(ALICE))).await, "keys_unusable");
}

#[tokio::test]
async fn a_request_authentication_that_cannot_be_read_refuses_every_token() {
    let faulty = in_force(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: n}\n\
         spec: {jwtRules: [{isuer: x}]}\n",
    );
    assert_eq!(
        who(&faulty, &get("/", &[("authorization", "Bearer x")])).await,
        "faulty_policy"
    );
    assert_eq!(who(&faulty, &get("/?access_token=x", &[])).await, "faulty_policy");
    assert_eq!(who(&faulty, &get("/", &[])).await, "nobody");
}

#[tokio::test]
async fn without_rules_a_token_is_a_header_like_any_other() {
    let none = in_force("");
    let judged = judge(&none, &get("/", &[("authorization", "Bearer x")]))
        .await
        .unwrap();
    assert!(judged.identity.is_none() && judged.edits.is_empty());
}

/// What reaches the application.
async fn forwarded(rules: &TokenRules, request: &Parts) -> HeaderMap {
    let mut headers = request.headers.clone();
    judge(rules, request).await.unwrap().edits.apply(&mut headers);
    headers
}

#[tokio::test]
async fn the_application_learns_claims_from_us_alone() {
    let outputs = "outputPayloadToHeader: x-payload\noutputClaimToHeaders:\n\
        - {header: x-sub, claim: sub}\n- {header: x-n, claim: n}\n- {header: x-ok, claim: ok}\n\
        - {header: x-deep, claim: deep.er}\n- {header: x-list, claim: list}\n- {header: x-none, claim: none}\n\
        - {header: content-length, claim: n}";
    let rules = rules(&[of_a(outputs)]);
    let forged = [
        ("x-sub", "root"),
        ("x-payload", "e30"),
        ("x-none", "forged"),
        ("x-list", "f"),
        ("other", "o"),
    ];
    let nobody = forwarded(&rules, &get("/", &forged)).await;
    assert_eq!(nobody.len(), 1, "{nobody:?}");
    let token = A.token(ALICE);
    let bearer = format!("Bearer {token}");
    let with_token: Vec<(&str, &str)> = forged
        .into_iter()
        .chain([("authorization", bearer.as_str())])
        .collect();
    let alice = forwarded(&rules, &get("/", &with_token)).await;
    for (name, value) in [
        ("x-sub", "alice"),
        ("x-n", "7"),
        ("x-ok", "true"),
        ("x-deep", "x"),
        ("other", "o"),
    ] {
        assert_eq!(alice[name], value, "{name}");
    }
    assert_eq!(alice["x-payload"], token.split('.').nth(1).unwrap());
    assert_eq!(alice.len(), 6, "{alice:?}");
    let preflight = {
        let mut request = get(
            "/",
            &[
                ("origin", "https://x"),
                ("access-control-request-method", "PUT"),
                ("authorization", "Bearer junk"),
                ("x-sub", "root"),
            ],
        );
        request.method = http::Method::OPTIONS;
        request
    };
    let asked = forwarded(&rules, &preflight).await;
    assert!(asked.get("x-sub").is_none() && asked["authorization"] == "Bearer junk");
}

#[tokio::test]
async fn the_token_stays_here_unless_the_rule_says_that_it_goes_on() {
    let token = A.token(ALICE);
    let cookie = format!("a=1; t={token}; b=2");
    let both = [("x-t", token.as_str()), ("cookie", cookie.as_str())];
    let places = "fromHeaders: [{name: x-t}]\nfromCookies: [t]";
    let stays = forwarded(&rules(&[of_a(places)]), &get("/", &both)).await;
    assert!(
        stays.get("x-t").is_none() && stays["cookie"] == "a=1; b=2",
        "{stays:?}"
    );
    let goes = forwarded(
        &rules(&[of_a(&format!("{places}\nforwardOriginalToken: true"))]),
        &get("/", &both),
    )
    .await;
    assert!(goes["x-t"] == *token && goes["cookie"] == *cookie);
    // A bad token beside a good one goes no further either.
    let junk = [("x-t", token.as_str()), ("x-b", "junk")];
    let two = rules(&[
        of_a("fromHeaders: [{name: x-t}]\nforwardOriginalToken: true"),
        of_b("fromHeaders: [{name: x-b}]"),
    ]);
    let alice = forwarded(&two, &get("/", &junk)).await;
    assert!(alice["x-t"] == *token && alice.get("x-b").is_none());
    let alone = [("cookie", &*format!("t={token}"))];
    assert!(
        forwarded(&rules(&[of_a(places)]), &get("/", &alone))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_token_verified_before_ends_with_its_time_and_with_the_keys() {
    let tokens = tokens();
    let rules = rules(&[of_a("")]);
    let keys = || KeySets::new(&rules, |_, _| unreachable!());
    let request = get("/", &[("authorization", &format!("Bearer {}", A.token(ALICE)))]);
    let first = keys();
    for (sets, now, expected) in [
        (&first, NOW, Ok(())),
        (&first, NOW + 1, Ok(())),
        (&first, NOW + 661, Err("expired")),
        (&keys(), NOW, Ok(())),
        (&KeySets::default(), NOW, Err("keys_not_fetched")),
    ] {
        let judged = tokens.judge(&rules, sets, &request, &Still(now)).await;
        assert_eq!(judged.map(|_| ()).map_err(|refused| refused.as_str()), expected);
    }
    let counted = |outcome| tokens.metrics.cache.get_or_create(&Outcome { outcome }).get();
    assert_eq!((counted("hit"), counted("miss")), (1, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_single_bit_of_an_accepted_token_can_change(bit in 0..7usize, place in any::<prop::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (tokens, rules) = (tokens(), rules(&[of_a("fromHeaders: [{name: x-t}]")]));
        let keys = KeySets::new(&rules, |_, _| unreachable!());
        let mut token = A.token(ALICE).into_bytes();
        let clock = Still(NOW);
        let judged = |token: &[u8]| {
            let value = http::HeaderValue::from_bytes(token).ok()?;
            let mut request = get("/", &[]);
            request.headers.insert("x-t", value);
            Some(runtime.block_on(tokens.judge(&rules, &keys, &request, &clock)).is_ok())
        };
        prop_assert_eq!(judged(&token), Some(true));
        let place = place.index(token.len());
        token[place] ^= 1 << bit;
        prop_assert_ne!(judged(&token), Some(true));
    }
}
