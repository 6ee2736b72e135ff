//! `signet policy diff`: who gains and who loses access between two sets of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;
use signet_certs::UnixTime;
use signet_policy::PolicySet;

use super::documents::{Documents, Wanted, set};
use super::inventory::Inventory;
use super::judge::{Judge, Outcome};
use super::literals::Maker;
use super::mesh::{judge, mesh};
use super::question::{Question, Token};
use crate::Shell;
use crate::args::PolicyDiffArgs;
use crate::fault::{Answer, Fault};
use crate::inputs::STDIN;
use crate::print::{Cell, Page, Tone, View};

mod requests;

use requests::{Asked, MAX_WORKLOADS};

/// Requests that are shown of one caller at one workload.
const EXAMPLES: usize = 3;

/// What changes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compared {
    /// Whether anybody gains or loses access, or has to ask somebody else.
    pub changed: bool,
    /// Questions that were put to both sets.
    pub asked: usize,
    /// Whether every question was put that there is; if not, `--most` or the bound on workloads cut some off.
    pub complete: bool,
    /// Workloads that were asked.
    pub workloads: usize,
    /// Workloads among them that the same policies reach in both sets, so that there is nothing to ask.
    pub same_policies: usize,
    /// Policies of the old set that cannot be read, and count as the strictest they could be.
    pub old_faulty: usize,
    /// The same of the new set.
    pub new_faulty: usize,
    /// Who gains access.
    pub gained: Vec<Change>,
    /// Who loses it.
    pub lost: Vec<Change>,
    /// For whom other providers are asked.
    pub asks_others: Vec<Change>,
}

/// What changes for one caller at one workload.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The workload.
    pub to: String,
    /// The caller.
    pub from: String,
    /// How many of the questions.
    pub requests: usize,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// One question and both answers.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// What was asked.
    pub request: String,
    /// What the old set says.
    pub old: String,
    /// What the new set says.
    pub new: String,
}

type Changes = BTreeMap<(String, String), Change>;

/// Both sets, being asked.
struct Comparison<'a> {
    judge: Judge<'a>,
    old: &'a PolicySet,
    new: &'a PolicySet,
    compared: Compared,
    gained: Changes,
    lost: Changes,
    asks_others: Changes,
}

impl Comparison<'_> {
    fn ask(&mut self, asked: &Asked, questions: &[Question]) {
        let old = self.old.in_force(&asked.workload, self.judge.mesh);
        let new = self.new.in_force(&asked.workload, self.judge.mesh);
        for question in questions {
            self.compared.asked += 1;
            let before = self.judge.rule(&old, question).outcome;
            let after = self.judge.rule(&new, question).outcome;
            self.note((asked, question), &before, &after);
        }
    }

    /// Asks what the policies of each workload speak of. Where these are the same in both sets, so are the answers.
    fn make_up(&mut self, workloads: &[Asked], maker: &Maker, most: usize) {
        let certain = self.compared.old_faulty + self.compared.new_faulty == 0;
        let objects = |asked: &Asked| {
            let of = |set| requests::in_scope(set, &asked.workload, self.judge.mesh);
            (of(self.old), of(self.new))
        };
        let scopes: Vec<_> = workloads.iter().map(|asked| (asked, objects(asked))).collect();
        let (same, differ): (Vec<_>, Vec<_>) = scopes
            .into_iter()
            .partition(|(_, (old, new))| certain && old == new);
        self.compared.same_policies = same.len();
        self.compared.complete = differ.len() <= MAX_WORKLOADS;
        let share = (most / differ.len().clamp(1, MAX_WORKLOADS)).max(1);
        for (asked, (mut objects, new)) in differ.into_iter().take(MAX_WORKLOADS) {
            objects.extend(new);
            let (questions, more) = requests::made_up(maker, &objects, &asked.ports, share);
            self.compared.complete &= !more;
            self.ask(asked, &questions);
        }
    }

    fn note(&mut self, (asked, question): (&Asked, &Question), before: &Outcome, after: &Outcome) {
        let changes = match (before, after) {
            (Outcome::Refused(_), Outcome::Allowed { .. }) => &mut self.gained,
            (Outcome::Allowed { .. }, Outcome::Refused(_)) => &mut self.lost,
            (Outcome::Allowed { asks: old, .. }, Outcome::Allowed { asks: new, .. }) if old != new => {
                &mut self.asks_others
            }
            _ => return,
        };
        let from = caller(question, &self.judge);
        let key = (asked.name.clone(), from.clone());
        let change = changes.entry(key).or_insert_with(|| Change {
            to: asked.name.clone(),
            from,
            requests: 0,
            examples: Vec::new(),
        });
        change.requests += 1;
        let request = describe(question);
        if change.examples.len() < EXAMPLES && !change.examples.iter().any(|one| one.request == request) {
            let http = question.http.is_some();
            change.examples.push(Example {
                request,
                old: answer(before, http),
                new: answer(after, http),
            });
        }
    }

    fn finish(self) -> Compared {
        let list = |changes: Changes| changes.into_values().collect::<Vec<_>>();
        let (gained, lost, asks_others) = (list(self.gained), list(self.lost), list(self.asks_others));
        Compared {
            changed: !(gained.is_empty() && lost.is_empty() && asks_others.is_empty()),
            gained,
            lost,
            asks_others,
            ..self.compared
        }
    }
}

fn caller(question: &Question, judge: &Judge<'_>) -> String {
    let id = question.caller.id(judge.own);
    id.map_or("plaintext".to_owned(), |id| {
        id.as_str().trim_start_matches("spiffe://").to_owned()
    })
}

