//! A question to policies: who asks whom for what. Plain data, from the command line, from a line of JSON, or
//! made up of the literals of policies.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde_json::{Map, Value};
use signet_certs::{ServiceAccountId, SpiffeId, TrustDomain};
use zeroize::Zeroizing;

/// Where a caller is if nobody says: an address for documentation (RFC 5737).
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Where a workload is if nobody says.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// Somebody without mutual TLS.
    Plaintext,
    /// A service account of our trust domain.
    Account(ServiceAccountId),
    /// A SPIFFE ID.
    Id(SpiffeId),
}

/// Why a text names no caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no caller; write NAMESPACE/SERVICE-ACCOUNT, a SPIFFE ID (spiffe://domain/ns/a/sa/b), or none for \
     plaintext"
)]
pub struct NoCaller(String);

impl FromStr for Caller {
    type Err = NoCaller;

    fn from_str(text: &str) -> Result<Self, NoCaller> {
        let wrong = || NoCaller(text.to_owned());
        if text == "none" {
            return Ok(Self::Plaintext);
        }
        if text.starts_with("spiffe://") {
            return text.parse().map(Self::Id).map_err(|_| wrong());
        }
        let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
        let account = ServiceAccountId::new(namespace, name).map_err(|_| wrong())?;
        Ok(Self::Account(account))
    }
}

impl Caller {
    /// The identity, if there is one.
    #[must_use]
    pub fn id(&self, own: &TrustDomain) -> Option<SpiffeId> {
        match self {
            Self::Plaintext => None,
            Self::Account(account) => Some(account.spiffe_id(own)),
            Self::Id(id) => Some(id.clone()),
        }
    }
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// The workload's name, which policies do not look at.
    pub name: String,
    /// The workload's port.
    pub port: Option<u16>,
}

/// Why a text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no workload; write NAMESPACE/WORKLOAD or NAMESPACE/WORKLOAD:PORT, the port being the workload's own"
)]
pub struct NoTarget(String);

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let wrong = || NoTarget(text.to_owned());
        let (place, port) = match text.rsplit_once(':') {
            Some((place, port)) => (place, Some(port.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (namespace, name) = place.split_once('/').ok_or_else(wrong)?;
        if namespace.is_empty() || name.is_empty() || name.contains('/') || port == Some(0) {
            return Err(wrong());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
        })
    }
}

/// A request, on a connection that carries HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Http {
    /// The method.
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// `:authority` or `Host`.
    pub host: String,
    /// The other headers. Their values are never shown.
    pub headers: Vec<(String, String)>,
}

/// The token of a request.
#[derive(Clone, Default)]
pub enum Token {
    /// None.
    #[default]
    None,
    /// A token. Never shown.
    Jwt(Zeroizing<String>),
    /// The claims of a token that is taken for well signed.
    Claims(Map<String, Value>),
    /// Of a token that a proxy took for good and recorded: issuer and subject, as in `requestPrincipals`.
    Of(String),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no token",
            Self::Jwt(_) => "a token",
            Self::Claims(_) => "claims",
            Self::Of(_) => "a recorded token",
        })
    }
}

/// The addresses of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addresses {
    /// The other end.
    pub source: IpAddr,
    /// The original client.
    pub remote: IpAddr,
    /// What was dialled.
    pub destination: IpAddr,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            source: ANYWHERE,
            remote: ANYWHERE,
            destination: HERE,
        }
    }
}

/// Who asks whom for what.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who asks.
    pub caller: Caller,
    /// The workload's port.
    pub port: u16,
    /// The addresses.
    pub addresses: Addresses,
    /// The server name of the client's TLS.
    pub sni: Option<String>,
    /// The request; nothing for a connection that carries no HTTP.
    pub http: Option<Http>,
    /// The request's token.
    pub token: Token,
}

/// Reads a target without a port.
///
/// # Errors
/// A sentence with the form.
pub fn workload(text: &str) -> Result<Target, String> {
    let target: Target = text.parse().map_err(|e: NoTarget| e.to_string())?;
    match target.port {
        None => Ok(target),
        Some(_) => Err(format!("{text:?} names a port; write NAMESPACE/WORKLOAD")),
    }
}

/// Reads `name=value,name=value`.
///
/// # Errors
/// A sentence with the form.
pub fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        (!name.is_empty()).then(|| (name.trim().to_owned(), value.trim().to_owned()))
    };
    let pairs = text.split(',').filter(|part| !part.trim().is_empty()).map(pair);
    pairs
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{text:?} are no labels; write app=cart,tier=web"))
}

/// Reads `Name: value`.
///
/// # Errors
/// A sentence with the form. The value is not repeated.
pub fn header(text: &str) -> Result<(String, String), String> {
    let sound = |name: &str| name.bytes().all(|b| b.is_ascii_graphic() && b != b':') && !name.is_empty();
    match text.split_once(':') {
        Some((name, value)) if sound(name) => Ok((name.to_ascii_lowercase(), value.trim().to_owned())),
        _ => Err("a header is written as \"Name: value\"".to_owned()),
    }
}

/// Reads claims.
///
/// # Errors
/// A sentence with the form.
pub fn claims(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(claims)) => Ok(claims),
        _ => {
            Err("claims are a JSON object, as in {\"iss\":\"https://id.example\",\"sub\":\"ann\"}".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_and_targets_are_read_and_told_what_is_wrong() {
        assert_eq!("none".parse(), Ok(Caller::Plaintext));
        let own: TrustDomain = "cluster.local".parse().unwrap();
        let caller: Caller = "web/frontend".parse().unwrap();
        assert_eq!(
            caller.id(&own).unwrap().as_str(),
            "spiffe://cluster.local/ns/web/sa/frontend"
        );
        assert!(
            "frontend"
                .parse::<Caller>()
                .unwrap_err()
                .to_string()
                .contains("NAMESPACE/SERVICE")
        );
        assert!("spiffe://".parse::<Caller>().is_err());
        let target: Target = "shop/cart:8080".parse().unwrap();
        assert_eq!((target.name.as_str(), target.port), ("cart", Some(8080)));
        for wrong in ["cart", "shop/", "shop/cart:0", "shop/cart:http", "shop/a/b"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_that_is_none_is_not_repeated() {
        assert_eq!(header("X-Key: a:b"), Ok(("x-key".to_owned(), "a:b".to_owned())));
        assert!(!header("secret").unwrap_err().contains("secret"));
        assert!(labels("app").is_err());
        assert!(labels("a=b, c=d").unwrap().contains_key("c"));
    }
}
