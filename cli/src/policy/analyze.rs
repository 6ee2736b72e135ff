//! `signet analyze`: known mistakes in policies and in what stands around them.
//!
//! | module | owns |
//! |---|---|
//! | [`finding`] | codes, severities |
//! | [`subject`] | which workloads a policy is about |
//! | `values` | mistakes in single values |
//! | `rules` | mistakes in rules, and in how policies combine |
//! | `identity` | rules on identity where there may be none |
//! | `peers`, `tokens` | PeerAuthentication, RequestAuthentication |
//! | `around` | workloads, services, namespaces |
//! | `enrolment` | workloads without a proxy |

use serde::Serialize;
use signet_certs::{TrustDomain, UnixTime};
use signet_policy::model::{AuthorizationPolicy, Object, ObjectKey};
use signet_policy::{Mesh, PolicySet};

use super::check::ShownFault;
use super::documents::{Documents, Place, Wanted, missing, set};
use super::inventory::Inventory;
use super::mesh::mesh;
use crate::Shell;
use crate::args::AnalyzeArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};

mod around;
mod enrolment;
pub mod finding;
mod identity;
mod peers;
mod rules;
pub mod subject;
#[cfg(test)]
mod tests;
mod tokens;
mod values;

use finding::{Code, Finding, Severity, docs};
use subject::Subject;

/// What is looked at.
#[derive(Clone, Copy)]
pub struct Evidence<'e> {
    /// Where things stand.
    pub documents: &'e Documents,
    /// The policies.
    pub set: &'e PolicySet,
    /// What stands around them.
    pub inventory: &'e Inventory,
    /// Trust domains, root namespace, providers.
    pub mesh: &'e Mesh,
    /// Our own trust domain.
    pub own: &'e TrustDomain,
}

impl<'e> Evidence<'e> {
    /// The AuthorizationPolicies that could be read.
    pub fn policies(self) -> impl Iterator<Item = (ObjectKey, &'e AuthorizationPolicy)> {
        self.set.objects().filter_map(|object| match &**object {
            Object::Authorization(policy) => Some((object.key(), policy)),
            Object::Peer(_) | Object::Request(_) => None,
        })
    }

    fn at(self, key: &ObjectKey, field: &str) -> Option<Place> {
        self.documents.place(key, field)
    }
}

/// Findings, being collected.
struct Findings<'e> {
    evidence: Evidence<'e>,
    /// The workloads in the documents, each with what is in force for it.
    real: Vec<Subject<'e>>,
    found: Vec<Finding>,
}

impl<'e> Findings<'e> {
    fn new(evidence: Evidence<'e>) -> Self {
        let real = evidence.inventory.real();
        Self {
            evidence,
            real: real.map(|real| Subject::real(evidence, real)).collect(),
            found: Vec::new(),
        }
    }

    /// The workloads that a policy is about: those in the documents, or one made up for it.
    fn subjects(&self, object: &Object) -> Vec<Subject<'e>> {
        let reached = |subject: &&Subject<'e>| subject::reaches(self.evidence, object, &subject.workload);
        let real: Vec<_> = self.real.iter().filter(reached).cloned().collect();
        if real.is_empty() {
            Subject::made_up(self.evidence, object).into_iter().collect()
        } else {
            real
        }
    }

    /// A finding in a field of a policy.
    fn add(&mut self, code: Code, (key, field): (&ObjectKey, &str), problem: String, fix: &str) {
        let place = self.evidence.at(key, field);
        self.put(code, (key.to_string(), field.to_owned(), place), (problem, fix));
    }

    /// A finding anywhere.
    fn put(
        &mut self,
        code: Code,
        (object, field, place): (String, String, Option<Place>),
        (problem, fix): (String, &str),
    ) {
        self.found.push(Finding {
            severity: code.severity(),
            code,
            object,
            field,
            place,
            problem,
            fix: fix.to_owned(),
            docs: docs(code),
        });
    }
}

