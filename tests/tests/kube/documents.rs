//! The documents say what is so: keys and defaults, metrics, links, and commands that are run.

mod commands;
mod spiffe;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use signet_tests::dir::files_below;
use signet_tests::kube::manifests::{repository, text};

use crate::manifests::printed;
use crate::registered::{mentioned, metrics};

/// Every document for people, by its path below the repository. The README comes first: its commands
/// make files that others show.
fn documents() -> Vec<PathBuf> {
    let root = repository();
    let below = files_below(&root.join("docs"))
        .into_iter()
        .map(|path| path.strip_prefix(&root).unwrap().to_owned())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let own = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from);
    own.into_iter().chain(below).collect()
}

/// The anchors of a document: of its headings, as GitHub makes them, and those written out in tables.
pub(crate) fn anchors(text: &str) -> BTreeSet<String> {
    let written = text.split("<a id=\"").skip(1);
    let written = written.filter_map(|rest| rest.split('"').next().map(str::to_owned));
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .chain(written)
        .collect()
}

/// The targets of the links in a document.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for document in documents() {
        let source = text(&document);
        for link in links(&source) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap_or(Path::new("")).join(path)
            };
            assert!(
                repository().join(&target).exists(),
                "{}: {link}",
                document.display()
            );
            let found = anchor.is_empty() || anchors(&text(&target)).contains(anchor);
            assert!(found, "{}: {link} has no such heading", document.display());
        }
    }
}

/// Rows of the tables below a heading: their cells.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = document
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        line.trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().to_owned())
            .collect()
    })
    .collect()
}

/// A value as the documents write it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Keys with dots between levels. A map whose keys are the operator's own is one key.
fn flat(values: &Value) -> Map<String, Value> {
    let mut keys = Map::new();
    for (key, value) in values.as_object().unwrap() {
        match value {
            Value::Object(_) if !["extra_dns_names", "labels"].contains(&key.as_str()) => {
                keys.extend(
                    flat(value)
                        .into_iter()
                        .map(|(inner, value)| (format!("{key}.{inner}"), value)),
                );
            }
            _ => drop(keys.insert(key.clone(), value.clone())),
        }
    }
    keys
}

#[test]
fn every_key_of_both_programs_is_documented_with_its_default_and_no_other() {
    let document = text("docs/configuration.md");
    let full: [(&str, &str, &[&str]); 3] = [
        (
            "signet-ca",
            "state_secret: a/b\n",
            &[
                "state_directory: /s\nkubeconfig: /k\nplugged_in_ca: /p\nextra_dns_names: {a/b: [c.test]}\n",
                "state_directory: /s\njwt_svid: {issuer: 'https://i.test', key_file: /k}\noidc_listen: '[::1]:1'\n",
                "state_directory: /s\nbundle_endpoint: {listen: '[::1]:1', profile: https_web, \
                 certificate_file: /c, key_file: /k}\n",
            ],
        ),
        (
            "signet-agent",
            "",
            &[
                "output: {directory: /o, on_change: [c]}\n",
                "output: {directory: /o, signal: {pid_file: /p, name: SIGHUP}}\n",
                "attestor: unix\nworkloads: [{service_account: a/b, uid: 1}]\n",
                "attestor: kubernetes\nnode_name: n\npod_uid: u\nkubeconfig: /k\n",
                "attestor: kubernetes\nnode_name: n\npolicies: {source: kubernetes}\n",
                "attestor: unix\nworkloads: [{service_account: a/b, uid: 1}]\n\
                 policies: {source: directory, directory: /d, jwt: {ca_file: /c}}\n",
            ],
        ),
        (
            "signet-proxy",
            "policies: agent\n",
            &[
                "policies: {directory: /p, namespace: a, labels: {app: b}}\n\
                 workload: {name: w, namespace: n, service: s, app: a, version: v, cluster: c}\n",
                "policies: agent\ncapture: {inbound: '[::1]:1', outbound: '[::1]:2', http_ports: [80], \
                 terminate_ports: [81]}\n",
                "policies: agent\nprobes: {checks: [{path: /a, tcp: {port: 1}}]}\n",
                "policies: agent\nadmin_socket: /a/admin.sock\n",
                "policies: {directory: /p, namespace: a}\njwt: {ca_file: /c}\n",
                "policies: agent\nlimits: {http: {total: 1m, body_bytes: 1}}\n",
            ],
        ),
    ];
    for (program, least, others) in full {
        let defaults = flat(&printed(program, least));
        let mut keys: BTreeSet<String> = defaults.keys().cloned().collect();
        keys.extend(others.iter().flat_map(|config| {
            flat(&printed(program, config))
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        }));
        let rows = rows(&document, program);
        let documented: BTreeSet<String> = rows
            .iter()
            .map(|cells| cells[0].trim_matches('`').to_owned())
            .collect();
        assert_eq!(documented, keys, "{program}");
        for cells in &rows {
            let (key, default) = (cells[0].trim_matches('`'), &cells[1]);
            assert!(
                cells.len() >= 4 && cells[3].len() > 10,
                "{key}: who turns it, and what do they see?"
            );
            if let (Some(stated), Some(real)) = (default.strip_prefix('`'), defaults.get(key)) {
                let stated = stated.split('`').next().unwrap();
                let real = shown(real);
                assert_eq!(stated, real, "{program}: default of {key}");
            }
        }
    }
}

