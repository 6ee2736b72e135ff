//! How keys of token issuers are fetched, as written and as checked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use signet_policy::DialRules;
use signet_policy::address::Block;
use signet_runtime::config::Faults;

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
}

/// How keys of token issuers are fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFetching {
    /// CAs of the servers, in PEM; nothing for those of the machine.
    pub ca_file: Option<PathBuf>,
    /// Which addresses may be dialled.
    pub dial: DialRules,
}

impl RawTokens {
    pub(super) fn check(&self, faults: &mut Faults) -> KeyFetching {
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
        }
    }
}
