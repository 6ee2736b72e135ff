//! What a service-account token of Kubernetes says of itself (RFC 7519 §4.1), read without trust: whether it
//! is true is for the API server to say. Nothing of a token is repeated in an error.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::UnixTime;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::id::ServiceAccountId;

/// How Kubernetes names service accounts as users.
pub const USER_PREFIX: &str = "system:serviceaccount:";

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountTokenError {
    /// Not three parts with dots between.
    #[error("it is not a JWT: {0} parts between dots instead of three")]
    Parts(usize),
    /// The middle part is not base64url of JSON claims.
    #[error("it is not a JWT: its claims cannot be decoded, as if it were cut off or altered")]
    Claims,
}

/// A token's own words. What is not there, or is no such thing, is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountClaims {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`, one or several (RFC 7519 §4.1.3).
    pub audiences: Vec<String>,
    /// `iat`.
    pub issued_at: Option<UnixTime>,
    /// `nbf`: the first moment it holds.
    pub not_before: Option<UnixTime>,
    /// `exp`: the first moment past its end.
    pub expires_at: Option<UnixTime>,
    /// Name and UID of the pod it is bound to.
    pub pod: Option<(String, Option<String>)>,
    /// The node of that pod, where the API server says so.
    pub node: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    iss: Option<String>,
    sub: Option<String>,
    #[serde(default)]
    aud: Audiences,
    iat: Option<serde_json::Number>,
    nbf: Option<serde_json::Number>,
    exp: Option<serde_json::Number>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    pod: Option<Named>,
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    uid: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Audiences {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

impl AccountClaims {
    /// Reads the claims; the signature is not looked at.
    ///
    /// # Errors
    /// An [`AccountTokenError`].
    pub fn read(token: &str) -> Result<Self, AccountTokenError> {
        let [_, body, _] = parts(token)?;
        let json = URL_SAFE_NO_PAD.decode(body).map(Zeroizing::new);
        let json = json.map_err(|_| AccountTokenError::Claims)?;
        let body: Body = serde_json::from_slice(&json).map_err(|_| AccountTokenError::Claims)?;
        let (pod, node) = body.kubernetes.map_or((None, None), |k| (k.pod, k.node));
        Ok(Self {
            issuer: body.iss,
            subject: body.sub,
            audiences: match body.aud {
                Audiences::None => Vec::new(),
                Audiences::One(one) => vec![one],
                Audiences::Several(several) => several,
            },
            issued_at: body.iat.and_then(|n| seconds(&n)),
            not_before: body.nbf.and_then(|n| seconds(&n)),
            expires_at: body.exp.and_then(|n| seconds(&n)),
            pod: pod.map(|pod| (pod.name, pod.uid)),
            node: node.map(|node| node.name),
        })
    }

    /// The service account in `sub`.
    #[must_use]
    pub fn account(&self) -> Option<ServiceAccountId> {
        account_of_user(self.subject.as_deref()?)
    }
}

/// The service account of which this is the Kubernetes user name.
#[must_use]
pub fn account_of_user(user: &str) -> Option<ServiceAccountId> {
    let (namespace, name) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    ServiceAccountId::new(namespace, name).ok()
}

/// Header, claims and signature, still encoded; any of them may be empty.
///
/// # Errors
/// [`AccountTokenError::Parts`].
pub fn parts(token: &str) -> Result<[&str; 3], AccountTokenError> {
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(claims), Some(signature), None) => Ok([header, claims, signature]),
        _ => Err(AccountTokenError::Parts(token.split('.').count())),
    }
}

/// Whole or fractional seconds since the epoch; anything else is no time.
fn seconds(number: &serde_json::Number) -> Option<UnixTime> {
    let whole = match number.as_u64() {
        Some(whole) => whole,
        None => Duration::try_from_secs_f64(number.as_f64()?).ok()?.as_secs(),
    };
    Some(UnixTime::since_unix_epoch(Duration::from_secs(whole)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn token(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "RS256"})), part(claims))
    }

    #[test]
    fn claims_are_read_as_api_servers_write_them() {
        let claims = AccountClaims::read(&token(&json!({
            "aud": ["signet-ca"], "exp": 1_795_297_991u64, "iat": 1_795_294_391u64, "nbf": 1_795_294_391.5,
            "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:billing:api",
            "kubernetes.io": {"namespace": "billing", "pod": {"name": "api-0", "uid": "90827332"},
                "serviceaccount": {"name": "api", "uid": "b036ec75"}, "node": {"name": "n1"}},
        })))
        .unwrap();
        assert_eq!(claims.account().unwrap().to_string(), "billing/api");
        assert_eq!(claims.pod, Some(("api-0".into(), Some("90827332".into()))));
        assert_eq!(claims.node.as_deref(), Some("n1"));
        assert_eq!(claims.expires_at.unwrap().as_secs(), 1_795_297_991);
        assert_eq!(claims.not_before.unwrap().as_secs(), 1_795_294_391);
    }

    #[test]
    fn one_audience_is_a_list_of_one_and_times_that_are_none_are_left_out() {
        for exp in [json!(-1), json!(1e300), json!(null)] {
            let claims = AccountClaims::read(&token(&json!({"aud": "x", "exp": exp}))).unwrap();
            assert_eq!(
                (claims.audiences, claims.expires_at),
                (vec!["x".to_owned()], None)
            );
        }
        let none = AccountClaims::read(&token(&json!({}))).unwrap();
        assert!(none.audiences.is_empty() && none.account().is_none());
    }

    #[test]
    fn only_users_that_are_accounts_with_names_kubernetes_allows_are_accounts() {
        let of = |user| account_of_user(user).map(|account| account.to_string());
        assert_eq!(
            of("system:serviceaccount:shop:cart").as_deref(),
            Some("shop/cart")
        );
        for user in [
            "system:node:n1",
            "system:serviceaccount:shop",
            "system:serviceaccount:Shop:cart",
            "system:serviceaccount:shop:cart:x",
            "system:serviceaccounts:shop:cart",
        ] {
            assert_eq!(of(user), None, "{user}");
        }
    }

    #[test]
    fn faults_quote_nothing_of_the_token() {
        let whole = token(&json!({"sub": "secret-word"}));
        let half = whole.get(..whole.len() / 2).unwrap();
        for broken in ["nothing", "a.b", "a.!!!.c", "a.b.c.d", half] {
            let text = AccountClaims::read(broken).unwrap_err().to_string();
            assert!(
                text.starts_with("it is not a JWT") && !text.contains(broken),
                "{text}"
            );
        }
    }
}
