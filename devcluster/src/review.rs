//! Who a token speaks for, judged as a real API server judges it, and the TokenReview answer.
//!
//! The texts of refusals are those a 1.20 server was recorded with, except where they name the library that server
//! was built on.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::grants::Account;
use crate::json;
use crate::keys::{Keyring, SignatureFault};
use crate::shared::Shared;
use crate::status::ApiError;
use crate::store::{Key, State};
use crate::time;
use crate::token::{API_AUDIENCE, core_kind};

/// How long a real API server keeps a successful answer; refusals it does not keep.
const SUCCESS_TTL: Duration = Duration::from_secs(10);

/// Most answers kept.
const MAX_CACHED: usize = 4096;

/// Name of the user behind the admin token.
const ADMIN: &str = "kubernetes-admin";

/// A token that passed.
#[derive(Debug, Clone)]
pub(crate) struct Reviewed {
    pub(crate) username: String,
    /// None for the admin.
    pub(crate) account: Option<Account>,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: Vec<(&'static str, String)>,
    /// Those of the token that were asked for.
    pub(crate) audiences: Vec<String>,
}

impl Reviewed {
    /// `UserInfo`, without the fields that are empty.
    pub(crate) fn user_info(&self) -> Value {
        let mut user = json!({"username": self.username, "groups": self.groups});
        if !self.uid.is_empty() {
            json::set(&mut user, &["uid"], self.uid.as_str());
        }
        for (key, value) in &self.extra {
            json::set(&mut user, &["extra", key], json!([value]));
        }
        user
    }
}

/// Why a token did not pass.
#[derive(Debug)]
enum Refusal {
    /// Nothing of ours: no JWT, another issuer, an unknown key.
    Foreign,
    Signature,
    Audience {
        token: Vec<String>,
        wanted: Vec<String>,
    },
    Expired,
    NotYetValid,
    AccountGone(String),
    AccountUid {
        lives: String,
        claimed: String,
    },
    PodGone,
    PodUid {
        lives: String,
        claimed: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |audiences: &[String]| {
            let quoted: Vec<String> = audiences.iter().map(|audience| format!("{audience:?}")).collect();
            format!("[{}]", quoted.join(" "))
        };
        let why = match self {
            Refusal::Foreign => return f.write_str("invalid bearer token"),
            Refusal::Signature => "error in cryptographic primitive".to_owned(),
            Refusal::Audience { token, wanted } => {
                let (token, wanted) = (list(token), list(wanted));
                format!("token audiences {token} is invalid for the target audiences {wanted}")
            }
            Refusal::Expired => "Token has expired".to_owned(),
            Refusal::NotYetValid => "Token is not valid yet".to_owned(),
            Refusal::AccountGone(name) => format!("serviceaccounts \"{name}\" not found"),
            Refusal::AccountUid { lives, claimed } => {
                format!("ServiceAccount UID ({lives}) does not match claim ({claimed})")
            }
            Refusal::PodGone => "Token has been invalidated".to_owned(),
            Refusal::PodUid { lives, claimed } => {
                format!("Pod UID ({lives}) does not match claim ({claimed})")
            }
        };
        write!(f, "[invalid bearer token, {why}]")
    }
}

/// Successful answers by hash of token and audiences, each for as long as a real server keeps it.
#[derive(Default)]
pub(crate) struct ReviewCache(Mutex<HashMap<[u8; 32], (SystemTime, Reviewed)>>);

impl ReviewCache {
    fn get(&self, key: &[u8; 32], now: SystemTime) -> Option<Reviewed> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, reviewed) = answers.get(key)?;
        // A clock that was set back makes the age unknown, and an answer of unknown age is not used.
        now.duration_since(*since)
            .is_ok_and(|age| age < SUCCESS_TTL)
            .then(|| reviewed.clone())
    }

    fn put(&self, key: [u8; 32], now: SystemTime, reviewed: Reviewed) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_CACHED {
            answers.retain(|_, (since, _)| now.duration_since(*since).is_ok_and(|age| age < SUCCESS_TTL));
        }
        if answers.len() < MAX_CACHED {
            answers.insert(key, (now, reviewed));
        }
    }
}

fn cache_key(token: &str, wanted: &[String]) -> Option<[u8; 32]> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in std::iter::once(token).chain(wanted.iter().map(String::as_str)) {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref().try_into().ok()
}

/// Judges a bearer token for the `wanted` audiences; `Err` is the text for the caller.
pub(crate) fn authenticate(shared: &Shared, token: &str, wanted: &[String]) -> Result<Reviewed, String> {
    let now = shared.now();
    let key = cache_key(token, wanted).ok_or("invalid bearer token")?;
    if let Some(reviewed) = shared.reviews.get(&key, now) {
        return Ok(reviewed);
    }
    let reviewed = judge(shared, token, wanted, now).map_err(|refusal| refusal.to_string())?;
    shared.reviews.put(key, now, reviewed.clone());
    Ok(reviewed)
}

