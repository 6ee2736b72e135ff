//! Where the keys of a token issuer are, and which addresses may be dialled for them. Pure: who fetches is told
//! what to ask for, and asks whether it may.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::address::Block;
use crate::model::JwtRule;
use crate::model::request::KeySource;

/// Where an issuer that supports OpenID Connect describes itself (OpenID Connect Discovery 1.0 §4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// A key set that has to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAddress {
    /// It is under this address.
    Uri(String),
    /// The issuer of this name tells where it is.
    Discovery(String),
}

/// Why an issuer's description of itself leads to no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryFault {
    /// It is no JSON object.
    #[error("the issuer's openid-configuration is no JSON object")]
    Json,
    /// It describes somebody else (OpenID Connect Discovery 1.0 §4.3).
    #[error("the issuer's openid-configuration is of another issuer")]
    Issuer,
    /// It does not say where the keys are.
    #[error("the issuer's openid-configuration has no jwks_uri")]
    NoKeys,
}

impl KeyAddress {
    /// Where the keys of a rule are; nothing if they are in the rule.
    #[must_use]
    pub fn of(rule: &JwtRule) -> Option<Self> {
        match (&rule.keys, &rule.issuer) {
            (KeySource::Inline(_), _) | (KeySource::Discovery, None) => None,
            (KeySource::Uri(uri), _) => Some(Self::Uri(uri.clone())),
            (KeySource::Discovery, Some(issuer)) => Some(Self::Discovery(issuer.clone())),
        }
    }

    /// What to fetch first.
    #[must_use]
    pub fn first(&self) -> String {
        match self {
            Self::Uri(uri) => uri.clone(),
            Self::Discovery(issuer) => format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')),
        }
    }

    /// What to fetch after `body` came; nothing if these are the keys.
    ///
    /// # Errors
    /// A [`DiscoveryFault`].
    pub fn next(&self, body: &[u8]) -> Result<Option<String>, DiscoveryFault> {
        let Self::Discovery(issuer) = self else {
            return Ok(None);
        };
        let described: Value = serde_json::from_slice(body).map_err(|_| DiscoveryFault::Json)?;
        let described = described.as_object().ok_or(DiscoveryFault::Json)?;
        let text = |name| described.get(name).and_then(Value::as_str);
        if text("issuer") != Some(issuer) {
            return Err(DiscoveryFault::Issuer);
        }
        let keys = text("jwks_uri").ok_or(DiscoveryFault::NoKeys)?;
        Ok(Some(keys.to_owned()))
    }
}

impl fmt::Display for KeyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => f.write_str(uri),
            Self::Discovery(issuer) => write!(f, "the issuer {issuer}"),
        }
    }
}

/// Which addresses may be dialled for keys: none that lead into this machine, its link or its cloud's
/// metadata, since whoever writes a rule chooses the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialRules {
    /// More that may not be, whatever else is said.
    pub blocked: Vec<Block>,
    /// Those that may be all the same.
    pub allowed: Vec<Block>,
}

impl DialRules {
    /// Whether `address`, as a name resolved to it, may be dialled.
    #[must_use]
    pub fn permit(&self, address: IpAddr) -> bool {
        let address = embedded(address.to_canonical());
        let within = |blocks: &[Block]| blocks.iter().any(|block| block.contains(address));
        !within(&self.blocked) && (within(&self.allowed) || !is_never_dialled(address))
    }
}

/// The IPv4 address that an IPv6 address is translated to on its way (RFC 6052 §2.1, RFC 3056 §2).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else {
        return address;
    };
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match six.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => four(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => four(high, low),
        _ => address,
    }
}

fn is_never_dialled(address: IpAddr) -> bool {
    /// Metadata of clouds outside of link-local addresses: Alibaba, Azure, Oracle.
    const METADATA4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    /// Of AWS and of Google.
    const METADATA6: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254),
    ];
    match address {
        IpAddr::V4(four) => {
            let [first, ..] = four.octets();
            let special = four.is_loopback() || four.is_link_local() || four.is_multicast();
            special || first == 0 || first >= 240 || METADATA4.contains(&four)
        }
        IpAddr::V6(six) => {
            let special = six.is_loopback() || six.is_unspecified() || six.is_multicast();
            special || six.is_unicast_link_local() || METADATA6.contains(&six)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_that_describes_itself_leads_to_its_keys() {
        let address = KeyAddress::Discovery("https://i.test/a/".into());
        assert_eq!(
            address.first(),
            "https://i.test/a/.well-known/openid-configuration"
        );
        let next = |body: &str| address.next(body.as_bytes());
        let sound = r#"{"issuer":"https://i.test/a/","jwks_uri":"https://i.test/keys"}"#;
        assert_eq!(next(sound), Ok(Some("https://i.test/keys".into())));
        let other = r#"{"issuer":"https://i.test/a","jwks_uri":"https://i.test/keys"}"#;
        assert_eq!(next(other), Err(DiscoveryFault::Issuer));
        assert_eq!(
            next(r#"{"issuer":"https://i.test/a/"}"#),
            Err(DiscoveryFault::NoKeys)
        );
        assert_eq!(next("[]"), Err(DiscoveryFault::Json));
        assert_eq!(KeyAddress::Uri("https://k.test/".into()).next(b"[]"), Ok(None));
    }

    #[test]
    fn addresses_inside_are_never_dialled_in_whatever_form_they_come() {
        let rules = DialRules::default();
        for never in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.9",
            "fe80::1",
            "febf::1",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::127.0.0.1",
        ] {
            assert!(!rules.permit(never.parse().unwrap()), "{never}");
        }
        for may in [
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "2001:db8::1",
            "fd00::1",
            "64:ff9b::808:808",
        ] {
            assert!(rules.permit(may.parse().unwrap()), "{may}");
        }
    }

    #[test]
    fn what_is_blocked_stays_blocked_although_it_is_allowed() {
        let blocks = |text: &str| vec![text.parse().unwrap()];
        let rules = DialRules {
            blocked: blocks("127.0.0.2"),
            allowed: blocks("127.0.0.0/8"),
        };
        assert!(rules.permit("127.0.0.1".parse().unwrap()));
        assert!(!rules.permit("127.0.0.2".parse().unwrap()));
        assert!(!rules.permit("::1".parse().unwrap()));
        let wide = DialRules {
            blocked: blocks("10.0.0.0/8"),
            allowed: Vec::new(),
        };
        assert!(!wide.permit("::ffff:10.1.1.1".parse().unwrap()) && wide.permit("11.0.0.1".parse().unwrap()));
    }
}
