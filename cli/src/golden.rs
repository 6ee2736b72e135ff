//! What every command prints, held still: the table as people see it, JSON and YAML as scripts read
//! them. A changed JSON or YAML file is a broken promise; a changed table is not.

mod asked;
mod node;
mod policy;
mod proxy;

use std::time::Duration;

use signet_certs::UnixTime;

use crate::admin::{Authorities, Authority, AuthorityKey, Failure, Issuing, Svid};
use crate::authority::{Moved, MovedKey, MovedRoot};
use crate::dev::{Ready, ReadyProxy};
use crate::inputs::NamedBy;
use crate::print::tests::Printed;
use crate::print::{Format, Printer, View};
use crate::svid::facts::{BundleVerdict, Facts, Link, Renewal, Rule, Shown, Signer, Times};
use crate::svid::request::Requested;
use crate::svid::rotate::Rotated;
use crate::svid::verify::Verdict;
use crate::times::Moment;
use crate::{bundle, print};

/// 2027-01-15 08:00:00 UTC.
const NOW: u64 = 1_800_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn at(offset: i64) -> Moment {
    Moment(UnixTime::since_unix_epoch(Duration::from_secs(
        NOW.checked_add_signed(offset).unwrap(),
    )))
}

fn printed(view: &impl View, format: Format) -> String {
    let printed = Printed::default();
    Printer::new(Box::new(printed.clone()), format, false)
        .show(view, at(0).0)
        .unwrap();
    printed.text()
}

fn hold(name: &str, view: &impl View) {
    insta::with_settings!({snapshot_path => "golden", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(format!("{name}.table"), printed(view, Format::Table));
        insta::assert_snapshot!(format!("{name}.json"), printed(view, Format::Json));
        insta::assert_snapshot!(format!("{name}.yaml"), printed(view, Format::Yaml));
    });
}

fn id() -> String {
    "spiffe://cluster.local/ns/shop/sa/cart".into()
}

fn facts() -> Facts {
    let link = |subject: &str, serial: &str, authority: Option<&str>, end| Link {
        subject: subject.into(),
        issuer: "CN=root, O=cluster.local".into(),
        serial: serial.into(),
        authority_id: authority.map(str::to_owned),
        key: "P-256".into(),
        not_after: at(end),
    };
    Facts {
        spiffe_id: Some(id()),
        serial: "4a01".into(),
        key: "P-256".into(),
        dns_names: vec!["cart.shop.svc".into()],
        signed_by: Signer {
            subject: "CN=issuing, O=cluster.local".into(),
            authority_id: Some("beef".into()),
        },
        times: Times {
            not_before: at(-2 * HOUR),
            not_after: at(22 * HOUR),
            age_seconds: 2 * HOUR,
            seconds_left: 22 * HOUR,
        },
        renewal: Some(Renewal {
            at: Some(at(10 * HOUR)),
            estimated: false,
            count: Some(7),
            last_failure: Some(failure()),
        }),
        chain: vec![
            link("", "4a01", None, 22 * HOUR),
            link("CN=issuing, O=cluster.local", "11", Some("beef"), 13 * DAY),
        ],
        bundle: Some(BundleVerdict {
            accepted: true,
            reason: None,
            key_matches: true,
        }),
        rules: vec![
            Rule {
                section: "§4.1".into(),
                rule: "not a CA".into(),
                kept: true,
                found: None,
            },
            Rule {
                section: "§4.3".into(),
                rule: "key usage is critical, with digitalSignature".into(),
                kept: false,
                found: Some("its key usage is missing".into()),
            },
        ],
    }
}

fn failure() -> Failure {
    Failure {
        at: at(-60),
        reason: "unavailable".into(),
        error: "connect to ca:15012: refused".into(),
    }
}

pub(crate) fn svid() -> Svid {
    Svid {
        spiffe_id: id(),
        serial: "4a01".into(),
        authority_id: "beef".into(),
        key: "P-256".into(),
        not_before: at(-2 * HOUR),
        not_after: at(22 * HOUR),
        received_at: at(-2 * HOUR),
        renews_at: Some(at(10 * HOUR)),
        renewals: 7,
        last_success: Some(at(-2 * HOUR)),
        last_failure: Some(failure()),
        chain_pem: "not printed".into(),
    }
}