fn judge(shared: &Shared, token: &str, wanted: &[String], now: SystemTime) -> Result<Reviewed, Refusal> {
    if is_admin_token(shared, token) && wanted.iter().any(|audience| audience == API_AUDIENCE) {
        return Ok(admin());
    }
    let claims = Keyring::peek(token).map_err(|_| Refusal::Foreign)?;
    if json::text(&claims, "/iss") != Some(API_AUDIENCE) {
        return Err(Refusal::Foreign);
    }
    shared.keys.verify(token).map_err(|fault| match fault {
        SignatureFault::NotAToken | SignatureFault::UnknownKey => Refusal::Foreign,
        SignatureFault::Mismatch => Refusal::Signature,
    })?;
    let carried = audiences(&claims);
    let common: Vec<String> = carried
        .iter()
        .filter(|audience| wanted.contains(audience))
        .cloned()
        .collect();
    if common.is_empty() {
        return Err(Refusal::Audience {
            token: carried,
            wanted: wanted.to_vec(),
        });
    }
    check_times(&claims, time::unix(now), shared.settings.token_leeway.as_secs())?;
    let mut reviewed = shared.store.read(|state| account(state, &claims))?;
    if shared.settings.node_extras {
        add_extras(&mut reviewed, &claims);
    }
    reviewed.audiences = common;
    Ok(reviewed)
}

fn is_admin_token(shared: &Shared, token: &str) -> bool {
    // Digests are compared, so the time taken tells nothing about the token.
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest(token).as_ref() == digest(&shared.admin_token).as_ref()
}

fn admin() -> Reviewed {
    Reviewed {
        username: ADMIN.to_owned(),
        account: None,
        uid: String::new(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        extra: Vec::new(),
        audiences: vec![API_AUDIENCE.to_owned()],
    }
}

/// RFC 7519 §4.1.3: one string or a list of them.
fn audiences(claims: &Value) -> Vec<String> {
    match json::text(claims, "/aud") {
        Some(one) => vec![one.to_owned()],
        None => json::texts(claims, "/aud"),
    }
}

fn check_times(claims: &Value, now: u64, leeway: u64) -> Result<(), Refusal> {
    let instant = |pointer| claims.pointer(pointer).and_then(Value::as_u64);
    if instant("/exp").is_some_and(|end| now > end.saturating_add(leeway)) {
        return Err(Refusal::Expired);
    }
    let starts = ["/nbf", "/iat"]
        .into_iter()
        .filter_map(instant)
        .max()
        .unwrap_or(0);
    if now.saturating_add(leeway) < starts {
        return Err(Refusal::NotYetValid);
    }
    Ok(())
}

fn account(state: &State, claims: &Value) -> Result<Reviewed, Refusal> {
    let claim = |pointer| json::text(claims, pointer).unwrap_or_default().to_owned();
    let namespace = claim("/kubernetes.io/namespace");
    let name = claim("/kubernetes.io/serviceaccount/name");
    let find = |plural, name: &str| {
        let kind = core_kind(plural).ok()?;
        state.get(&Key::new(kind, &namespace, name))
    };
    let account = find("serviceaccounts", &name).ok_or_else(|| Refusal::AccountGone(name.clone()))?;
    let claimed = claim("/kubernetes.io/serviceaccount/uid");
    if json::uid(&account) != claimed {
        return Err(Refusal::AccountUid {
            lives: json::uid(&account).to_owned(),
            claimed,
        });
    }
    let mut extra = Vec::new();
    if claims.pointer("/kubernetes.io/pod").is_some() {
        let pod_name = claim("/kubernetes.io/pod/name");
        let pod = find("pods", &pod_name).ok_or(Refusal::PodGone)?;
        let pod_uid = claim("/kubernetes.io/pod/uid");
        if json::uid(&pod) != pod_uid {
            return Err(Refusal::PodUid {
                lives: json::uid(&pod).to_owned(),
                claimed: pod_uid,
            });
        }
        extra.push(("authentication.kubernetes.io/pod-name", pod_name));
        extra.push(("authentication.kubernetes.io/pod-uid", pod_uid));
    }
    let groups = vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    let account = Account::new(namespace, name);
    let username = account.username();
    Ok(Reviewed {
        username,
        account: Some(account),
        uid: claimed,
        groups,
        extra,
        audiences: Vec::new(),
    })
}

fn add_extras(reviewed: &mut Reviewed, claims: &Value) {
    let mut add = |key, value: Option<String>| reviewed.extra.extend(value.map(|value| (key, value)));
    let claim = |pointer| json::text(claims, pointer).map(str::to_owned);
    add(
        "authentication.kubernetes.io/node-name",
        claim("/kubernetes.io/node/name"),
    );
    add(
        "authentication.kubernetes.io/node-uid",
        claim("/kubernetes.io/node/uid"),
    );
    add(
        "authentication.kubernetes.io/credential-id",
        claim("/jti").map(|id| format!("JTI={id}")),
    );
}

/// Answers `create` on TokenReviews.
pub(crate) fn token_review(shared: &Shared, request: &Value) -> Result<Value, ApiError> {
    let token = json::text(request, "/spec/token").unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let mut wanted = json::texts(request, "/spec/audiences");
    if wanted.is_empty() {
        wanted.push(API_AUDIENCE.to_owned());
    }
    let status = match authenticate(shared, token, &wanted) {
        Ok(reviewed) => json!({
            "authenticated": true,
            "user": reviewed.user_info(),
            "audiences": reviewed.audiences,
        }),
        Err(error) => json!({"user": {}, "error": error}),
    };
    Ok(json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": null},
        "spec": request.get("spec"),
        "status": status,
    }))
}
