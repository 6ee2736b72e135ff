//! `signet policy explain`: the answer to one question, who decided it, what every other policy said, and what
//! to change.

use signet_policy::model::{Attribute, Mode, Object};
use signet_policy::scope::Role;
use signet_policy::{InForce, PolicySet, Workload};

use super::documents::{Documents, Wanted, set};
use super::inventory::Inventory;
use super::judge::{Judge, Ruled, carried};
use super::mesh::{judge, mesh};
use super::question::{Addresses, Http, Question, Token};
use crate::Shell;
use crate::args::PolicyExplainArgs;
use crate::fault::{Answer, Fault};
use crate::inputs;

pub mod advice;
mod page;
pub mod view;

use view::Explained;

/// All that an explanation is made of.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// Where policies stand.
    pub documents: &'a Documents,
    /// All of them.
    pub set: &'a PolicySet,
    /// Who is asked.
    pub workload: &'a Workload,
    /// Its name, which policies do not look at.
    pub name: &'a str,
    /// What is in force for it.
    pub in_force: &'a InForce,
    /// Who judges.
    pub judge: Judge<'a>,
    /// What is asked.
    pub question: &'a Question,
    /// The answer.
    pub ruled: &'a Ruled,
}

pub(crate) async fn run(args: &PolicyExplainArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let token = token(args)?;
    let documents = Documents::read(Wanted {
        paths: &args.policies,
        kubeconfig: args.kubeconfig.as_deref(),
        namespace: args.mesh.namespace.as_deref(),
    })
    .await?;
    let explained = explain(args, &documents, token, shell.now())?;
    shell.show(&explained)?;
    Ok(if explained.allowed {
        Answer::Yes
    } else {
        Answer::No
    })
}

/// The explanation that `args` ask for.
///
/// # Errors
/// [`Fault::Unanswered`] where the answer depends on what was not said.
pub fn explain(
    args: &PolicyExplainArgs,
    documents: &Documents,
    token: Token,
    now: signet_certs::UnixTime,
) -> Result<Explained, Fault> {
    let inventory = Inventory::of(documents);
    let mut notes: Vec<String> = documents.missing().into_iter().collect();
    let workload = workload(args, &inventory, &mut notes);
    let mesh = mesh(&args.mesh);
    let judge = judge(&args.mesh, &mesh, now);
    let set = set(documents);
    let in_force = set.in_force(&workload, &mesh);
    let port = port(args, &inventory)?;
    let question = question(args, token, port.unwrap_or(0));
    let place = question
        .http
        .as_ref()
        .and_then(|http| carried(&in_force.tokens, http));
    if let Some(place) = place {
        return Err(Fault::Unanswered(format!(
            "{place} is where proxies of this workload look for a token; give the token by --jwt-file FILE (\"-\" is \
             standard input), or its claims by --claims, and leave it out there"
        )));
    }
    if port.is_none() {
        ports_matter(&set, &workload, &judge, &in_force)?;
    }
    let ruled = judge.rule(&in_force, &question);
    let case = Case {
        documents,
        set: &set,
        workload: &workload,
        name: &args.to.name,
        in_force: &in_force,
        judge,
        question: &question,
        ruled: &ruled,
    };
    Ok(Explained::of(case, notes))
}

fn token(args: &PolicyExplainArgs) -> Result<Token, Fault> {
    Ok(match (&args.request.http.jwt_file, &args.request.claims) {
        (Some(file), _) => Token::Jwt(inputs::token(file, "token")?),
        (None, Some(claims)) => Token::Claims(claims.clone()),
        (None, None) => Token::None,
    })
}