#[test]
fn svid_show() {
    hold(
        "svid-show",
        &Shown {
            source: "/run/agent.sock".into(),
            now: at(0),
            svids: vec![facts()],
        },
    );
    let mut dark = facts();
    dark.spiffe_id = None;
    dark.signed_by.authority_id = None;
    dark.times = Times {
        not_after: at(-60),
        seconds_left: -60,
        ..dark.times
    };
    dark.renewal = Some(Renewal {
        at: Some(at(-HOUR)),
        estimated: true,
        count: None,
        last_failure: None,
    });
    let refused = BundleVerdict {
        accepted: false,
        reason: Some("the leaf expired 60 s ago (1m: it ended at 2027-01-15T07:59:00Z)".into()),
        key_matches: false,
    };
    dark.bundle = Some(refused);
    hold(
        "svid-show-expired",
        &Shown {
            source: "/run/agent.sock".into(),
            now: at(0),
            svids: vec![dark],
        },
    );
    hold(
        "svid-show-none",
        &Shown {
            source: "/run/admin.sock".into(),
            now: at(0),
            svids: Vec::new(),
        },
    );
}

#[test]
fn svid_verify() {
    let accepted = Verdict {
        accepted: true,
        reason: None,
        explanation: None,
        spiffe_id: Some(id()),
        at: at(0),
        trust_domain: "cluster.local".into(),
        trust_domain_from: NamedBy::Roots,
        accepted_by: vec!["cafe".into()],
    };
    hold("svid-verify", &accepted);
    let refused = Verdict {
        accepted: false,
        reason: Some("expired"),
        explanation: Some("the leaf expired 60 s ago (1m: it ended at 2027-01-15T07:59:00Z)".into()),
        spiffe_id: None,
        trust_domain_from: NamedBy::Chain,
        accepted_by: Vec::new(),
        ..accepted
    };
    hold("svid-verify-refused", &refused);
}

#[test]
fn svid_request_rotate_and_watch() {
    hold(
        "svid-request",
        &Requested {
            spiffe_id: id(),
            serial: "4a01".into(),
            key: "P-256".into(),
            not_before: at(-120),
            not_after: at(DAY),
            seconds_left: DAY,
            chain_length: 2,
            roots: 1,
            key_file: "svid/key.pem".into(),
            chain_file: "svid/cert-chain.pem".into(),
            roots_file: "svid/root-cert.pem".into(),
        },
    );
    hold(
        "svid-rotate",
        &Rotated {
            spiffe_id: id(),
            old_serial: Some("4a01".into()),
            new_serial: "4a02".into(),
            not_after: at(DAY),
            renews_at: Some(at(12 * HOUR)),
        },
    );
    hold("svid-watch", &svid());
    let next = Printed::default();
    for format in [Format::Json, Format::Yaml, Format::Table] {
        Printer::new(Box::new(next.clone()), format, false)
            .show_next(&svid(), at(0).0)
            .unwrap();
    }
    let text = next.text();
    assert!(
        text.starts_with("{\"spiffe_id\":\"spiffe://"),
        "one line of JSON per change: {text}"
    );
    assert!(
        text.contains("}\n---\nspiffe_id: "),
        "one document of YAML per change: {text}"
    );
}

#[test]
fn bundle_show() {
    let root = |id: &str, end| bundle::ShownRoot {
        authority_id: id.into(),
        subject: "CN=root, O=cluster.local".into(),
        serial: "01".into(),
        key: "P-256".into(),
        not_before: at(-DAY),
        not_after: at(end),
        seconds_left: end,
    };
    let shown = bundle::Shown {
        source: "root-cert.pem".into(),
        trust_domain: Some("cluster.local".into()),
        sequence: Some(3),
        refresh_hint_seconds: Some(300),
        roots: vec![root("cafe", 3650 * DAY), root("dead", -DAY)],
        jwt_keys: vec![bundle::ShownKey {
            kid: "hYn6-thumbprint".into(),
            key: "P-256".into(),
            algorithm: "ES256".into(),
        }],
    };
    hold("bundle-show", &shown);
}

