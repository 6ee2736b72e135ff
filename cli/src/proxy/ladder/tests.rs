use super::super::ruling::of;
use super::super::ruling::tests::{checked, decided, nobody, plain_by_default, refused_with};
use super::*;

const UP: &[(&str, &str, Option<&str>)] = &[
    ("mode", "ok", None),
    ("certificate", "ok", None),
    ("token", "ok", None),
    ("policy", "ok", None),
    ("application", "ok", None),
];

fn ladder(checked: &TlsChecked, to: Option<&Decided>) -> Ladder {
    climb(checked, &of(checked, to), to.ok_or(NOT_NAMED))
}

fn with(step: &str, outcome: &'static str, reason: Option<&'static str>) -> Decided {
    let steps: Vec<_> = UP
        .iter()
        .map(|one| {
            if one.0 == step {
                (one.0, outcome, reason)
            } else {
                *one
            }
        })
        .collect();
    decided("STRICT", &steps)
}

#[test]
fn all_rungs_hold_only_where_everybody_was_asked() {
    let all = ladder(&checked("ok"), Some(&decided("STRICT", UP)));
    assert_eq!(
        (all.verdict, all.rung, all.caller_gets),
        (Verdict::Allowed, None, None)
    );
    assert_eq!(all.rungs.len(), 8);
    let alone = ladder(&checked("ok"), None);
    assert_eq!((alone.verdict, alone.rung), (Verdict::Unknown, Some("request")));
    let asks = ladder(&checked("ok"), Some(&with("policy", "depends", None)));
    assert_eq!((asks.verdict, asks.rung), (Verdict::Unknown, Some("policies")));
}

#[test]
fn the_first_rung_that_fails_decides() {
    for (outcome, rung) in [
        ("no_svid", "source"),
        ("unlisted", "destination"),
        ("unreachable", "destination"),
        ("no_tls", "mode"),
        ("reset", "mode"),
        ("other_identity", "certificates"),
        ("untrusted_root", "certificates"),
        ("reset_after", "policies"),
    ] {
        let ladder = ladder(&checked(outcome), None);
        assert_eq!(
            (ladder.verdict, ladder.rung),
            (Verdict::Refused, Some(rung)),
            "{outcome}"
        );
        // What is not listed is not known to be HTTP.
        let gets = match outcome {
            "unlisted" => "connection reset",
            _ => "503 from its own proxy",
        };
        assert_eq!(ladder.caller_gets.as_deref(), Some(gets), "{outcome}");
        let failed = ladder.rungs.iter().find(|one| one.rung == rung).unwrap();
        assert!(!failed.fix.is_empty(), "{outcome}");
    }
    let refused = ladder(&refused_with("unknown_ca"), None);
    assert_eq!(refused.rung, Some("certificates"));
}

#[test]
fn the_other_sides_word_gives_the_status_and_the_fix() {
    for (step, reason, rung) in [
        ("token", "token_invalid", "token"),
        ("policy", "policy_not_allowed", "policies"),
        ("application", "upstream_connect", "upstream"),
    ] {
        let to = with(step, "refused", Some(reason));
        let ladder = ladder(&checked("ok"), Some(&to));
        assert_eq!(ladder.rung, Some(rung));
        assert_eq!(ladder.caller_gets.as_deref(), Some("403"), "its own status");
        let failed = ladder.rungs.iter().find(|one| one.rung == rung).unwrap();
        assert_eq!(failed.reason.as_deref(), Some(reason));
        assert!(!failed.fix[0].contains("docs/"), "{:?}", failed.fix);
    }
}

#[test]
fn plaintext_against_strict_ends_at_the_mode_and_says_what_to_change() {
    let to = decided(
        "STRICT",
        &[
            ("mode", "refused", Some("tls_plaintext_refused")),
            ("application", "ok", None),
        ],
    );
    let refused = ladder(&checked("plaintext"), Some(&to));
    assert_eq!((refused.verdict, refused.rung), (Verdict::Refused, Some("mode")));
    assert!(refused.rungs[2].fix[0].contains("mtls"), "{:?}", refused.rungs[2]);
    let alone = ladder(&checked("plaintext"), None);
    assert_eq!((alone.verdict, alone.rung), (Verdict::Unknown, Some("mode")));
}

