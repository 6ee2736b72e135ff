//! `signet policy check`: whether policies can be enforced as they stand.

use serde::Serialize;
use signet_certs::UnixTime;
use signet_policy::document::Content;
use signet_policy::fault::Conflict;
use signet_policy::model::salvage::{Effect, Faulty};
use signet_policy::model::{Kind, ObjectKey};

use super::analyze::finding::{Finding, Severity};
use super::analyze::{Evidence, findings};
use super::documents::{Documents, Found, Place, Problem, Wanted, key, missing};
use super::inventory::Inventory;
use super::mesh::mesh;
use crate::Shell;
use crate::args::PolicyCheckArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Whether every policy can be enforced as it stands.
    pub sound: bool,
    /// Policies that were read, faulty ones included.
    pub policies: usize,
    /// Documents that are no policies, and were left alone.
    pub others: usize,
    /// Kinds of policies that the cluster does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_kinds: Vec<&'static str>,
    /// What cannot be enforced.
    pub faults: Vec<ShownFault>,
    /// What can be enforced and is often not meant.
    pub warnings: Vec<Finding>,
}

/// One fault.
#[derive(Clone, Debug, Serialize)]
pub struct ShownFault {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: Option<u64>,
    /// The object, if its name could be read.
    pub object: Option<String>,
    /// The field; empty for the whole document.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
    /// What the object counts as while it has no good version.
    pub counts_as: &'static str,
    /// What it then reaches.
    pub reaches: String,
}

impl Checked {
    /// What is wrong with the documents.
    #[must_use]
    pub fn of(documents: &Documents, warnings: Vec<Finding>) -> Self {
        let faults: Vec<ShownFault> = documents.faults().iter().map(ShownFault::of).collect();
        let policies = documents.policies();
        Self {
            sound: faults.is_empty(),
            policies,
            others: documents.readings.len() - policies,
            missing_kinds: documents.missing_kinds.clone(),
            faults,
            warnings,
        }
    }
}

impl ShownFault {
    /// One fault, for people and for scripts.
    #[must_use]
    pub fn of(found: &Found<'_>) -> Self {
        let reading = found.reading;
        let (field, line, problem, fix) = match &found.fault {
            Problem::Engine(fault) => (
                fault.path.clone(),
                fault.line.or((reading.line > 0).then_some(reading.line)),
                fault.problem.to_string(),
                fault.problem.hint(),
            ),
            Problem::Twice(first) => twice(first.as_ref(), reading.line),
        };
        let (counts_as, reaches) = match &reading.content {
            Content::Faulty(faulty) => (faulty.effect.as_str(), reach(faulty)),
            _ => ambiguous(key(reading).as_ref()),
        };
        Self {
            file: reading.origin.to_string(),
            line,
            object: key(reading).map(|key| key.to_string()),
            field,
            problem,
            fix,
            counts_as,
            reaches,
        }
    }

    fn place(&self) -> Place {
        Place {
            file: self.file.clone(),
            line: self.line,
        }
    }
}

fn twice(first: Option<&Place>, line: u64) -> (String, Option<u64>, String, String) {
    let problem = signet_policy::fault::Problem::Conflict(Conflict::Twice);
    let elsewhere = first
        .map(|first| format!(" (the first is at {first})"))
        .unwrap_or_default();
    (
        "metadata.name".to_owned(),
        (line > 0).then_some(line),
        format!("{problem}{elsewhere}"),
        problem.hint(),
    )
}

/// What an object of which two versions were given counts as: neither can be chosen.
fn ambiguous(key: Option<&ObjectKey>) -> (&'static str, String) {
    let effect = match key.map(|key| key.kind) {
        Some(Kind::PeerAuthentication) => Effect::Strict,
        Some(Kind::RequestAuthentication) => Effect::RefuseTokens,
        Some(Kind::AuthorizationPolicy) | None => Effect::DenyAll,
    };
    let namespace = key.map(|key| format!("namespace {}", key.namespace));
    (effect.as_str(), namespace.unwrap_or_default())
}

fn reach(faulty: &Faulty) -> String {
    use signet_policy::model::Attachment;
    let place = match &faulty.namespace {
        Some(namespace) => format!("namespace {namespace}"),
        None => "the whole mesh".to_owned(),
    };
    match &faulty.attachment {
        Attachment::Everything => place,
        Attachment::Labels(labels) => {
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{} in {place}", labels.join(","))
        }
        Attachment::Targets(_) => format!("its targets in {place}"),
    }
}

impl View for Checked {
    fn page(&self, page: &mut Page, _: UnixTime) {
        let count = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        let policies = match self.policies {
            1 => "1 policy".to_owned(),
            many => format!("{many} policies"),
        };
        let (verdict, tone) = match (self.faults.len(), self.warnings.len()) {
            (0, 0) => ("all can be enforced as they stand".to_owned(), Tone::Good),
            (0, warnings) => (
                format!(
                    "all can be enforced as they stand; {}",
                    count(warnings, "warning")
                ),
                Tone::Warn,
            ),
            (faults, warnings) => (
                format!("{}, {}", count(faults, "fault"), count(warnings, "warning")),
                Tone::Bad,
            ),
        };
        page.line(Cell::new(format!("{policies}: {verdict}"), tone));
        if let Some(missing) = missing(&self.missing_kinds) {
            page.line(Cell::new(missing, Tone::Warn));
        }
        for fault in &self.faults {
            page.gap();
            page.line(Cell::new(fault.place().to_string(), Tone::Bad));
            let object = fault
                .object
                .as_deref()
                .unwrap_or("a document without a readable name");
            page.fact("  object", object);
            if !fault.field.is_empty() {
                page.fact("  field", &*fault.field);
            }
            page.fact("  wrong", Cell::new(&*fault.problem, Tone::Bad));
            page.fact("  fix", &*fault.fix);
            let until = format!("{} for {}", fault.counts_as, fault.reaches);
            page.fact("  until then", format!("its last good version, or {until}"));
        }
        for warning in &self.warnings {
            page.gap();
            warning.show(page);
        }
    }
}

pub(crate) async fn run(args: &PolicyCheckArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let documents = Documents::read(Wanted {
        paths: &args.paths,
        kubeconfig: args.kubeconfig.as_deref(),
        namespace: args.mesh.namespace.as_deref(),
    })
    .await?;
    if documents.policies() == 0 {
        return Err(Fault::unanswered("no policy was found, so nothing was checked"));
    }
    let mesh = mesh(&args.mesh);
    let set = super::documents::set(&documents);
    let inventory = Inventory::default();
    let evidence = Evidence {
        documents: &documents,
        set: &set,
        inventory: &inventory,
        mesh: &mesh,
        own: &args.mesh.trust_domain,
    };
    let mut warnings = findings(&evidence);
    warnings.retain(|finding| finding.code.by_policies_alone() && finding.severity > Severity::Info);
    let checked = Checked::of(&documents, warnings);
    shell.show(&checked)?;
    if checked.sound && (checked.warnings.is_empty() || !args.strict) {
        Ok(Answer::Yes)
    } else {
        Ok(Answer::No)
    }
}
