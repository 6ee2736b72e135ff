use serde_json::json;

use super::*;

const FRONTEND: &str = "spiffe://cluster.local/ns/web/sa/frontend";
const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

pub(in super::super) fn checked(outcome: &str) -> TlsChecked {
    let listed = json!({
        "by": "outbound[0]", "upstream": "orders.shop:8443", "mode": if outcome == "plaintext" { "plaintext" } else { "mtls" },
        "expected": if outcome == "plaintext" { vec![] } else { vec![ORDERS] }, "protocol": "http",
    });
    let time = "2027-01-15T08:00:00Z";
    let presented = if outcome == "other_identity" {
        OTHER
    } else {
        ORDERS
    };
    let away = ["unlisted", "unresolved", "unreachable", "connect_slow"].contains(&outcome);
    let page = json!({
        "destination": "orders.shop:8443", "outcome": outcome,
        "error": (outcome != "ok").then(|| format!("because of {outcome}")), "alert": null,
        "listed": (outcome != "unlisted").then_some(listed), "default_outbound": "refuse",
        "own": {"spiffe_id": FRONTEND, "serial": "1", "not_before": time, "not_after": time, "valid": true, "chain": []},
        "own_chain_pem": "…", "address": (!away).then_some("10.0.0.1:8443"), "source": (!away).then_some("10.0.0.7:40000"),
        "tls": {"version": "TLSv1_3", "cipher": null, "alpn": null, "presented": presented, "chain": []},
    });
    serde_json::from_value(page).unwrap()
}

pub(in super::super) fn refused_with(alert: &str) -> TlsChecked {
    TlsChecked {
        alert: Some(alert.to_owned()),
        ..checked("refused_by_peer")
    }
}

pub(in super::super) fn decided(mode: &str, steps: &[(&str, &str, Option<&str>)]) -> Decided {
    let steps: Vec<_> = steps
        .iter()
        .map(|(step, outcome, reason)| {
            json!({"step": step, "outcome": outcome, "reason": reason, "sentence": format!("{step} is {outcome}"),
                "status": (*outcome == "refused" && *step != "mode").then_some(403), "policy": null})
        })
        .collect();
    let page = json!({
        "spiffe_id": ORDERS, "port": 8080, "protocol": "http", "application": "127.0.0.1:8080", "mode": mode,
        "mode_by": "PeerAuthentication shop/default", "version": "1", "caller": FRONTEND, "steps": steps, "votes": [],
    });
    serde_json::from_value(page).unwrap()
}

#[test]
fn every_outcome_has_its_side_and_all_but_the_good_ones_a_fix() {
    for (outcome, side) in [
        ("plaintext", Some(Side::From)),
        ("unlisted", Some(Side::From)),
        ("unresolved", Some(Side::Between)),
        ("unreachable", Some(Side::To)),
        ("connect_slow", Some(Side::Between)),
        ("no_svid", Some(Side::From)),
        ("svid_expired", Some(Side::From)),
        ("no_tls", Some(Side::To)),
        ("handshake_slow", Some(Side::To)),
        ("closed", Some(Side::To)),
        ("reset", Some(Side::To)),
        ("other_identity", None),
        ("untrusted_root", Some(Side::From)),
        ("peer_expired", Some(Side::To)),
        ("peer_not_yet_valid", Some(Side::To)),
        ("bad_certificate", Some(Side::To)),
        ("refused_by_peer", Some(Side::To)),
        ("incompatible", None),
        ("handshake", None),
        ("a_word_to_come", None),
    ] {
        let ruling = of(&checked(outcome), None);
        assert_eq!((ruling.good, ruling.side), (false, side), "{outcome}");
        assert!(!ruling.fix.is_empty(), "{outcome}");
    }
    for good in ["ok", "reset_after"] {
        let ruling = of(&checked(good), None);
        assert_eq!((ruling.good, ruling.side), (true, None), "{good}");
    }
}

#[test]
fn another_identity_is_named_beside_the_one_expected() {
    let ruling = of(&checked("other_identity"), None);
    assert!(
        ruling.sentence.contains(ORDERS) && ruling.sentence.contains(OTHER),
        "{}",
        ruling.sentence
    );
}

#[test]
fn the_word_of_the_other_side_is_believed_before_its_alert() {
    let mute = of(&refused_with("certificate_unknown"), None);
    assert!(
        mute.sentence.contains("alert certificate_unknown"),
        "{}",
        mute.sentence
    );
    assert!(mute.fix.iter().any(|fix| fix.contains("--to-proxy")));
    let refused = decided(
        "STRICT",
        &[("certificate", "refused", Some("tls_certificate_refused"))],
    );
    let told = of(&refused_with("certificate_unknown"), Some(&refused));
    assert!(
        told.sentence.contains("certificate is refused"),
        "{}",
        told.sentence
    );
    let ended = of(&refused_with("certificate_expired"), None);
    assert!(ended.fix[0].contains("SVID has ended"), "{:?}", ended.fix);
}

#[test]
fn plaintext_against_strict_says_both() {
    let ruling = of(&checked("plaintext"), Some(&decided("STRICT", &[])));
    assert!(ruling.sentence.contains("STRICT"), "{}", ruling.sentence);
    assert!(
        ruling.fix[0].contains(ORDERS),
        "the identity to expect is known: {:?}",
        ruling.fix
    );
}

/// TO's proxy has nothing to present.
pub(in super::super) fn nobody() -> Decided {
    let steps = [
        ("mode", "ok", None),
        ("certificate", "refused", Some("identity_none")),
    ];
    Decided {
        spiffe_id: None,
        ..decided("STRICT", &steps)
    }
}

pub(in super::super) fn plain_by_default() -> TlsChecked {
    TlsChecked {
        default_outbound: "plaintext".into(),
        ..checked("unlisted")
    }
}

#[test]
fn an_other_side_without_svid_is_to_look_at_its_agent() {
    for outcome in ["no_tls", "closed", "reset", "handshake_slow", "refused_by_peer"] {
        let ruling = of(&checked(outcome), Some(&nobody()));
        assert_eq!((ruling.good, ruling.side), (false, Some(Side::To)), "{outcome}");
        assert!(ruling.sentence.contains("cannot present itself"), "{ruling:?}");
        assert!(ruling.fix[0].contains("agent"), "{outcome}: {:?}", ruling.fix);
        assert!(!ruling.fix[0].contains("plaintext"), "{:?}", ruling.fix);
    }
    let refused = decided(
        "STRICT",
        &[("certificate", "refused", Some("tls_certificate_refused"))],
    );
    let closed = of(&checked("closed"), Some(&refused));
    assert!(
        closed.sentence.contains("certificate is refused") && !closed.sentence.contains("alert"),
        "{closed:?}"
    );
}

#[test]
fn what_is_not_listed_is_refused_or_goes_out_in_plaintext() {
    let refused = of(&checked("unlisted"), Some(&decided("STRICT", &[])));
    assert!(refused.sentence.contains("refused") && !refused.sentence.contains("STRICT"));
    let plain = of(&plain_by_default(), Some(&decided("STRICT", &[])));
    assert!(
        plain.sentence.contains("in plaintext") && plain.sentence.contains("STRICT"),
        "{plain:?}"
    );
    for ruling in [refused, plain] {
        assert!(
            ruling.fix[0].contains(ORDERS) && ruling.fix[0].contains("/config"),
            "{ruling:?}"
        );
    }
}
