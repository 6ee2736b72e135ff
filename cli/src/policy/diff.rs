//! `signet policy diff`: who gains and who loses access between two sets of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;
use signet_certs::UnixTime;
use signet_policy::PolicySet;

use super::documents::{Documents, Wanted, set};
use super::inventory::Inventory;
use super::judge::{Judge, Outcome, carried};
use super::literals::Maker;
use super::mesh::{judge, mesh};
use super::question::Question;
use crate::Shell;
use crate::args::PolicyDiffArgs;
use crate::fault::{Answer, Fault};
use crate::inputs::STDIN;

mod given;
mod page;
mod recorded;
mod requests;

use given::Counted;
use page::{answer, describe};
use recorded::Recorders;
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
    /// What the lines of `--requests` were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<Counted>,
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

    /// A token where proxies look for one is not to be asked about as if it were none.
    fn without_tokens(&self, asked: &Asked, questions: &[Question]) -> Result<(), Fault> {
        let sets = [self.old, self.new].map(|set| set.in_force(&asked.workload, self.judge.mesh).tokens);
        let heads = || questions.iter().filter_map(|question| question.http.as_ref());
        let mut places = sets
            .iter()
            .flat_map(|tokens| heads().filter_map(|http| carried(tokens, http)));
        places.next().map_or(Ok(()), |place| {
            Err(Fault::Unanswered(format!(
                "in a request to {}, {place} is where proxies look for a token; write its claims instead, as in \
                 \"claims\": {{\"iss\": \"…\", \"sub\": \"…\"}}",
                asked.name
            )))
        })
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
        let recorders = Recorders {
            inventory: &inventory,
            given: args.recorded_by.as_ref(),
            labels: args.labels.as_ref(),
        };
        let given = given::read(file, &inventory, &recorders)?;
        for (asked, questions) in &given.questions {
            names.insert(asked.name.clone());
            comparison.without_tokens(asked, questions)?;
            comparison.ask(asked, questions);
        }
        comparison.compared.given = Some(given.counted);
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
    let inputs = [Some(&args.old), Some(&args.new), args.requests.as_ref()];
    let of_stdin = inputs
        .into_iter()
        .flatten()
        .filter(|path| path.as_os_str() == STDIN);
    if of_stdin.count() > 1 {
        return Err(Fault::unanswered(
            "only one of OLD, NEW and --requests can be standard input",
        ));
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
