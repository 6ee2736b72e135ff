//! The questions of a file: lines that an operator wrote, and access records as a proxy logs them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use signet_policy::Workload;
use signet_policy::scope::Role;

use super::super::inventory::Inventory;
use super::super::literals::PORT;
use super::super::question::{Addresses, Caller, Http, NoCaller, NoTarget, Question, Target, Token};
use super::recorded::{self, Looked, Recorders};
use super::requests::Asked;
use crate::fault::Fault;
use crate::inputs;

/// Largest file of requests, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// One line that an operator wrote.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    from: String,
    to: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    tcp: bool,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    claims: Option<Map<String, Value>>,
    source_ip: Option<IpAddr>,
    remote_ip: Option<IpAddr>,
    destination_ip: Option<IpAddr>,
    sni: Option<String>,
}

/// What the lines of a file were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Requests that an operator wrote.
    pub written: usize,
    /// Requests and connections to a workload that its proxy recorded.
    pub recorded: usize,
    /// Lines of a log that are no access record, and lines that are no JSON.
    pub no_requests: usize,
    /// Records of the caller's side. The proxy of the other side decides, and has records of its own.
    pub outbound: usize,
    /// Records that do not say enough to be asked again.
    pub incomplete: usize,
}

/// The questions of a file by the workload they are put to, and what its lines were.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) questions: Vec<(Asked, Vec<Question>)>,
    pub(super) counted: Counted,
}

/// Reads a file of requests; "-" is standard input.
///
/// # Errors
/// [`Fault::Unanswered`] with the line that is wrong, or if no line is a request.
pub(super) fn read(path: &Path, inventory: &Inventory, recorders: &Recorders<'_>) -> Result<Given, Fault> {
    let shown = path.display();
    let bytes = inputs::data(path, MAX_BYTES)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut reading = Reading::default();
    for (number, line) in (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty())
    {
        reading
            .line(line, inventory, recorders)
            .map_err(|wrong| Fault::Unanswered(format!("{shown}:{number}: {wrong}")))?;
    }
    let given = reading.finish();
    if given.questions.is_empty() {
        let counted = given.counted.skipped();
        return Err(Fault::Unanswered(format!(
            "{shown} holds no request to ask about ({counted}); it takes lines as `signet policy diff --help` shows \
             them, and the access records of the proxy that was called, with its `log_format: json` and \
             `access_log: all`"
        )));
    }
    Ok(given)
}

/// A workload's name and labels.
type Key = (String, BTreeMap<String, String>);

#[derive(Default)]
struct Reading {
    asked: BTreeMap<Key, (Asked, Vec<Question>)>,
    counted: Counted,
    /// Connections on which nothing was asked, as far as their records say.
    bare: Vec<(Asked, Question)>,
}

impl Reading {
    fn line(&mut self, line: &str, inventory: &Inventory, recorders: &Recorders<'_>) -> Result<(), String> {
        let value = match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) => value,
            Err(wrong) if line.trim_start().starts_with('{') => return Err(wrong.to_string()),
            Ok(_) | Err(_) => {
                self.counted.no_requests += 1;
                return Ok(());
            }
        };
        if !recorded::is_log(&value) {
            let (asked, question) = of_line(value, inventory)?;
            self.counted.written += 1;
            self.put(asked, question);
            return Ok(());
        }
        match recorded::look(value, recorders)? {
            Looked::NoRecord => self.counted.no_requests += 1,
            Looked::Outbound => self.counted.outbound += 1,
            Looked::Incomplete => self.counted.incomplete += 1,
            Looked::Question(asked, question) if question.http.is_none() => {
                self.bare.push((*asked, *question));
            }
            Looked::Question(asked, question) => {
                self.counted.recorded += 1;
                self.put(*asked, *question);
            }
        }
        Ok(())
    }

    fn put(&mut self, asked: Asked, question: Question) {
        let key = (asked.name.clone(), asked.workload.labels.clone());
        let (known, questions) = self
            .asked
            .entry(key)
            .or_insert_with(|| (asked.clone(), Vec::new()));
        known.ports.extend(asked.ports);
        questions.push(question);
    }

    /// A connection without a request, on a port on which others asked, ended before it came to one.
    fn finish(mut self) -> Given {
        let carries_http: BTreeSet<(String, u16)> = self
            .asked
            .values()
            .flat_map(|(asked, questions)| questions.iter().map(|question| (asked.name.clone(), question)))
            .filter(|(_, question)| question.http.is_some())
            .map(|(name, question)| (name, question.port))
            .collect();
        for (asked, question) in std::mem::take(&mut self.bare) {
            if carries_http.contains(&(asked.name.clone(), question.port)) {
                self.counted.incomplete += 1;
            } else {
                self.counted.recorded += 1;
                self.put(asked, question);
            }
        }
        Given {
            questions: self.asked.into_values().collect(),
            counted: self.counted,
        }
    }
}

impl Counted {
    /// In words.
    pub(super) fn asked(&self) -> String {
        let Self {
            written, recorded, ..
        } = self;
        format!("{written} written, {recorded} recorded")
    }

    /// What was left out, in words.
    pub(super) fn skipped(&self) -> String {
        let Self {
            no_requests,
            outbound,
            incomplete,
            ..
        } = self;
        let lines = no_requests + outbound + incomplete;
        format!(
            "{lines} lines skipped: {no_requests} no requests, {outbound} of the caller's side, {incomplete} that say \
             too little"
        )
    }
}

fn of_line(line: Value, inventory: &Inventory) -> Result<(Asked, Question), String> {
    let line: Line = serde_json::from_value(line).map_err(|e| e.to_string())?;
    let target: Target = line.to.parse().map_err(|e: NoTarget| e.to_string())?;
    let caller: Caller = line.from.parse().map_err(|e: NoCaller| e.to_string())?;
    let known = inventory.workload(&target.namespace, &target.name);
    let labels = match (line.labels.is_empty(), known) {
        (true, Some(known)) => known.meta.labels.clone(),
        _ => line.labels,
    };
    let port = target.port.unwrap_or(PORT);
    let usual = Addresses::default();
    let source = line.source_ip.unwrap_or(usual.source);
    let host = format!("{}.{}", target.name, target.namespace);
    let question = Question {
        caller,
        port,
        addresses: Addresses {
            source,
            remote: line.remote_ip.unwrap_or(source),
            destination: line.destination_ip.unwrap_or(usual.destination),
        },
        sni: line.sni,
        http: (!line.tcp).then(|| Http {
            method: line.method.unwrap_or_else(|| "GET".to_owned()),
            path: line.path.unwrap_or_else(|| "/".to_owned()),
            host: line.host.unwrap_or(host),
            headers: line
                .headers
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
        }),
        token: line.claims.map_or(Token::None, Token::Claims),
    };
    Ok((asked(&target, labels, port), question))
}

/// The workload of a question.
pub(super) fn asked(target: &Target, labels: BTreeMap<String, String>, port: u16) -> Asked {
    Asked {
        name: format!("{}/{}", target.namespace, target.name),
        workload: Workload {
            namespace: target.namespace.clone(),
            labels,
            role: Role::Sidecar,
        },
        ports: BTreeSet::from([port]),
    }
}
