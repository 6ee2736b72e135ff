//! The images: the Dockerfile names what exists, and the programs need nothing else to run.

use std::collections::BTreeSet;
use std::process::Command;

use signet_tests::dir::{Dir, copy_program};
use signet_tests::kube::manifests::{repository, text};
use signet_tests::peers;
use signet_tests::process::program;

use crate::api::root;
use crate::elf::{Needs, needs};

const DOCKERFILE: &str = "deploy/Dockerfile";

/// The instructions, with continued lines joined.
fn instructions() -> Vec<(String, Vec<String>)> {
    let joined = text(DOCKERFILE).replace("\\\n", " ");
    let lines = joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            (words.next().unwrap(), words.collect())
        })
        .collect()
}

#[test]
fn every_path_the_dockerfile_copies_exists() {
    let mut seen = 0;
    for (instruction, words) in instructions() {
        if instruction != "COPY" || words[0].starts_with("--from") {
            continue;
        }
        for path in &words[..words.len() - 1] {
            assert!(
                repository().join(path).exists(),
                "{DOCKERFILE} copies {path}, which is not there"
            );
            seen += 1;
        }
    }
    assert!(seen > 5, "the copies were found");
}

#[test]
fn the_dockerfile_copies_every_crate_of_the_workspace() {
    let manifest = text("Cargo.toml");
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = ["))
        .unwrap();
    let members: BTreeSet<String> = members
        .trim_end_matches(']')
        .split(',')
        .map(|m| m.trim().trim_matches('"').to_owned())
        .collect();
    let copied: BTreeSet<String> = instructions()
        .into_iter()
        .filter(|(instruction, words)| instruction == "COPY" && !words[0].starts_with("--from"))
        .flat_map(|(_, words)| words[..words.len() - 1].to_vec())
        .collect();
    let missing: Vec<_> = members.difference(&copied).collect();
    assert!(
        missing.is_empty(),
        "cargo needs every member to build one: {missing:?}"
    );
}

#[test]
fn every_image_starts_from_nothing_and_holds_the_command_line_tool() {
    let all = instructions();
    let stages: Vec<&[(String, Vec<String>)]> = all
        .iter()
        .enumerate()
        .filter(|(_, (instruction, _))| instruction == "FROM")
        .map(|(start, _)| {
            let rest = &all[start + 1..];
            let length = rest.iter().position(|(i, _)| i == "FROM").unwrap_or(rest.len());
            &all[start..=start + length]
        })
        .collect();
    let images: Vec<_> = stages.iter().filter(|stage| stage[0].1[0] == "scratch").collect();
    let others: Vec<&str> = stages
        .iter()
        .filter(|stage| stage[0].1[0] != "scratch")
        .map(|stage| &*stage[0].1[2])
        .collect();
    assert_eq!(
        others,
        ["build", "roots", "redirect"],
        "one builds, one brings the CAs of the web, one needs programs of others"
    );
    for image in images {
        let name = &image[0].1[2];
        let word = |wanted: &str| {
            image
                .iter()
                .find(|(i, _)| i == wanted)
                .map(|(_, words)| words.join(" "))
        };
        // A proxy beside its workload and its agent is told apart by its user, by redirect rules too.
        let user = if *name == "proxy" {
            "65533:65533"
        } else {
            "65532:65532"
        };
        assert_eq!(word("USER").as_deref(), Some(user), "{name}");
        assert_eq!(
            word("ENTRYPOINT"),
            Some(format!("[\"/usr/local/bin/signet-{name}\"]"))
        );
        let copied: Vec<&String> = image
            .iter()
            .filter(|(i, _)| i == "COPY")
            .flat_map(|(_, w)| w)
            .collect();
        for program in ["signet", &format!("signet-{name}")] {
            assert!(
                copied.iter().any(|path| path.ends_with(&format!("/{program}"))),
                "{name} holds {program}"
            );
        }
        assert!(
            copied.contains(&&"/etc/ssl/certs/ca-certificates.crt".to_owned()),
            "{name} can verify servers of the web"
        );
    }
}

#[test]
fn the_image_for_redirect_rules_has_iptables_and_the_program_that_writes_them() {
    let all = instructions();
    let (_, image) = all.split_at(
        all.iter()
            .position(|(instruction, words)| instruction == "FROM" && words.last().unwrap() == "redirect")
            .unwrap(),
    );
    let line = |wanted: &str| {
        let found = image.iter().find(|(instruction, _)| instruction == wanted);
        found.map(|(_, words)| words.join(" ")).unwrap_or_default()
    };
    assert!(line("RUN").contains("apt-get install --yes --no-install-recommends iptables"));
    assert_eq!(
        line("COPY"),
        "--from=build /src/target/release/signet-proxy /usr/local/bin/"
    );
    assert_eq!(line("ENTRYPOINT"), "[\"/usr/local/bin/signet-proxy\"]");
    // A capability is in effect for user 0 only.
    assert_eq!(line("USER"), "0:0");
}

#[test]
fn the_programs_are_static() {
    for name in ["signet", "signet-ca", "signet-agent", "signet-proxy"] {
        let file = std::fs::read(program(name)).unwrap();
        assert_eq!(
            needs(&file),
            Needs::default(),
            "{name} needs a loader or libraries"
        );
    }
    // The measure itself: this test is no static program.
    let own = needs(&std::fs::read(std::env::current_exe().unwrap()).unwrap());
    assert!(own.loader && own.libraries > 0, "{own:?}");
}

#[test]
fn the_command_line_tool_resolves_names_with_nothing_but_itself_in_its_root() {
    // Root may change its root; others need a user namespace for that.
    let allowed = Command::new("chroot")
        .args(["/", "true"])
        .output()
        .is_ok_and(|done| done.status.success());
    let alone: &[&str] = if allowed {
        &["chroot"]
    } else {
        &["unshare", "--map-root-user", "chroot"]
    };
    let why = "not root, and unshare is refused a user namespace";
    if !peers::can(&[alone, &["/", "true"]].concat(), why) {
        return;
    }
    let dir = Dir::new();
    copy_program(&program("signet"), &dir.join("signet"));
    let etc = dir.sub("etc");
    assert!(etc.is_dir());
    dir.write("etc/hosts", "127.0.0.1 ca.test\n");
    dir.write("etc/nsswitch.conf", text("deploy/nsswitch.conf"));
    dir.write("root-cert.pem", root("name.test").certificate().to_pem());
    let run = |host: &str| {
        let mut command = Command::new(alone[0]);
        command.args(&alone[1..]).arg(dir.path()).arg("/signet");
        command.args(["bundle", "show", "--ca-root", "/root-cert.pem", "--ca", host]);
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8(done.stderr).unwrap()
    };
    // Nobody listens on port 1: the name was resolved, the connection was refused.
    let refused = run("ca.test:1").to_lowercase();
    assert!(refused.contains("refused"), "{refused}");
}
