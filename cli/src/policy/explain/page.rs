//! An explanation as people read it.

use signet_certs::UnixTime;

use super::view::Explained;
use crate::print::{Cell, Page, Tone, View};

impl View for Explained {
    fn page(&self, page: &mut Page, _: UnixTime) {
        let (word, tone) = match (self.allowed, self.asks_first.is_empty()) {
            (true, true) => ("ALLOWED", Tone::Good),
            (true, false) => ("ALLOWED, if its providers agree", Tone::Warn),
            (false, _) => ("DENIED", Tone::Bad),
        };
        page.line(Cell::new(format!("{word}: {}", self.sentence), tone));
        self.facts(page);
        // A path that is refused never gets a form that policies could look at.
        if self.step != "path" {
            self.votes(page);
        }
        if !self.elsewhere.is_empty() {
            page.gap();
            page.heading("policies that do not reach it");
            for one in &self.elsewhere {
                page.line(format!("  {} {}", one.policy, one.because));
            }
        }
        for (heading, lines) in [
            ("what decides nothing would have said", &self.shadow),
            ("cannot be enforced here", &self.unenforceable),
            ("to know", &self.notes),
            ("to change it", &self.change),
        ] {
            if !lines.is_empty() {
                page.gap();
                page.heading(heading);
                lines.iter().for_each(|line| page.line(format!("  {line}")));
            }
        }
        if let Some(policy) = &self.policy {
            page.gap();
            policy.lines().for_each(|line| page.line(format!("    {line}")));
        }
    }
}

impl Explained {
    fn facts(&self, page: &mut Page) {
        let asked = &self.question;
        page.gap();
        page.fact(
            "from",
            asked.from.as_deref().unwrap_or("nobody that policies could name"),
        );
        let port = asked
            .port
            .map_or("any port".to_owned(), |port| format!("port {port}"));
        let labels: Vec<_> = asked
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let labels = if labels.is_empty() {
            "no labels".to_owned()
        } else {
            labels.join(",")
        };
        page.fact("to", format!("{}, {port}, {labels}", asked.to));
        self.request(page);
        let by = self
            .mutual_tls
            .by
            .as_ref()
            .map_or("the default".to_owned(), Clone::clone);
        page.fact("mutual TLS", format!("{} by {by}", self.mutual_tls.mode));
        page.fact("", self.mutual_tls.means);
        if let Some(by) = &self.decided_by {
            let place = by
                .place
                .as_ref()
                .map(|place| format!(" ({place})"))
                .unwrap_or_default();
            page.fact("decided by", format!("{} {}{place}", by.policy, by.field));
        }
        page.fact("caller gets", self.on_the_wire);
        page.fact("access log", format!("reason {}", self.access_reason));
        if !self.asks_first.is_empty() {
            page.fact("asks first", self.asks_first.join(", "));
        }
    }

    fn request(&self, page: &mut Page) {
        match &self.question.http {
            None => page.fact("asks", "for a connection"),
            Some(http) => {
                let path = http.normalized_path.as_deref().unwrap_or(&http.path);
                page.fact("asks", format!("{} {} of {}", http.method, path, http.host));
                if path != http.path {
                    page.fact("sent as", &*http.path);
                }
                if let Some(token) = &http.token {
                    page.fact("token", &**token);
                }
            }
        }
    }

    fn votes(&self, page: &mut Page) {
        page.gap();
        page.heading(match self.policies_asked {
            true => "what every policy says",
            false => "what every policy would say, had it come to that",
        });
        if self.votes.is_empty() {
            page.line("  nothing: no AuthorizationPolicy reaches the workload");
        }
        for vote in &self.votes {
            let dry = if vote.dry_run { " (dry run)" } else { "" };
            let says = match (vote.says, vote.rule) {
                ("matches", Some(rule)) => Cell::new(format!("rules[{rule}] matches"), Tone::Good),
                ("unreadable", _) => Cell::new("cannot be read", Tone::Bad),
                _ => Cell::from("does not match"),
            };
            page.fact(&format!("  {} {}{dry}", vote.action, vote.policy), says);
        }
        for vote in self.votes.iter().filter(|vote| !vote.because.is_empty()) {
            page.gap();
            let place = vote
                .place
                .as_ref()
                .map(|place| format!(" ({place})"))
                .unwrap_or_default();
            page.line(format!("  {}{place}", vote.policy));
            vote.because
                .iter()
                .for_each(|line| page.line(format!("    {line}")));
        }
    }
}
