//! What a service-account token says of itself (RFC 7519), unverified. Errors quote nothing of it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use signet_certs::{ServiceAccountId, UnixTime};
use zeroize::Zeroizing;

/// How Kubernetes names service accounts as users.
pub(crate) const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimsError {
    /// Not three parts with dots between.
    #[error("it is not a JWT: {0} parts between dots instead of three")]
    Parts(usize),
    /// The middle part is not base64url of JSON claims.
    #[error("it is not a JWT: its claims cannot be decoded, as if it were cut off or altered")]
    Claims,
}

/// A token's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `iat`.
    pub issued_at: Option<UnixTime>,
    /// `nbf`.
    pub not_before: Option<UnixTime>,
    /// `exp`.
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
    iat: Option<f64>,
    nbf: Option<f64>,
    exp: Option<f64>,
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

/// One audience or several (RFC 7519 §4.1.3).
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Audiences {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

impl Claims {
    /// Reads the claims; the signature is not looked at.
    ///
    /// # Errors
    /// A [`ClaimsError`].
    pub fn read(token: &str) -> Result<Self, ClaimsError> {
        let parts: Vec<&str> = token.split('.').collect();
        let [_, body, _] = parts.as_slice() else {
            return Err(ClaimsError::Parts(parts.len()));
        };
        let json = URL_SAFE_NO_PAD
            .decode(body)
            .map(Zeroizing::new)
            .map_err(|_| ClaimsError::Claims)?;
        let body: Body = serde_json::from_slice(&json).map_err(|_| ClaimsError::Claims)?;
        let (pod, node) = body.kubernetes.map_or((None, None), |k| (k.pod, k.node));
        Ok(Self {
            issuer: body.iss,
            subject: body.sub,
            audiences: match body.aud {
                Audiences::None => Vec::new(),
                Audiences::One(one) => vec![one],
                Audiences::Several(several) => several,
            },
            issued_at: body.iat.and_then(seconds),
            not_before: body.nbf.and_then(seconds),
            expires_at: body.exp.and_then(seconds),
            pod: pod.map(|pod| (pod.name, pod.uid)),
            node: node.map(|node| node.name),
        })
    }

    /// The service account in `sub`.
    #[must_use]
    pub fn account(&self) -> Option<ServiceAccountId> {
        let (namespace, name) = self
            .subject
            .as_deref()?
            .strip_prefix(ACCOUNT_PREFIX)?
            .split_once(':')?;
        ServiceAccountId::new(namespace, name).ok()
    }
}

/// Times are numbers, possibly with fractions; nonsense counts as absent.
fn seconds(number: f64) -> Option<UnixTime> {
    let whole = Duration::try_from_secs_f64(number).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(whole.as_secs())))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A token with these claims, signed by nobody.
    pub(crate) fn token(claims: &serde_json::Value) -> String {
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!(
            "{}.{}.c2lnbmF0dXJl",
            part(&serde_json::json!({"alg": "RS256"})),
            part(claims)
        )
    }

    #[test]
    fn claims_are_read_as_api_servers_write_them() {
        let claims = Claims::read(&token(&serde_json::json!({
            "aud": ["signet-ca"], "exp": 1_795_297_991u64, "iat": 1_795_294_391u64, "nbf": 1_795_294_391.5,
            "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:billing:api",
            "kubernetes.io": {"namespace": "billing", "pod": {"name": "api-0", "uid": "90827332"},
                "serviceaccount": {"name": "api", "uid": "b036ec75"}, "node": {"name": "n1"}},
        })))
        .unwrap();
        assert_eq!(claims.account().unwrap().to_string(), "billing/api");
        assert_eq!(claims.pod, Some(("api-0".into(), Some("90827332".into()))));
        assert_eq!(claims.expires_at.unwrap().as_secs(), 1_795_297_991);
        let single = Claims::read(&token(&serde_json::json!({"aud": "x", "exp": -1}))).unwrap();
        assert_eq!(
            (single.audiences, single.expires_at),
            (vec!["x".to_owned()], None)
        );
    }

    #[test]
    fn faults_quote_nothing_of_the_token() {
        let whole = token(&serde_json::json!({"sub": "secret-word"}));
        for broken in ["nothing", "a.b", "a.!!!.c", "a.b.c.d", &whole[..whole.len() / 2]] {
            let text = Claims::read(broken).unwrap_err().to_string();
            assert!(
                text.starts_with("it is not a JWT") && !text.contains(broken),
                "{text}"
            );
        }
    }
}