/// The workload, with the labels that were given or that stand in the documents.
fn workload(args: &PolicyExplainArgs, inventory: &Inventory, notes: &mut Vec<String>) -> Workload {
    let (namespace, name) = (&args.to.namespace, &args.to.name);
    let labels = match (&args.labels, inventory.workload(namespace, name)) {
        (Some(labels), _) => labels.clone(),
        (None, Some(known)) => {
            notes.push(format!(
                "labels are those of {} at {}",
                known.meta.name, known.meta.place
            ));
            known.meta.labels.clone()
        }
        (None, None) => {
            notes.push(format!(
                "no labels of {namespace}/{name} are known, so no policy with a selector reaches it; pass \
                 --labels app={name}, or give the file with the workload too"
            ));
            std::collections::BTreeMap::new()
        }
    };
    Workload {
        namespace: namespace.clone(),
        labels,
        role: Role::Sidecar,
    }
}

/// The port that is meant: the one that was given, or the only one of the workload.
fn port(args: &PolicyExplainArgs, inventory: &Inventory) -> Result<Option<u16>, Fault> {
    if args.to.port.is_some() {
        return Ok(args.to.port);
    }
    let Some(known) = inventory.workload(&args.to.namespace, &args.to.name) else {
        return Ok(None);
    };
    let ports: Vec<u16> = inventory.ports(known).into_keys().collect();
    match ports.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        many => Err(Fault::Unanswered(format!(
            "{}/{} has ports {}; say which, as in --to {}/{}:{}",
            args.to.namespace,
            args.to.name,
            joined(many),
            args.to.namespace,
            args.to.name,
            many.first().copied().unwrap_or_default(),
        ))),
    }
}

/// Without a port there is an answer only where no policy speaks of ports.
fn ports_matter(
    set: &PolicySet,
    workload: &Workload,
    judge: &Judge<'_>,
    in_force: &InForce,
) -> Result<(), Fault> {
    let mut ports: Vec<u16> = in_force.peers.ports().map(|(port, _)| port).collect();
    let elsewhere: Vec<_> = set
        .out_of_scope(workload, judge.mesh)
        .map(|(object, _)| object.key())
        .collect();
    for object in set.objects().filter(|object| !elsewhere.contains(&object.key())) {
        if let Object::Authorization(policy) = &**object {
            let terms = policy.rules.iter().flat_map(signet_policy::model::Rule::terms);
            for term in terms.filter(|term| term.attribute == Attribute::DestinationPort) {
                if let signet_policy::model::Values::Ports(named) = &term.values {
                    ports.extend(named);
                }
            }
        }
    }
    ports.sort_unstable();
    ports.dedup();
    match ports.first() {
        None => Ok(()),
        Some(first) => Err(Fault::Unanswered(format!(
            "policies of this workload speak of ports {}; say which is meant, as in --to NAMESPACE/WORKLOAD:{first}",
            joined(&ports)
        ))),
    }
}

fn joined(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn question(args: &PolicyExplainArgs, token: Token, port: u16) -> Question {
    let request = &args.request;
    let host = || format!("{}.{}", args.to.name, args.to.namespace);
    let http = (!request.tcp).then(|| Http {
        method: request.http.method.clone(),
        path: request.http.path.clone(),
        host: request.http.host.clone().unwrap_or_else(host),
        headers: request.http.header.clone(),
    });
    let usual = Addresses::default();
    let source = args.source_ip.unwrap_or(usual.source);
    Question {
        caller: args.from.clone(),
        port,
        addresses: Addresses {
            source,
            remote: args.remote_ip.unwrap_or(source),
            destination: args.destination_ip.unwrap_or(usual.destination),
        },
        sni: args.sni.clone(),
        http,
        token,
    }
}

/// What the mode of a port means for a caller.
fn means(mode: Mode, mutual: bool) -> &'static str {
    match (mode, mutual) {
        (Mode::Strict, true) => "mutual TLS only; this caller has it, and policies see who it is",
        (Mode::Strict, false) => {
            "mutual TLS only; this caller has none and is reset before any policy is asked"
        }
        (Mode::Permissive, true) => {
            "mutual TLS and plaintext; this caller has mutual TLS, and policies see who it is"
        }
        (Mode::Permissive, false) => {
            "mutual TLS and plaintext; this caller has no identity that policies could see"
        }
        (Mode::Disable, true) => "plaintext only; whoever this caller is, policies do not see it",
        (Mode::Disable, false) => "plaintext only; policies see no identity",
    }
}
