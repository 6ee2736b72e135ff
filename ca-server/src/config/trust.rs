//! The keys about JWT-SVIDs and about trust beyond this trust domain: OIDC, bundle endpoint, federation.

mod federation;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use signet_certs::TrustDomain;
use signet_certs::lifetime::TtlBounds;
use signet_runtime::config::{Faults, HumanDuration};

use crate::federation::url::EndpointUrl;
use crate::jwt_rotation::Policy;
use federation::federation;
pub use federation::{Federated, ForeignSource, RawFederated};

/// Longest life of a token that may be configured: it is a bearer token.
const MOST_JWT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Shortest: below it clock skew leaves nothing.
const LEAST_JWT_TTL: Duration = Duration::from_secs(10);

/// `jwt_svid` as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawJwt {
    ttl: Option<HumanDuration>,
    max_ttl: Option<HumanDuration>,
    issuer: Option<String>,
    key_file: Option<PathBuf>,
    key_life: Option<HumanDuration>,
}

/// `bundle_endpoint` as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawEndpoint {
    listen: Option<String>,
    profile: Option<String>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

/// All four keys as written.
#[derive(Clone, Debug, Default)]
pub(super) struct RawTrust {
    pub(super) jwt_svid: Option<RawJwt>,
    pub(super) oidc_listen: Option<String>,
    pub(super) bundle_endpoint: Option<RawEndpoint>,
    pub(super) federation: Option<Vec<RawFederated>>,
}

/// JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// Bounds of their life.
    pub ttl: TtlBounds,
    /// Issuer URL: the claim `iss`, and where relying parties find the keys.
    pub issuer: Option<String>,
    /// Keys of the operator, in place of ours.
    pub key_file: Option<PathBuf>,
    /// How long one key of ours signs.
    pub key_life: Duration,
}

/// How an endpoint proves itself (SPIFFE Federation §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointProfile {
    /// `https_web`: by a certificate that the operator brings.
    Web {
        /// Chain in PEM, leaf first.
        certificate: PathBuf,
        /// Its key in PEM.
        key: PathBuf,
    },
    /// `https_spiffe`: by the CA's own SVID.
    Spiffe,
}

/// Our bundle for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEndpoint {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How it proves itself.
    pub profile: EndpointProfile,
}

/// The four keys, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustSettings {
    /// JWT-SVIDs.
    pub jwt: JwtSettings,
    /// Where OIDC relying parties ask, over plain HTTP behind an ingress.
    pub oidc: Option<SocketAddr>,
    /// Our bundle for others.
    pub endpoint: Option<BundleEndpoint>,
    /// Whom our workloads accept beside ourselves.
    pub federation: Vec<Federated>,
}

impl RawTrust {
    /// Checks all four, next to our own name and how often pollers ask for our bundle.
    pub(super) fn check(
        self,
        own: Option<&TrustDomain>,
        hint: Option<Duration>,
        faults: &mut Faults,
    ) -> Option<TrustSettings> {
        let jwt = jwt(self.jwt_svid.unwrap_or_default(), hint, faults);
        let oidc = self
            .oidc_listen
            .map(|text| faults.parse::<SocketAddr>("oidc_listen", &text));
        if oidc.is_some() && jwt.as_ref().is_some_and(|jwt| jwt.issuer.is_none()) {
            faults.add(
                "oidc_listen",
                "needs jwt_svid.issuer, the https URL under which relying parties reach it",
            );
        }
        let endpoint = self.bundle_endpoint.map(|raw| endpoint(raw, faults));
        let federation = federation(self.federation.unwrap_or_default(), own, faults);
        Some(TrustSettings {
            jwt: jwt?,
            oidc: match oidc {
                Some(parsed) => Some(parsed?),
                None => None,
            },
            endpoint: match endpoint {
                Some(checked) => Some(checked?),
                None => None,
            },
            federation: federation?,
        })
    }
}