const NO_HANDSHAKE: [&str; 4] = ["no_tls", "handshake_slow", "closed", "reset"];

#[test]
fn an_address_without_tls_is_refused_whatever_the_other_sides_proxy_would_take() {
    for outcome in NO_HANDSHAKE {
        let found = ladder(&checked(outcome), Some(&decided("STRICT", UP)));
        assert_eq!(
            (found.verdict, found.rung),
            (Verdict::Refused, Some("mode")),
            "{outcome}"
        );
        assert!(found.rungs[2].sentence.contains("speaks TLS"), "{found:?}");
        assert!(!found.rungs[2].fix.is_empty(), "{outcome}");
    }
}

#[test]
fn an_other_side_without_svid_ends_it_at_the_certificates() {
    for outcome in NO_HANDSHAKE {
        let found = ladder(&checked(outcome), Some(&nobody()));
        assert_eq!(
            (found.verdict, found.rung),
            (Verdict::Refused, Some("certificates")),
            "{outcome}"
        );
        assert!(found.rungs[3].fix[0].contains("agent"), "{found:?}");
    }
}

#[test]
fn what_goes_out_in_plaintext_by_default_is_not_refused_for_being_unlisted() {
    let served = [
        ("mode", "ok", None),
        ("token", "ok", None),
        ("policy", "ok", None),
        ("application", "ok", None),
    ];
    let open = ladder(&plain_by_default(), Some(&decided("PERMISSIVE", &served)));
    assert_eq!(
        (open.verdict, open.rung),
        (Verdict::Unknown, Some("destination")),
        "nothing was dialled, so nobody knows whether it answers"
    );
    assert_eq!(open.rungs[1].state, State::Depends);
    let others = open.rungs.iter().filter(|rung| rung.rung != "destination");
    assert!(others.clone().all(|rung| rung.state == State::Ok), "{open:?}");
    let strict = [("mode", "refused", Some("tls_plaintext_refused"))];
    let shut = ladder(&plain_by_default(), Some(&decided("STRICT", &strict)));
    assert_eq!((shut.verdict, shut.rung), (Verdict::Refused, Some("mode")));
    assert_eq!(shut.caller_gets.as_deref(), Some("connection reset"));
    assert!(shut.rungs[2].fix[0].contains("mtls"), "{shut:?}");
    let alone = ladder(&plain_by_default(), None);
    assert_eq!(
        (alone.verdict, alone.rung),
        (Verdict::Unknown, Some("destination"))
    );
    assert!(alone.rungs[2].sentence.contains("plaintext"), "{alone:?}");
}

#[test]
fn a_policy_that_ends_it_before_tokens_has_let_the_request_stand() {
    let custom = [
        ("mode", "ok", None),
        ("certificate", "ok", None),
        ("policy", "refused", Some("policy_provider_unknown")),
        ("application", "ok", None),
    ];
    let shut = ladder(&checked("ok"), Some(&decided("STRICT", &custom)));
    assert_eq!((shut.verdict, shut.rung), (Verdict::Refused, Some("policies")));
    assert_eq!((shut.rungs[4].rung, shut.rungs[4].state), ("request", State::Ok));
    assert_eq!(shut.rungs[5].state, State::NotAsked);
    assert!(shut.rungs[5].sentence.contains("before tokens"), "{shut:?}");
    // A token whose key is not known yet leaves policies open, and refuses nothing.
    let unsettled = [
        ("mode", "ok", None),
        ("certificate", "ok", None),
        ("token", "depends", Some("token_invalid")),
        ("application", "ok", None),
    ];
    let open = ladder(&checked("ok"), Some(&decided("STRICT", &unsettled)));
    assert_eq!((open.verdict, open.rung), (Verdict::Unknown, Some("token")));
    assert!(open.rungs[6].sentence.contains("token decides"), "{open:?}");
}
