//! How keys of token issuers are fetched, as written and as checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use signet_policy::DialRules;
use signet_policy::address::Block;
use signet_runtime::config::Faults;

/// Most issuers whose keys are in files.
const MAX_ISSUERS: usize = 64;

/// `jwt` as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawTokens {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    blocked_cidrs: Vec<String>,
    #[serde(default)]
    allowed_cidrs: Vec<String>,
    #[serde(default)]
    issuers: Vec<RawIssuer>,
}

/// An issuer whose keys are in a file, as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawIssuer {
    issuer: String,
    jwks_file: PathBuf,
}

/// How keys of token issuers are fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFetching {
    /// CAs of the servers, in PEM; nothing for those of the machine.
    pub ca_file: Option<PathBuf>,
    /// Which addresses may be dialled.
    pub dial: DialRules,
    /// Files of keys, by issuer.
    pub files: BTreeMap<String, PathBuf>,
}

impl RawTokens {
    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        let lists = self.blocked_cidrs.is_empty() && self.allowed_cidrs.is_empty() && self.issuers.is_empty();
        lists && self.ca_file.is_none()
    }

    fn files(&self, faults: &mut Faults) -> BTreeMap<String, PathBuf> {
        let mut files = BTreeMap::new();
        if self.issuers.len() > MAX_ISSUERS {
            faults.add("jwt.issuers", format!("has more than {MAX_ISSUERS} entries"));
            return files;
        }
        for (at, one) in self.issuers.iter().enumerate() {
            if one.issuer.is_empty() {
                faults.add(&format!("jwt.issuers[{at}].issuer"), "must not be empty");
            }
            if files.insert(one.issuer.clone(), one.jwks_file.clone()).is_some() {
                let text = format!("{:?} stands twice", one.issuer);
                faults.add(&format!("jwt.issuers[{at}].issuer"), text);
            }
        }
        files
    }

    pub(super) fn check(&self, faults: &mut Faults) -> KeyFetching {
        let files = self.files(faults);
        let mut blocks = |key: &str, texts: &[String]| {
            let blocks = texts.iter().filter_map(|text| faults.parse::<Block>(key, text));
            blocks.collect()
        };
        KeyFetching {
            dial: DialRules {
                blocked: blocks("jwt.blocked_cidrs", &self.blocked_cidrs),
                allowed: blocks("jwt.allowed_cidrs", &self.allowed_cidrs),
            },
            ca_file: self.ca_file.clone(),
            files,
        }
    }
}