fn jwt(raw: RawJwt, hint: Option<Duration>, faults: &mut Faults) -> Option<JwtSettings> {
    let max = raw.max_ttl.map_or(Duration::from_secs(3600), |d| d.0);
    let default = raw.ttl.map_or(max.min(Duration::from_secs(300)), |d| d.0);
    let key_life = raw.key_life.map_or(Duration::from_secs(7 * 86_400), |d| d.0);
    let mut good = true;
    let mut demand = |holds: bool, key: &str, fault: String| {
        if !holds {
            faults.add(key, fault);
            good = false;
        }
    };
    let show = HumanDuration;
    demand(
        default >= LEAST_JWT_TTL,
        "jwt_svid.ttl",
        format!("{} is below the least, {}", show(default), show(LEAST_JWT_TTL)),
    );
    demand(
        default <= max,
        "jwt_svid.ttl",
        format!("{} is above jwt_svid.max_ttl, {}", show(default), show(max)),
    );
    demand(
        max <= MOST_JWT_TTL,
        "jwt_svid.max_ttl",
        format!("{} is above the most, {}", show(max), show(MOST_JWT_TTL)),
    );
    if let Some(hint) = hint {
        let lead = Policy::new(hint, key_life, max).lead;
        demand(
            key_life >= 2 * lead,
            "jwt_svid.key_life",
            format!(
                "{} is below {}, twice the time a new key is published before it signs (four bundle_refresh_hint)",
                show(key_life),
                show(2 * lead)
            ),
        );
    }
    if let Some(issuer) = &raw.issuer
        && !is_issuer(issuer)
    {
        demand(
            false,
            "jwt_svid.issuer",
            format!(
                "{issuer:?} is no issuer URL; write https://host/path without query, fragment or slash at the end"
            ),
        );
    }
    good.then_some(JwtSettings {
        ttl: TtlBounds {
            min: LEAST_JWT_TTL,
            default,
            max,
        },
        issuer: raw.issuer,
        key_file: raw.key_file,
        key_life,
    })
}

/// OpenID Connect Discovery 1.0 §3: `https`, no query or fragment. Relying parties compare the text.
fn is_issuer(text: &str) -> bool {
    text.parse::<EndpointUrl>().is_ok() && !text.contains(['?', '#']) && !text.ends_with('/')
}

fn endpoint(raw: RawEndpoint, faults: &mut Faults) -> Option<BundleEndpoint> {
    let key = "bundle_endpoint";
    let listen = match &raw.listen {
        Some(text) => faults.parse("bundle_endpoint.listen", text),
        None => {
            faults.add("bundle_endpoint.listen", "name the address and port to listen on");
            None
        }
    };
    let profile = match (raw.profile.as_deref(), raw.certificate_file, raw.key_file) {
        (Some("https_web"), Some(certificate), Some(key)) => Some(EndpointProfile::Web { certificate, key }),
        (Some("https_spiffe"), None, None) => Some(EndpointProfile::Spiffe),
        (Some("https_web"), _, _) => {
            faults.add(key, "https_web needs certificate_file and key_file");
            None
        }
        (Some("https_spiffe"), _, _) => {
            faults.add(
                key,
                "https_spiffe serves the CA's own SVID; leave certificate_file and key_file out",
            );
            None
        }
        (other, _, _) => {
            faults.add("bundle_endpoint.profile", unknown_profile(other));
            None
        }
    };
    Some(BundleEndpoint {
        listen: listen?,
        profile: profile?,
    })
}

fn unknown_profile(found: Option<&str>) -> String {
    match found {
        Some(found) => format!("{found:?} is neither \"https_web\" nor \"https_spiffe\""),
        None => "say https_web or https_spiffe; a profile is never guessed".into(),
    }
}

impl TrustSettings {
    /// As it would be written, defaults included.
    pub(super) fn raw(&self) -> RawTrust {
        let human = |d: Duration| Some(HumanDuration(d));
        RawTrust {
            jwt_svid: Some(RawJwt {
                ttl: human(self.jwt.ttl.default),
                max_ttl: human(self.jwt.ttl.max),
                issuer: self.jwt.issuer.clone(),
                key_file: self.jwt.key_file.clone(),
                key_life: human(self.jwt.key_life),
            }),
            oidc_listen: self.oidc.map(|address| address.to_string()),
            bundle_endpoint: self.endpoint.as_ref().map(|endpoint| {
                let (profile, certificate_file, key_file) = match &endpoint.profile {
                    EndpointProfile::Web { certificate, key } => {
                        ("https_web", Some(certificate.clone()), Some(key.clone()))
                    }
                    EndpointProfile::Spiffe => ("https_spiffe", None, None),
                };
                RawEndpoint {
                    listen: Some(endpoint.listen.to_string()),
                    profile: Some(profile.into()),
                    certificate_file,
                    key_file,
                }
            }),
            federation: Some(self.federation.iter().map(Federated::raw).collect()),
        }
    }
}

#[cfg(test)]
mod tests;
