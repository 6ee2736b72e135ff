//! Every command of `docs/policy.md`, with the output that stands there.

use crate::policy::put;

/// A block of a document that is a file, or a command with what it prints.
enum Block {
    File(String, String),
    Command(Vec<String>, String),
}

/// In `docs/policy.md`, blocks `yaml NAME` and `json NAME` are files, and blocks `console policy` commands on them.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```").filter(|kind| !kind.is_empty()) else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let body = body.join("\n") + "\n";
        if let Some(name) = kind.strip_prefix("yaml ").or_else(|| kind.strip_prefix("json ")) {
            blocks.push(Block::File(name.to_owned(), body));
        } else if kind == "console policy" {
            let commands = body.split("$ signet ").skip(1);
            blocks.extend(commands.map(|command| {
                let command = command.replace("\\\n", " ");
                let (words, output) = command.split_once('\n').unwrap();
                let words = words.split_whitespace().map(str::to_owned).collect();
                Block::Command(words, output.to_owned())
            }));
        }
    }
    blocks
}

#[tokio::test]
async fn every_command_of_the_page_on_policy_prints_what_stands_there() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
    let directory = tempfile::tempdir().unwrap();
    let mut ran = 0;
    for block in blocks(&std::fs::read_to_string(page).unwrap()) {
        match block {
            Block::File(name, contents) => {
                put(directory.path(), &name, &contents);
            }
            Block::Command(words, wanted) => {
                let done = tokio::process::Command::new(env!("CARGO_BIN_EXE_signet"))
                    .current_dir(directory.path())
                    .args(&words)
                    .output()
                    .await
                    .unwrap();
                let out = String::from_utf8(done.stdout).unwrap();
                let err = String::from_utf8(done.stderr).unwrap();
                assert_eq!(out.trim_end(), wanted.trim_end(), "{words:?} {err}");
                assert!(matches!(done.status.code(), Some(0 | 1)), "{words:?} {err}");
                ran += 1;
            }
        }
    }
    assert!(ran >= 5, "the commands were found: {ran}");
}