#[test]
fn authority_show_and_move() {
    let authority = |id: &str, end| Authority {
        authority_id: id.into(),
        subject: "CN=x, O=cluster.local".into(),
        serial: "01".into(),
        key: "P-256".into(),
        not_before: at(-DAY),
        not_after: at(end),
        state: Some("active".into()),
    };
    let issuing = Issuing {
        authority: authority("beef", 13 * DAY),
        renews_at: Some(at(6 * DAY)),
        source: "own_root".into(),
    };
    let roots = vec![authority("cafe", 3650 * DAY)];
    hold(
        "authority-show",
        &Authorities {
            trust_domain: "cluster.local".into(),
            sequence: 3,
            roots,
            issuing,
            jwt_keys: vec![AuthorityKey {
                kid: "hYn6-thumbprint".into(),
                key: "P-256".into(),
                algorithm: "ES256".into(),
                signs: true,
            }],
        },
    );
    let roots = vec![
        MovedRoot {
            authority_id: "cafe".into(),
            has_key: true,
            active: true,
        },
        MovedRoot {
            authority_id: "dead".into(),
            has_key: false,
            active: false,
        },
    ];
    let moved = Moved {
        from: "/var/lib/signet/state.json".into(),
        to: "ca.backup".into(),
        trust_domain: "cluster.local".into(),
        sequence: 3,
        roots,
        jwt_keys: vec![MovedKey {
            kid: "hYn6-thumbprint".into(),
            has_key: true,
            state: "active".into(),
        }],
    };
    hold("authority-export", &moved);
}

/// A proxy of a development system, in front of an application or only a caller.
fn proxy(account: &str, called: bool) -> ReadyProxy {
    let (port, other) = if called {
        (4011, None)
    } else {
        (4021, Some("shop/backend"))
    };
    ReadyProxy {
        service_account: account.into(),
        application: called.then(|| "127.0.0.1:4010".into()),
        port: called.then_some(8080),
        inbound: called.then(|| "127.0.0.1:4012".into()),
        outbound: other
            .map(|other| (other.into(), "127.0.0.1:4022".into()))
            .into_iter()
            .collect(),
        admin_socket: format!("/home/me/my dev/proxies/{account}/admin/admin.sock").into(),
        admin_address: format!("127.0.0.1:{port}"),
        metrics: "http://127.0.0.1:4013".into(),
        log: format!("/home/me/my dev/proxies/{account}/log").into(),
    }
}

#[test]
fn dev() {
    let ready = Ready {
        kubeconfig: "/home/me/my dev/kubeconfig".into(),
        ca_address: "127.0.0.1:4001".into(),
        ca_root: "/home/me/my dev/agent/root-cert.pem".into(),
        agent_socket: "/home/me/my dev/agent/workload/agent.sock".into(),
        admin_socket: "/home/me/my dev/agent/admin/admin.sock".into(),
        ca_admin_socket: "/home/me/my dev/ca/admin/admin.sock".into(),
        token: "/home/me/my dev/tokens/web/signet-token".into(),
        ca_metrics: "http://127.0.0.1:4002".into(),
        agent_metrics: "http://127.0.0.1:4003".into(),
        proxies: vec![
            proxy("shop/backend", true),
            proxy("shop/frontend", false),
            proxy("other/intruder", false),
        ],
        samples: Some("/home/me/my dev/samples".into()),
        workloads: vec!["demo/web".into(), "shop/backend".into()],
    };
    let least = Ready {
        proxies: Vec::new(),
        samples: None,
        workloads: vec!["demo/web".into()],
        ..ready.clone()
    };
    hold("dev-workloads", &least);
    hold("dev", &ready);
    let line = serde_json::to_string(&ready).unwrap();
    for key in [
        "kubeconfig",
        "ca_address",
        "ca_root",
        "agent_socket",
        "admin_socket",
        "ca_admin_socket",
        "token",
        "ca_metrics",
        "agent_metrics",
    ] {
        assert!(
            line.contains(&format!("\"{key}\":")),
            "{key} is missing in {line}"
        );
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut printer = Printer::new(Box::new(Closed), print::Format::Table, false);
    assert_eq!(
        printer.show(&svid(), at(0).0),
        Err(crate::fault::Fault::ReaderGone)
    );
}
