//! The commands of the documents. Every one is looked at: programs, verbs, flags, paths, recipes. Those
//! in blocks marked `console dev` are run against a `signet dev` of their own.

use std::path::Path;
use std::process::Command;

use clap::Parser as _;
use serde_json::Value;
use signet_cli::args::Cli;
use signet_tests::dir::Dir;
use signet_tests::kube::manifests::{repository, text};
use signet_tests::process::{Process, program};
use signet_tests::wait::{SOON, until_some};

use super::documents;

/// One command line with its place.
#[derive(Clone, Debug)]
struct Line {
    place: String,
    words: Vec<String>,
    /// Whether its block is to be run.
    runs: bool,
}

/// What follows `$ ` in blocks of kind `console`, continued lines joined.
fn lines() -> Vec<Line> {
    let mut found = Vec::new();
    for document in documents() {
        let joined = text(&document).replace("\\\n", " ");
        let mut block = None;
        for line in joined.lines() {
            if let Some(kind) = line.trim_start().strip_prefix("```") {
                block = if block.is_none() {
                    Some(kind.to_owned())
                } else {
                    None
                };
            } else if let (Some(kind), Some(command)) = (&block, line.trim_start().strip_prefix("$ ")) {
                assert!(
                    kind.starts_with("console"),
                    "{}: {command} stands in no console block",
                    document.display()
                );
                for part in command.split(" | ") {
                    let place = format!("{}: {part}", document.display());
                    found.push(Line {
                        place,
                        words: words(part),
                        runs: kind == "console dev",
                    });
                }
            }
        }
    }
    assert!(found.len() > 20, "the commands were found: {}", found.len());
    found
}

/// Words as a shell splits them; quotes group, nothing is expanded.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in command.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_exists_with_its_flags_and_paths() {
    for line in lines() {
        known(&line.place, &line.words);
    }
}

fn known(place: &str, words: &[String]) {
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .skip_while(|word| is_assignment(word))
        .collect();
    let ends = words
        .iter()
        .position(|word| matches!(*word, ">" | "&" | "<" | "&&"));
    let words = &words[..ends.unwrap_or(words.len())];
    match words[0] {
        "signet" => {
            if let Err(refused) = Cli::try_parse_from(words) {
                panic!("{place}\n{refused}");
            }
        }
        server @ ("signet-ca" | "signet-agent" | "signet-proxy") => {
            let rest = words.get(1..).unwrap_or_default();
            let verbs: Vec<&str> = rest
                .iter()
                .copied()
                .take_while(|word| !word.starts_with("--"))
                .collect();
            let verb = if verbs.is_empty() {
                "run".to_owned()
            } else {
                verbs.join(" ")
            };
            let help = Command::new(program(server))
                .args(verb.split(' '))
                .arg("--help")
                .output()
                .unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            let flags = words.iter().skip(2).filter(|word| word.starts_with("--"));
            assert!(help.contains("Usage:"), "{place}: {server} has no {verb}");
            flags.for_each(|flag| assert!(help.contains(flag), "{place}: {server} {verb} has no {flag}"));
        }
        "make" => {
            let recipes = text("Makefile");
            let wanted = words[1..].iter().filter(|word| !is_assignment(word));
            wanted.for_each(|name| {
                assert!(
                    recipes.contains(&format!("\n{name}: ")),
                    "{place}: no recipe {name}"
                )
            });
        }
        "kubectl" => {
            if let Some(inner) = words.iter().position(|word| *word == "--") {
                let inner: Vec<String> = words[inner + 1..].iter().map(|word| (*word).to_owned()).collect();
                known(place, &inner);
            }
            paths(place, words);
        }
        "docker" => {
            paths(place, words);
            let stage = words
                .iter()
                .skip_while(|word| **word != "--target")
                .nth(1)
                .unwrap();
            let file = text("deploy/Dockerfile");
            assert!(
                file.contains(&format!("AS {stage}\n")),
                "{place}: no stage {stage}"
            );
        }
        "cargo" => assert!(matches!(words[1], "build" | "test" | "doc"), "{place}"),
        "curl" | "openssl" | "export" | "umask" => {}
        other => panic!("{place}: {other} is no program this test knows; teach it"),
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

fn paths(place: &str, words: &[&str]) {
    let named = words
        .windows(2)
        .filter(|pair| matches!(pair[0], "-k" | "-f" | "--file"));
    named.for_each(|pair| {
        assert!(
            repository().join(pair[1]).exists(),
            "{place}: there is no {}",
            pair[1]
        )
    });
}

#[tokio::test]
async fn the_commands_for_a_development_system_do_what_they_are_there_for() {
    let dir = Dir::new();
    let mut dev = Command::new(program("signet"));
    dev.current_dir(dir.path())
        .args(["dev", "--dir", "./dev", "--json"]);
    let mut dev = Process::spawn("dev", dir.path(), &mut dev);
    let ready = until_some("signet dev to be ready", SOON * 2, async || {
        assert!(dev.ended().is_none(), "{}", dev.tail());
        serde_json::from_str::<Value>(dev.stdout().trim()).ok()
    })
    .await;
    dir.write_secret("passphrase", "correct horse battery staple\n");
    let address = ready["ca_address"].as_str().unwrap();
    let mut ran = 0;
    for line in lines()
        .into_iter()
        .filter(|line| line.runs && line.words[0] == "signet" && !starts(&line.words))
    {
        let words = line.words[1..]
            .iter()
            .map(|word| word.replace("127.0.0.1:PORT", address));
        run(dir.path(), &line.place, &words.collect::<Vec<_>>());
        ran += 1;
    }
    assert!(ran >= 8, "the marked blocks were found: {ran}");
    assert_eq!(dev.terminate().await, 0);
}

/// Whether it starts a system, rather than speak to the one that runs.
fn starts(words: &[String]) -> bool {
    words[1] == "dev"
        && !words
            .get(2)
            .is_some_and(|verb| matches!(&**verb, "apply" | "delete"))
}

fn run(directory: &Path, place: &str, words: &[String]) {
    let done = Command::new(program("signet"))
        .current_dir(directory)
        .args(words)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(done.status.success(), "{place}: {}\n{said}", done.status);
}