#[test]
fn every_metric_is_documented_and_no_other_is_spoken_of() {
    let telemetry = text("docs/telemetry.md");
    let mut known = BTreeSet::new();
    for metric in metrics() {
        known.extend(metric.samples());
        let name = metric.documented();
        assert!(
            telemetry.contains(&format!("| `{name}`")),
            "docs/telemetry.md has no row for {name}"
        );
        known.insert(name);
    }
    for document in documents() {
        for name in mentioned(&text(&document)) {
            assert!(
                known.contains(&name),
                "{}: there is no metric {name}",
                document.display()
            );
        }
    }
}

/// Words in quotes, such as the outcomes and reasons among which a program chooses.
fn quoted(code: &str) -> impl Iterator<Item = &str> {
    let is_word = |text: &&str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    code.split('"').skip(1).step_by(2).filter(is_word)
}

#[test]
fn every_outcome_of_the_ca_is_spelled_out() {
    let telemetry = text("docs/telemetry.md");
    for (file, begins) in [
        ("ca-server/src/metrics.rs", "fn start_at_zero("),
        ("ca-server/src/metrics/trust.rs", "fn start_at_zero("),
        ("ca-server/src/service/refusal.rs", "fn as_str("),
        ("ca-server/src/shares.rs", "fn as_str("),
        ("ca-server/src/jwt_service.rs", "fn as_str("),
        ("ca-server/src/jwt_rotation.rs", "fn as_str("),
        ("ca-server/src/federation/poll.rs", "fn as_str("),
        ("ca-server/src/authn.rs", "fn as_str("),
        ("ca-server/src/authn/claims.rs", "fn as_str("),
        ("ca-server/src/authn/review.rs", "fn as_str("),
        ("ca-server/src/listener.rs", "async fn handshake("),
        ("ca-server/src/listener.rs", "fn tls_reason("),
        ("policy/src/issuance.rs", "fn as_str("),
        ("proxy/src/access_log/reason.rs", "impl Reason {"),
        ("proxy/src/access_log/reason.rs", "impl Tls {"),
        ("proxy/src/access_log/reason.rs", "impl Policy {"),
        ("proxy/src/access_log/reason.rs", "impl Upstream {"),
    ] {
        let code = text(file);
        let (_, rest) = code
            .split_once(begins)
            .unwrap_or_else(|| panic!("{file} has no {begins}"));
        // A function ends with its brace, at the depth of a method or of a function.
        let body = rest
            .split("\n    }\n\n")
            .next()
            .and_then(|rest| rest.split("\n}\n").next())
            .unwrap();
        let mut words = quoted(body).peekable();
        assert!(words.peek().is_some(), "{file}: {begins} has no words");
        for word in words {
            assert!(
                telemetry.contains(&format!("`{word}`")),
                "docs/telemetry.md does not say what {word} of {file} means"
            );
        }
    }
}

#[test]
fn every_field_of_a_log_event_is_in_the_list() {
    let telemetry = text("docs/telemetry.md");
    let listed: BTreeSet<String> = rows(&telemetry, "Log fields")
        .iter()
        .map(|c| c[0].trim_matches('`').to_owned())
        .collect();
    let sources = ["ca-server/src", "agent/src", "proxy/src", "runtime/src"]
        .map(|folder| files_below(&repository().join(folder)));
    for file in sources.iter().flatten() {
        let code = std::fs::read_to_string(file).unwrap();
        for level in ["error", "warn", "info", "debug"] {
            for call in code.split(&format!("tracing::{level}!(")).skip(1) {
                for field in fields(call) {
                    assert!(
                        listed.contains(&field),
                        "{}: field {field} is in no list",
                        file.display()
                    );
                }
            }
        }
    }
}

/// The names of the fields of one event, given what follows its opening parenthesis.
fn fields(call: &str) -> Vec<String> {
    let mut depth = 0i32;
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in call.chars() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted && depth == 0 => break,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    let named = parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty() && !part.starts_with('"'));
    named
        .filter(|part| !part.starts_with("target:"))
        .map(|part| {
            let name = part.split('=').next().unwrap().trim();
            name.trim_start_matches(['%', '?']).trim().to_owned()
        })
        .collect()
}

/// Code spans outside of fenced blocks.
fn spans(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced && !line.starts_with("```") {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|span| span.replace('\n', " "))
        .collect()
}

#[test]
fn every_message_quoted_in_troubleshooting_is_one_of_the_programs() {
    let folders = [
        "ca-server/src",
        "agent/src",
        "runtime/src",
        "certs/src",
        "cli/src",
        "proxy/src",
    ];
    let sources = folders.map(|folder| files_below(&repository().join(folder)));
    let code: String = sources
        .iter()
        .flatten()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let words = code
        .replace("\\\n", " ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let mut seen = 0;
    for span in spans(&text("docs/troubleshooting.md")) {
        // The API server's own words, commands, and values of YAML.
        if span.starts_with("cannot ") || !span.contains(' ') || span.contains(": ") && !span.contains('…')
        {
            continue;
        }
        for part in span
            .split('…')
            .map(|part| part.trim().trim_end_matches(','))
            .filter(|part| part.len() > 3)
        {
            assert!(words.contains(part), "no program says {part:?}");
            seen += 1;
        }
    }
    assert!(seen > 10, "the messages were found: {seen}");
}
