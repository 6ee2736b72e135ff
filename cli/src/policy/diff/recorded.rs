//! Access records of a proxy as questions. A record says who asked whose proxy for what. Of headers it says
//! nothing, of a token whose it was, and of a path what policies saw of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;
use signet_certs::{ServiceAccountId, SpiffeId};

use super::super::inventory::{Inventory, Workload};
use super::super::question::{Addresses, Caller, Http, Question, Target, Token};
use super::given::asked;
use super::requests::Asked;

/// A proxy cuts texts off here, in bytes, at the end of a character; a text that is as long may be cut.
const CUT: usize = 253;
/// The account of workloads that name none, as Kubernetes has it.
const DEFAULT_ACCOUNT: &str = "default";

/// What is looked at of a record.
#[derive(Debug, Deserialize)]
struct Record {
    direction: String,
    security: String,
    source: SocketAddr,
    destination: SocketAddr,
    port: u16,
    reason: String,
    peer: Option<SpiffeIdText>,
    own_id: Option<SpiffeIdText>,
    sni: Option<String>,
    method: Option<String>,
    #[serde(default)]
    authority: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    token_principal: String,
}

/// A SPIFFE ID as a record has it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct SpiffeIdText(SpiffeId);

impl TryFrom<String> for SpiffeIdText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|e| format!("{text:?}: {e}"))
    }
}

/// What a line of a log is.
pub(super) enum Looked {
    /// No access record.
    NoRecord,
    /// One of a connection from the workload.
    Outbound,
    /// One that does not say enough.
    Incomplete,
    /// A request, or a connection.
    Question(Box<Asked>, Box<Question>),
}

/// Whose proxies wrote the records.
#[derive(Debug)]
pub(super) struct Recorders<'a> {
    pub(super) inventory: &'a Inventory,
    /// The one workload whose records these are, if the operator says so.
    pub(super) given: Option<&'a Target>,
    /// Its labels, if the operator says so.
    pub(super) labels: Option<&'a BTreeMap<String, String>>,
}

/// Whether it is a line of a log of ours.
pub(super) fn is_log(line: &Value) -> bool {
    ["timestamp", "level", "target"]
        .iter()
        .all(|field| line.get(field).is_some_and(Value::is_string))
}

/// What a line of a log is.
///
/// # Errors
/// A sentence, if it is an access record that cannot be read, or nobody says whose.
pub(super) fn look(line: Value, recorders: &Recorders<'_>) -> Result<Looked, String> {
    if line.get("target").and_then(Value::as_str) != Some("access") {
        return Ok(Looked::NoRecord);
    }
    let record: Record = serde_json::from_value(line).map_err(|e| format!("access record: {e}"))?;
    if record.direction != "inbound" {
        return Ok(Looked::Outbound);
    }
    let Some(caller) = record.caller() else {
        return Ok(Looked::Incomplete);
    };
    if !record.says_enough() {
        return Ok(Looked::Incomplete);
    }
    let (target, labels) = recorders.of(record.own_id.as_ref().map(|own| &own.0))?;
    let asked = asked(&target, labels, record.port);
    Ok(Looked::Question(
        Box::new(asked),
        Box::new(record.question(caller)),
    ))
}

impl Record {
    /// Who asked, if that was ever settled.
    fn caller(&self) -> Option<Caller> {
        match (&*self.security, &self.peer) {
            ("mutual_tls", Some(peer)) => Some(Caller::Id(peer.0.clone())),
            ("plaintext" | "passed_through", _) => Some(Caller::Plaintext),
            _ => None,
        }
    }

    /// Whether what decides is in the record: it is not where texts were cut off, where no request could be read,
    /// and where a token was refused, of which nothing is recorded.
    fn says_enough(&self) -> bool {
        let unread = ["request_", "token_", "limit_"];
        if unread.iter().any(|kind| self.reason.starts_with(kind)) {
            return false;
        }
        let texts = [&self.authority, &self.path, &self.token_principal];
        let whole = texts.iter().all(|text| text.len() < CUT);
        match &self.method {
            None => true,
            Some(method) => whole && !method.is_empty() && method.len() < CUT && !self.path.is_empty(),
        }
    }

    fn question(self, caller: Caller) -> Question {
        let source = self.source.ip().to_canonical();
        Question {
            caller,
            port: self.port,
            addresses: Addresses {
                source,
                remote: source,
                destination: self.destination.ip().to_canonical(),
            },
            sni: self.sni,
            http: self.method.map(|method| Http {
                method,
                path: self.path,
                host: self.authority,
                headers: Vec::new(),
            }),
            token: match self.token_principal.is_empty() {
                true => Token::None,
                false => Token::Of(self.token_principal),
            },
        }
    }
}

impl Recorders<'_> {
    /// The workload of a record: the one that the operator names, or the one that runs as who answered.
    fn of(&self, own: Option<&SpiffeId>) -> Result<(Target, BTreeMap<String, String>), String> {
        const NAME_IT: &str = "name the workload whose proxy wrote it by --recorded-by NAMESPACE/WORKLOAD";
        let account = own.and_then(|own| ServiceAccountId::try_from(own).ok());
        if let Some(given) = self.given {
            return match account {
                Some(account) if account.namespace() != given.namespace => Err(format!(
                    "the record is of a workload in {}, and --recorded-by names one in {}",
                    account.namespace(),
                    given.namespace
                )),
                _ => Ok((given.clone(), self.labels_of(given)?)),
            };
        }
        let Some(account) = account else {
            return Err(format!("the record does not say who answered; {NAME_IT}"));
        };
        let mut all = self.running_as(&account);
        match (all.next(), all.next()) {
            (Some(one), None) => {
                let target = Target {
                    namespace: one.meta.namespace.clone(),
                    name: one.meta.name.clone(),
                    port: None,
                };
                Ok((target, one.meta.labels.clone()))
            }
            (None, _) => Err(format!("no workload in the files runs as {account}; {NAME_IT}")),
            (Some(_), Some(_)) => Err(format!(
                "several workloads in the files run as {account}; {NAME_IT}"
            )),
        }
    }

    fn running_as<'s>(&'s self, account: &'s ServiceAccountId) -> impl Iterator<Item = &'s Workload> {
        self.inventory.real().filter(|one| {
            let own = one.account.as_deref().unwrap_or(DEFAULT_ACCOUNT);
            one.meta.namespace == account.namespace() && own == account.name()
        })
    }

    fn labels_of(&self, given: &Target) -> Result<BTreeMap<String, String>, String> {
        let known = self.inventory.workload(&given.namespace, &given.name);
        match (self.labels, known) {
            (Some(labels), _) => Ok(labels.clone()),
            (None, Some(known)) => Ok(known.meta.labels.clone()),
            (None, None) => Err(format!(
                "{}/{} is no workload in the files; give its labels by --labels",
                given.namespace, given.name
            )),
        }
    }
}