/// Everything that was found, by file and line, each once.
#[must_use]
pub fn findings(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Findings::new(*evidence);
    values::look(&mut findings);
    rules::look(&mut findings);
    identity::look(&mut findings);
    peers::look(&mut findings);
    tokens::look(&mut findings);
    around::look(&mut findings);
    enrolment::look(&mut findings);
    let mut found = findings.found;
    found.sort_by(|a, b| {
        let order = |one: &Finding| (one.place.clone(), one.code, one.object.clone(), one.field.clone());
        order(a).cmp(&order(b)).then_with(|| a.cmp(b))
    });
    found.dedup();
    found
}

/// What an analysis found.
#[derive(Clone, Debug, Serialize)]
pub struct Analyzed {
    /// Policies that were looked at, faulty ones included.
    pub policies: usize,
    /// Workloads that were looked at.
    pub workloads: usize,
    /// Kinds of policies that the cluster does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_kinds: Vec<&'static str>,
    /// How many findings are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// How many are worth knowing.
    pub infos: usize,
    /// The findings, by file and line.
    pub findings: Vec<Finding>,
}

impl Analyzed {
    /// Everything that is found in the evidence, faults included.
    #[must_use]
    pub fn of(evidence: &Evidence<'_>, suppress: &[String]) -> Self {
        let faults = evidence.documents.faults();
        let faults = faults.iter().map(ShownFault::of).map(|fault| Finding {
            severity: Code::Faulty.severity(),
            code: Code::Faulty,
            object: fault
                .object
                .unwrap_or_else(|| "a document without a readable name".to_owned()),
            field: fault.field,
            place: Some(Place {
                file: fault.file,
                line: fault.line,
            }),
            problem: fault.problem,
            fix: fault.fix,
            docs: docs(Code::Faulty),
        });
        let mut all: Vec<Finding> = faults.chain(findings(evidence)).collect();
        all.retain(|finding| !suppress.iter().any(|code| code == finding.code.as_str()));
        let count = |severity| all.iter().filter(|one| one.severity == severity).count();
        Self {
            policies: evidence.documents.policies(),
            workloads: evidence.inventory.real().count(),
            missing_kinds: evidence.documents.missing_kinds.clone(),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            infos: count(Severity::Info),
            findings: all,
        }
    }
}

impl View for Analyzed {
    fn page(&self, page: &mut Page, _: UnixTime) {
        let tone = match (self.errors, self.warnings) {
            (0, 0) => Tone::Good,
            (0, _) => Tone::Warn,
            _ => Tone::Bad,
        };
        let Self {
            policies,
            workloads,
            errors,
            warnings,
            infos,
            ..
        } = self;
        page.line(Cell::new(
            format!(
                "policies {policies}, workloads {workloads}: errors {errors}, warnings {warnings}, infos {infos}"
            ),
            tone,
        ));
        if let Some(missing) = missing(&self.missing_kinds) {
            page.line(Cell::new(missing, Tone::Warn));
        }
        if *workloads == 0 {
            page.line("no workload was given, so what depends on pods and services was not looked at");
        }
        for finding in &self.findings {
            page.gap();
            finding.show(page);
        }
    }
}

pub(crate) async fn run(args: &AnalyzeArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    for code in &args.suppress {
        if !Code::ALL.iter().any(|known| known.as_str() == code) {
            return Err(Fault::Unanswered(format!(
                "--suppress {code}: there is no such code"
            )));
        }
    }
    let documents = Documents::read(Wanted {
        paths: &args.paths,
        kubeconfig: args.kubeconfig.as_deref(),
        namespace: args.mesh.namespace.as_deref(),
    })
    .await?;
    if documents.policies() == 0 {
        return Err(Fault::unanswered(
            "no policy was found, so there is nothing to analyze",
        ));
    }
    let (mesh, set, inventory) = (mesh(&args.mesh), set(&documents), Inventory::of(&documents));
    let evidence = Evidence {
        documents: &documents,
        set: &set,
        inventory: &inventory,
        mesh: &mesh,
        own: &args.mesh.trust_domain,
    };
    let analyzed = Analyzed::of(&evidence, &args.suppress);
    shell.show(&analyzed)?;
    Ok(if analyzed.errors + analyzed.warnings == 0 {
        Answer::Yes
    } else {
        Answer::No
    })
}
