//! `signet proxy policies`, for people.

use signet_runtime::UnixTime;

use super::NONE;
use super::wire::{InForce, Policies, PolicySource, Ruling, Unenforceable};
use crate::print::{Cell, Page, Tone, View};

impl View for Policies {
    fn page(&self, page: &mut Page, now: UnixTime) {
        self.source.facts(page, now);
        match &self.in_force {
            None => page.line(Cell::new(
                "no policies yet: the proxy is not ready, and refuses every connection",
                Tone::Bad,
            )),
            Some(in_force) => in_force.show(page),
        }
        for fault in &self.source.faults {
            page.gap();
            page.line(Cell::new(
                format!("cannot be read: {} ({})", fault.policy, fault.origin),
                Tone::Bad,
            ));
            page.fact("  in force instead", &*fault.state);
            for wrong in &fault.faults {
                page.fact("  wrong", &**wrong);
            }
        }
    }
}

impl PolicySource {
    fn facts(&self, page: &mut Page, now: UnixTime) {
        let from = match self.source.as_str() {
            "agent" => "the agent",
            "files" => "a directory",
            other => other,
        };
        page.fact("from", from);
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let namespace = self.namespace.as_deref().unwrap_or(NONE);
        let labels = if labels.is_empty() {
            "no labels".to_owned()
        } else {
            labels.join(",")
        };
        page.fact("workload", format!("namespace {namespace}, {labels}"));
        let since = self
            .since
            .map_or_else(|| NONE.to_owned(), |since| since.words(now));
        page.fact("version", self.version.as_deref().unwrap_or(NONE));
        page.fact("in force since", since);
        if let Some(failure) = &self.failure {
            let words = format!("{}: {}; what is in force stays", failure.reason, failure.error);
            page.fact("no news", Cell::new(words, Tone::Warn));
        }
    }
}

impl InForce {
    fn show(&self, page: &mut Page) {
        page.gap();
        page.heading("mutual TLS");
        let rows = self
            .mutual_tls
            .ports
            .iter()
            .map(|(port, one)| ruling(&format!("port {port}"), one));
        let all = std::iter::once(ruling("every other port", &self.mutual_tls.workload));
        page.table(&["of", "mode", "by"], rows.chain(all).collect());
        page.gap();
        page.heading("authorization");
        if self.policies.is_empty() {
            page.line("no policy: everybody who passes mutual TLS may do everything");
        }
        for policy in &self.policies {
            page.line(&**policy);
        }
        if !self.token_issuers.is_empty() {
            let issuers = self.token_issuers.iter();
            let issuers: Vec<&str> = issuers.map(|one| one.as_deref().unwrap_or("any")).collect();
            page.fact("tokens judged of", issuers.join(", "));
        }
        if let Some(ports) = &self.tokens_unenforceable_on {
            let words = format!("tokens are not looked at {}: it is not HTTP", on(ports));
            page.line(Cell::new(words, Tone::Warn));
        }
        if !self.unenforceable.is_empty() {
            page.gap();
            page.heading("cannot be enforced as it stands");
            let rows = self.unenforceable.iter().map(Unenforceable::row);
            page.table(&["policy", "rule", "field", "where", "counts as"], rows.collect());
        }
    }
}

fn ruling(of: &str, ruling: &Ruling) -> Vec<Cell> {
    let tone = match ruling.mode.as_str() {
        "STRICT" => Tone::Good,
        _ => Tone::Warn,
    };
    let by = ruling.by.as_deref().unwrap_or("default");
    vec![of.into(), Cell::new(&*ruling.mode, tone), by.into()]
}

/// These ports; none for all.
fn on(ports: &[u16]) -> String {
    match ports {
        [] => "on any port".to_owned(),
        [port] => format!("on port {port}"),
        ports => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!("on ports {}", ports.join(", "))
        }
    }
}

impl Unenforceable {
    fn row(&self) -> Vec<Cell> {
        let place = match &self.ports[..] {
            _ if self.everywhere => "everywhere".to_owned(),
            [] => "on ports without HTTP".to_owned(),
            ports => format!("{}, without HTTP", on(ports)),
        };
        let counts_as = if self.never_matches {
            "a rule that matches nothing"
        } else {
            "matched"
        };
        vec![
            (&*self.policy).into(),
            self.rule.to_string().into(),
            (&*self.field).into(),
            place.into(),
            Cell::new(counts_as, Tone::Warn),
        ]
    }
}
