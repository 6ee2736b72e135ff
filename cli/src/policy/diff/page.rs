//! What a comparison looks like to people.

use signet_certs::UnixTime;

use super::super::judge::Outcome;
use super::super::question::{Addresses, Question, Token};
use super::Compared;
use crate::print::{Cell, Page, Tone, View};

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
        if let Some(given) = &self.given {
            let (asked, skipped) = (given.asked(), given.skipped());
            page.line(format!("requests given: {asked}; {skipped}"));
        }
        for (word, count) in [("old", self.old_faulty), ("new", self.new_faulty)] {
            if count > 0 {
                let text = format!(
                    "{count} documents of {word} cannot be read and count as the strictest they could be"
                );
                page.line(Cell::new(text, Tone::Warn));
            }
        }
        self.changes(page);
    }
}

impl Compared {
    fn changes(&self, page: &mut Page) {
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

/// A question without values of headers. Claims are made up or given by the operator for this very purpose.
pub(super) fn describe(question: &Question) -> String {
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
        Token::Of(principal) => words.push(format!("with a token of {principal}")),
    }
    if question.addresses != Addresses::default() {
        words.push(format!("from {}", question.addresses.source));
    }
    words.join(" ")
}

pub(super) fn answer(outcome: &Outcome, http: bool) -> String {
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
