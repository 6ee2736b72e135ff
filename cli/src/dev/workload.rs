//! What an operator of `signet dev` says on the command line: workloads and foreign trust domains.

use std::path::PathBuf;
use std::str::FromStr;

use signet_certs::{ServiceAccountId, TrustDomain};

/// A workload: an account, and the processes that are it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its service account.
    pub account: ServiceAccountId,
    /// The user of its processes, if that matters.
    pub uid: Option<u32>,
    /// Their group, if that matters.
    pub gid: Option<u32>,
    /// The file they run, if that matters.
    pub executable: Option<PathBuf>,
    /// What clients are told the identity is for.
    pub hint: Option<String>,
}

/// Why a text names no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// No account.
    #[error("{0:?} is no account; write NAMESPACE/ACCOUNT, as in shop/cart")]
    Account(String),
    /// A selector of no known kind.
    #[error("{0:?} is no selector; write uid:NUMBER, gid:NUMBER, executable:PATH or hint:WORD")]
    Selector(String),
    /// A selector with a value it cannot have.
    #[error("{selector}:{value} is not {wanted}")]
    Value {
        /// The selector.
        selector: &'static str,
        /// What was written.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The same selector twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
}

impl Workload {
    /// `account`, as every process of `uid`.
    #[must_use]
    pub fn of_user(account: ServiceAccountId, uid: u32) -> Self {
        Self {
            account,
            uid: Some(uid),
            gid: None,
            executable: None,
            hint: None,
        }
    }

    /// With the user `uid`, if nothing says yet which processes are meant.
    #[must_use]
    pub fn or_of_user(mut self, uid: u32) -> Self {
        if self.uid.is_none() && self.gid.is_none() && self.executable.is_none() {
            self.uid = Some(uid);
        }
        self
    }

    fn select(&mut self, text: &str) -> Result<(), WorkloadError> {
        let (kind, value) = text
            .split_once(':')
            .ok_or_else(|| WorkloadError::Selector(text.into()))?;
        match kind {
            "uid" => put(&mut self.uid, "uid", number("uid", value)?),
            "gid" => put(&mut self.gid, "gid", number("gid", value)?),
            "executable" => put(&mut self.executable, "executable", absolute(value)?),
            "hint" if value.is_empty() => Err(wrong("hint", value, "a word")),
            "hint" => put(&mut self.hint, "hint", value.into()),
            _ => Err(WorkloadError::Selector(text.into())),
        }
    }
}

impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        let (account, selectors) = text.split_once('=').unwrap_or((text, ""));
        let named = account
            .split_once('/')
            .and_then(|(namespace, name)| ServiceAccountId::new(namespace, name).ok());
        let mut workload = Self {
            account: named.ok_or_else(|| WorkloadError::Account(account.into()))?,
            uid: None,
            gid: None,
            executable: None,
            hint: None,
        };
        for selector in selectors.split(',').filter(|selector| !selector.is_empty()) {
            workload.select(selector)?;
        }
        Ok(workload)
    }
}

fn put<T>(place: &mut Option<T>, selector: &'static str, value: T) -> Result<(), WorkloadError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(WorkloadError::Twice(selector)),
    }
}

fn number(selector: &'static str, value: &str) -> Result<u32, WorkloadError> {
    value.parse().map_err(|_| wrong(selector, value, "a number"))
}

fn absolute(value: &str) -> Result<PathBuf, WorkloadError> {
    match std::path::absolute(value) {
        Ok(path) if !value.is_empty() => Ok(path),
        _ => Err(wrong("executable", value, "the path of a program")),
    }
}

fn wrong(selector: &'static str, value: &str, wanted: &'static str) -> WorkloadError {
    WorkloadError::Value {
        selector,
        value: value.into(),
        wanted,
    }
}

/// A foreign trust domain with its bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its name.
    pub trust_domain: TrustDomain,
    /// The file its bundle is in: a SPIFFE JWK set.
    pub file: PathBuf,
}

impl FromStr for Foreign {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (domain, file) = text
            .split_once('=')
            .filter(|(_, file)| !file.is_empty())
            .ok_or_else(|| format!("{text:?} is not TRUST-DOMAIN=FILE"))?;
        Ok(Self {
            trust_domain: domain
                .parse()
                .map_err(|e| format!("trust domain {domain:?} {e}"))?,
            file: std::path::absolute(file).map_err(|e| format!("{file}: {e}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_read_with_its_selectors() {
        let plain: Workload = "shop/cart".parse().unwrap();
        assert_eq!(plain.account.to_string(), "shop/cart");
        assert_eq!(plain.clone().or_of_user(7), Workload::of_user(plain.account, 7));
        let narrow: Workload = "shop/cart=uid:1000,executable:/usr/bin/curl,hint:web"
            .parse()
            .unwrap();
        assert_eq!((narrow.uid, narrow.gid), (Some(1000), None));
        assert_eq!(narrow.executable, Some(PathBuf::from("/usr/bin/curl")));
        assert_eq!(narrow.hint.as_deref(), Some("web"));
        let by_program: Workload = "shop/cart=executable:/bin/sh".parse().unwrap();
        assert_eq!(by_program.or_of_user(7).uid, None, "the program alone was meant");
    }

    #[test]
    fn what_is_no_workload_is_told_with_what_to_write() {
        let refused = |text: &str| text.parse::<Workload>().unwrap_err().to_string();
        assert_eq!(
            refused("cart"),
            "\"cart\" is no account; write NAMESPACE/ACCOUNT, as in shop/cart"
        );
        assert!(refused("shop/CART").contains("is no account"));
        assert!(refused("shop/cart=user:me").contains("is no selector; write uid:NUMBER"));
        assert_eq!(refused("shop/cart=uid:me"), "uid:me is not a number");
        assert_eq!(refused("shop/cart=uid:1,uid:2"), "uid is given twice");
    }

    #[test]
    fn a_foreign_domain_has_a_name_and_a_file() {
        let foreign: Foreign = "partner.example=/tmp/partner.json".parse().unwrap();
        assert_eq!(foreign.trust_domain.as_str(), "partner.example");
        assert!(
            "partner.example"
                .parse::<Foreign>()
                .unwrap_err()
                .contains("TRUST-DOMAIN=FILE")
        );
        assert!(
            "Partner=/x"
                .parse::<Foreign>()
                .unwrap_err()
                .starts_with("trust domain \"Partner\"")
        );
    }
}