/// A question without values of headers. Claims are made up or given by the operator for this very purpose.
fn describe(question: &Question) -> String {
    let mut words = match &question.http {
        None => vec!["a connection".to_owned()],
        Some(http) => vec![
            http.method.clone(),
            http.path.clone(),
            format!("of {}", http.host),
        ],
    };
    words.push(format!("on port {}", question.port));
    for (name, _) in question.http.iter().flat_map(|http| &http.headers) {
        words.push(format!("with {name}"));
    }
    match &question.token {
        Token::None => {}
        Token::Jwt(_) => words.push("with a token".to_owned()),
        Token::Claims(claims) => {
            let claims = serde_json::Value::Object(claims.clone());
            words.push(format!("with a token of {claims}"));
        }
    }
    if question.addresses != super::question::Addresses::default() {
        words.push(format!("from {}", question.addresses.source));
    }
    words.join(" ")
}

fn answer(outcome: &Outcome, http: bool) -> String {
    let wire = outcome.on_the_wire(http);
    match outcome {
        Outcome::Allowed { by: Some(by), asks } => {
            format!("allowed by {} {}{}", by.policy, by.path(), after(asks))
        }
        Outcome::Allowed { by: None, asks } => format!("allowed, by no policy{}", after(asks)),
        Outcome::Refused(refusal) => format!("{wire}: {}", refusal.sentence),
    }
}

fn after(asks: &[String]) -> String {
    match asks {
        [] => String::new(),
        some => format!(", if {} agrees", some.join(" and ")),
    }
}

impl View for Compared {
    fn page(&self, page: &mut Page, _: UnixTime) {
        let tone = match (self.gained.len(), self.changed) {
            (_, false) => Tone::Good,
            (0, true) => Tone::Warn,
            _ => Tone::Bad,
        };
        let verdict = if self.changed {
            "access changes"
        } else {
            "nobody gains or loses access"
        };
        page.line(Cell::new(verdict, tone));
        let bound = if self.complete {
            ""
        } else {
            "; there are more, see --most"
        };
        page.line(format!(
            "{} workloads, {} of them with the same policies in both; asked both {} questions{bound}",
            self.workloads, self.same_policies, self.asked
        ));
        for (word, count) in [("old", self.old_faulty), ("new", self.new_faulty)] {
            if count > 0 {
                let text = format!(
                    "{count} documents of {word} cannot be read and count as the strictest they could be"
                );
                page.line(Cell::new(text, Tone::Warn));
            }
        }
        for (heading, changes) in [
            ("gains access", &self.gained),
            ("loses access", &self.lost),
            ("other providers are asked", &self.asks_others),
        ] {
            for change in changes {
                page.gap();
                page.heading(format!(
                    "{heading}: {} to {} ({})",
                    change.from,
                    change.to,
                    requests(change.requests)
                ));
                for example in &change.examples {
                    page.line(format!("  {}", example.request));
                    page.line(format!("    old: {}", example.old));
                    page.line(format!("    new: {}", example.new));
                }
            }
        }
    }
}

fn requests(count: usize) -> String {
    match count {
        1 => "1 request".to_owned(),
        many => format!("{many} requests"),
    }
}

/// The answer to a comparison.
///
/// # Errors
/// [`Fault::Unanswered`] with what cannot be read.
pub fn compare(
    args: &PolicyDiffArgs,
    (old, new): (&Documents, &Documents),
    now: UnixTime,
) -> Result<Compared, Fault> {
    let mesh = mesh(&args.mesh);
    let (old_set, new_set) = (set(old), set(new));
    let mut inventory = Inventory::of(new);
    if inventory.workloads.is_empty() {
        inventory = Inventory::of(old);
    }
    let mut comparison = Comparison {
        judge: judge(&args.mesh, &mesh, now),
        old: &old_set,
        new: &new_set,
        compared: Compared {
            complete: true,
            old_faulty: old_set.outstanding().count(),
            new_faulty: new_set.outstanding().count(),
            ..Compared::default()
        },
        gained: Changes::new(),
        lost: Changes::new(),
        asks_others: Changes::new(),
    };
    let mut names = BTreeSet::new();
    if let Some(file) = &args.requests {
        for (asked, question) in requests::read(file, &inventory)? {
            names.insert(asked.name.clone());
            comparison.ask(&asked, &[question]);
        }
    }
    if !args.only_requests {
        let sets = [&old_set, &new_set];
        let workloads = requests::workloads(&inventory, &sets, &args.mesh.root_namespace);
        names.extend(workloads.iter().map(|asked| asked.name.clone()));
        comparison.make_up(&workloads, &Maker::new(&args.mesh.trust_domain, &sets), args.most);
    }
    comparison.compared.workloads = names.len();
    Ok(comparison.finish())
}

pub(crate) async fn run(args: &PolicyDiffArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    if [&args.old, &args.new]
        .iter()
        .all(|path| path.as_os_str() == STDIN)
    {
        return Err(Fault::unanswered("OLD and NEW cannot both be standard input"));
    }
    let old = read(&args.old, args).await?;
    let new = read(&args.new, args).await?;
    if old.policies() + new.policies() == 0 {
        return Err(Fault::unanswered(
            "no policy was found on either side, so there is nothing to compare",
        ));
    }
    let compared = compare(args, (&old, &new), shell.now())?;
    shell.show(&compared)?;
    match (compared.changed, compared.complete) {
        (true, _) => Ok(Answer::No),
        (false, true) => Ok(Answer::Yes),
        (false, false) => Err(Fault::unanswered(
            "no change was found among the questions that were asked, and there are more; raise --most, or name \
             the requests that matter by --requests",
        )),
    }
}

async fn read(path: &PathBuf, args: &PolicyDiffArgs) -> Result<Documents, Fault> {
    Documents::read(Wanted {
        paths: std::slice::from_ref(path),
        kubeconfig: None,
        namespace: args.mesh.namespace.as_deref(),
    })
    .await
}
