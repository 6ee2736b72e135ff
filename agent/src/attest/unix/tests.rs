use std::path::Path;

use super::*;
use crate::attest::peer::tests::held;
use crate::attest::process::tests::{Idle, sleep_at};

fn rule(account: &str) -> UnixRule {
    UnixRule {
        id: format!("spiffe://cluster.local/ns/shop/sa/{account}")
            .parse()
            .unwrap(),
        uid: None,
        gid: None,
        executable: None,
        hint: None,
        labels: std::collections::BTreeMap::new(),
    }
}

fn attestor(rules: Vec<UnixRule>) -> Unix {
    Unix::new("/proc".into(), rules).unwrap()
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn names(workload: &Workload) -> Vec<&str> {
    workload
        .identities
        .iter()
        .map(|e| e.id.path().rsplit('/').next().unwrap())
        .collect()
}

#[tokio::test]
async fn every_rule_that_matches_gives_its_identity_in_the_order_of_the_file() {
    let child = Idle::start();
    let peer = held(&child, Path::new("/proc"));
    let attestor = attestor(vec![
        UnixRule {
            uid: Some(own_uid() + 1),
            ..rule("other-user")
        },
        UnixRule {
            uid: Some(own_uid()),
            hint: Some("inner".into()),
            ..rule("z")
        },
        UnixRule {
            uid: Some(own_uid()),
            gid: Some(u32::MAX),
            ..rule("other-group")
        },
        UnixRule {
            gid: Some(rustix::process::getegid().as_raw()),
            ..rule("a")
        },
        UnixRule {
            gid: Some(rustix::process::getegid().as_raw()),
            ..rule("z")
        },
        rule("asks-for-nothing"),
    ]);
    let workload = attestor.attest(&peer).unwrap();
    assert_eq!(names(&workload), ["z", "a"]);
    assert_eq!(workload.identities[0].hint.as_deref(), Some("inner"));
    attestor.recheck(&peer, &workload).unwrap();
    assert_eq!(attestor.wanted().ids.len(), 5, "all are wanted from the start");
}

#[tokio::test]
async fn a_copy_of_an_executable_is_another_executable() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    sleep_at(&one);
    sleep_at(&two);
    let (first, second) = (Idle::of(&one), Idle::of(&two));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    let attestor = attestor(vec![
        UnixRule {
            executable: Some(link.clone()),
            ..rule("one")
        },
        UnixRule {
            executable: Some(two.clone()),
            uid: Some(own_uid()),
            ..rule("two")
        },
        UnixRule {
            executable: Some(dir.path().join("absent")),
            ..rule("absent")
        },
    ]);
    let workload = attestor.attest(&held(&first, Path::new("/proc"))).unwrap();
    assert_eq!(names(&workload), ["one"]);
    assert_eq!(
        workload.subject,
        Subject::Process {
            uid: own_uid(),
            executable: Some(link)
        }
    );
    assert_eq!(
        names(&attestor.attest(&held(&second, Path::new("/proc"))).unwrap()),
        ["two"]
    );
    let third = Idle::start();
    let refused = attestor.attest(&held(&third, Path::new("/proc"))).unwrap_err();
    assert_eq!(refused.reason(), "no_rule");
    assert!(refused.to_string().starts_with("no identity issued: "));
}

#[tokio::test]
async fn a_file_that_is_replaced_is_no_longer_the_executable_of_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("one");
    sleep_at(&one);
    let child = Idle::of(&one);
    let peer = held(&child, Path::new("/proc"));
    let attestor = attestor(vec![UnixRule {
        executable: Some(one.clone()),
        ..rule("one")
    }]);
    let workload = attestor.attest(&peer).unwrap();
    let aside = dir.path().join("aside");
    sleep_at(&aside);
    std::fs::rename(&aside, &one).unwrap();
    assert_eq!(
        attestor.recheck(&peer, &workload).unwrap_err().reason(),
        "no_rule"
    );
}

#[tokio::test]
async fn a_process_that_ended_gets_nothing() {
    let mut child = Idle::start();
    let peer = held(&child, Path::new("/proc"));
    let attestor = attestor(vec![UnixRule {
        uid: Some(own_uid()),
        ..rule("a")
    }]);
    let workload = attestor.attest(&peer).unwrap();
    child.kill();
    peer.ended().await;
    assert_eq!(attestor.attest(&peer).unwrap_err().reason(), "peer_ended");
    assert_eq!(
        attestor.recheck(&peer, &workload).unwrap_err().reason(),
        "peer_ended"
    );
}
