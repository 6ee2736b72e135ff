//! `signet workload policies`: what the agent of a node sends to the proxies of its workloads, which of them has it
//! in force, and which policies cannot be read.

use signet_certs::UnixTime;

use super::NONE;
use crate::Shell;
use crate::admin::{Admin, NodePolicies, NodePolicy, PolicyStream, SourceHealth};
use crate::args::AdminArgs;
use crate::fault::{Answer, Fault};
use crate::print::{Cell, Page, Tone, View};

/// The state of a policy that is in force as it stands.
const SOUND: &str = "sound";
/// Characters of a version that tell it from others.
const VERSION_SHOWN: usize = 12;

impl NodePolicies {
    /// Whether everything is in force as it stands, everywhere.
    #[must_use]
    pub fn all_well(&self) -> bool {
        let sources = self.sources.values().all(|source| source.failure.is_none());
        let keys = self.key_sets.iter().flatten().all(|set| set.keys.is_some());
        self.synced
            && sources
            && keys
            && self.faulty().next().is_none()
            && self.proxies.iter().all(PolicyStream::has_all)
    }

    fn faulty(&self) -> impl Iterator<Item = &NodePolicy> {
        self.policies.iter().filter(|policy| policy.state != SOUND)
    }
}

impl PolicyStream {
    /// Whether it put in force what was sent last.
    fn has_all(&self) -> bool {
        self.version.is_some() && self.acked == self.version
    }

    fn row(&self) -> Vec<Cell> {
        let tone = match (self.has_all(), &self.last_nack) {
            (true, _) => Tone::Good,
            (false, None) => Tone::Warn,
            (false, Some(_)) => Tone::Bad,
        };
        let pid = self.pid.map_or_else(|| NONE.to_owned(), |pid| pid.to_string());
        vec![
            self.workload.as_deref().unwrap_or(NONE).into(),
            pid.into(),
            short(self.version.as_deref()).into(),
            Cell::new(short(self.acked.as_deref()), tone),
            match &self.last_nack {
                None => NONE.into(),
                // One that was got over is history.
                Some(nack) if self.has_all() => (&**nack).into(),
                Some(nack) => Cell::new(&**nack, Tone::Bad),
            },
        ]
    }
}

/// Enough of a version to tell it from others.
fn short(version: Option<&str>) -> &str {
    let version = version.unwrap_or(NONE);
    version
        .get(..version.floor_char_boundary(VERSION_SHOWN))
        .unwrap_or(version)
}

/// What stands in force in place of a policy that cannot be read.
fn effect(state: &str) -> &str {
    match state {
        "last_good" => "its last good version stays in force",
        "allows_nothing" => "it allows nothing",
        "denies_all" => "it denies everything in its scope",
        "strict" => "mutual TLS is demanded in its scope",
        "refuses_tokens" => "every token is refused in its scope",
        "nothing" => "nothing: it decides nothing",
        other => other,
    }
}

impl View for NodePolicies {
    fn page(&self, page: &mut Page, _: UnixTime) {
        page.fact("from", &*self.source);
        page.fact("root namespace", &*self.root_namespace);
        let faulty = self.faulty().count();
        let (words, tone) = match faulty {
            0 => (self.policies.len().to_string(), Tone::Plain),
            _ => (
                format!("{}, of which {faulty} cannot be read", self.policies.len()),
                Tone::Bad,
            ),
        };
        page.fact("policies", Cell::new(words, tone));
        sources(self, page);
        if !self.synced {
            let words = "not everything is known yet, and nothing is sent before";
            page.line(Cell::new(words, Tone::Bad));
        }
        proxies(self, page);
        for policy in self.faulty() {
            page.gap();
            let words = format!("cannot be read: {} ({})", policy.policy, policy.origin);
            page.line(Cell::new(words, Tone::Bad));
            page.fact("  in force instead", effect(&policy.state));
            for wrong in &policy.faults {
                page.fact("  wrong", &**wrong);
            }
        }
        key_sets(self, page);
    }
}

fn sources(policies: &NodePolicies, page: &mut Page) {
    let failing = |(name, source): (&String, &SourceHealth)| {
        let (reason, error) = source.failure.as_ref()?;
        Some(format!("{name}: {reason}: {error}; what is known stays"))
    };
    let absent = |(name, source): (&String, &SourceHealth)| {
        (source.state == "absent").then(|| format!("{name}: the API server does not have this kind"))
    };
    for words in policies.sources.iter().filter_map(failing) {
        page.fact("no news", Cell::new(words, Tone::Warn));
    }
    for words in policies.sources.iter().filter_map(absent) {
        page.fact("absent", words);
    }
}

fn proxies(policies: &NodePolicies, page: &mut Page) {
    page.gap();
    if policies.proxies.is_empty() {
        page.line("no proxy asks for policies");
        return;
    }
    let headings = ["workload", "process", "sent", "in force", "last refused"];
    page.table(
        &headings,
        policies.proxies.iter().map(PolicyStream::row).collect(),
    );
}

fn key_sets(policies: &NodePolicies, page: &mut Page) {
    let sets = policies.key_sets.as_deref().unwrap_or_default();
    if sets.is_empty() {
        return;
    }
    page.gap();
    let rows = sets.iter().map(|set| {
        let keys = match set.keys {
            Some(keys) => keys.to_string().into(),
            None => Cell::new("none ever: its tokens are refused", Tone::Bad),
        };
        let failure = set.failure.as_deref().map(|text| Cell::new(text, Tone::Warn));
        vec![
            (&*set.address).into(),
            keys,
            failure.unwrap_or_else(|| NONE.into()),
        ]
    });
    page.table(&["key set", "keys", "last failure"], rows.collect());
}

pub(crate) async fn run(args: &AdminArgs, shell: &mut Shell) -> Result<Answer, Fault> {
    let policies = Admin::at(&args.admin).policies().await?;
    shell.show(&policies)?;
    Ok(match policies.all_well() {
        true => Answer::Yes,
        false => Answer::No,
    })
}
