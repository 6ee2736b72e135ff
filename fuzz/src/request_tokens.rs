//! Tokens in requests, judged as the proxy does, and the key sets of their issuers.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};
use signet_certs::UnixTime;
use signet_certs::jws::{KeySet, Token};
use signet_policy::principal::LocalDomains;
use signet_policy::scope::Role;
use signet_policy::tokens::TokenRules;
use signet_policy::{Mesh, PolicySet, Workload, read_text};
use signet_proxy::jwt::{Given, IssuerKeys, KeySets, TokenMetrics, TokenRefused, Tokens};
use signet_runtime::Clock;

use crate::FIXTURE_TIME;

/// The issuer's keys.
const KEYS: &str = include_str!("../fixtures/request-keys.json");
/// The header that only the judge may set.
const OUTPUT: &str = "x-sub";

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(FIXTURE_TIME))
    }
}

static RULES: LazyLock<TokenRules> = LazyLock::new(|| {
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: shop}}\n\
         spec:\n  jwtRules:\n  - issuer: https://issuer.test\n    jwks: '{}'\n    audiences: [shop]\n\
         \x20   fromHeaders: [{{name: authorization, prefix: 'Bearer '}}, {{name: x-token}}]\n\
         \x20   fromParams: [t]\n    fromCookies: [t]\n    outputClaimToHeaders: [{{header: {OUTPUT}, claim: sub}}]\n\
         \x20 - issuer: https://later.test\n    jwksUri: https://later.test/keys\n",
        KEYS.trim()
    );
    let mut set = PolicySet::default();
    set.replace(read_text("fuzz", &yaml, None));
    let workload = Workload {
        namespace: "shop".to_owned(),
        labels: BTreeMap::new(),
        role: Role::Sidecar,
    };
    let Ok(domain) = "cluster.local".parse() else {
        panic!("cluster.local is a trust domain");
    };
    let mesh = Mesh {
        domains: LocalDomains::new(domain, []),
        root_namespace: "istio-system".to_owned(),
        providers: BTreeMap::new(),
    };
    set.in_force(&workload, &mesh).tokens
});

static SETS: LazyLock<KeySets> =
    LazyLock::new(|| KeySets::new(&RULES, |_, _| IssuerKeys::Given(Given::fixed(None))));

/// A request in lines: its target, then headers.
fn request(text: &str) -> Option<Parts> {
    let mut lines = text.lines();
    let (mut parts, ()) = Request::get(lines.next()?).body(()).ok()?.into_parts();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).ok()?;
        parts.headers.append(name, value);
    }
    Some(parts)
}

/// What becomes of a request that is written as the seeds are: `nobody`, the principal of its token, or the word of
/// its refusal.
#[must_use]
pub fn judge_request(text: &str) -> String {
    match request(text).map(|mut request| judge(&mut request)) {
        None => "malformed request".to_owned(),
        Some(Ok(principal)) => principal.unwrap_or_else(|| "nobody".to_owned()),
        Some(Err(refused)) => refused.as_str().to_owned(),
    }
}

fn judge(request: &mut Parts) -> Result<Option<String>, TokenRefused> {
    let tokens = Tokens::new(TokenMetrics::default());
    let judged = {
        let mut judged = pin!(tokens.judge(&RULES, &SETS, request, &Fixed));
        // Nobody is told of missed keys, so nothing is waited for.
        match judged.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(judged) => judged?,
            Poll::Pending => panic!("a verdict without keys to wait for waits"),
        }
    };
    let identity = judged.identity;
    judged.edits.apply(&mut request.headers);
    Ok(identity.and_then(|identity| identity.principal().map(str::to_owned)))
}

/// A request with tokens anywhere. Only a token that the issuer signed gives an identity, nobody but the judge
/// says whose it is, and a refusal tells nothing of the token.
pub fn jwt_request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(mut parts) = request(text) else {
        return;
    };
    match judge(&mut parts) {
        Ok(Some(principal)) => {
            let subject = principal.strip_prefix("https://issuer.test/");
            let told = parts.headers.get(OUTPUT).map(HeaderValue::as_bytes);
            assert!(subject.is_some_and(|subject| told.is_none_or(|told| told == subject.as_bytes())));
            assert!(
                parts.headers.get("x-token").is_none(),
                "the token goes no further"
            );
        }
        Ok(None) => {
            let told = parts.headers.get(OUTPUT);
            assert!(told.is_none(), "what a client says of itself is removed");
        }
        Err(refused) => {
            let (body, sentence) = (refused.body().to_string(), refused.to_string());
            assert!(body.len() < 128 && sentence.len() < 1024 && !refused.as_str().is_empty());
        }
    }
}

/// A key set. What is read has keys, and each key that was left out has a reason; no token without a
/// signature passes any of them.
pub fn jwks(data: &[u8]) {
    match KeySet::parse(data) {
        Ok(set) => {
            assert!(set.usable() > 0);
            assert!(set.skipped().iter().all(|one| one.fault.to_string().len() < 256));
            // {"alg":"ES256"}, {}, and a signature of nothing.
            let unsigned = format!("eyJhbGciOiJFUzI1NiJ9.e30.{}", "A".repeat(86));
            assert!(Token::read(&unsigned).is_ok_and(|token| token.verify(&set).is_err()));
        }
        Err(fault) => assert!(fault.to_string().len() < 512),
    }
}
