//! The stream machines alone, row by row of the protocol.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use signet_agent::sds::delta::Delta;
use signet_agent::sds::sotw::Sotw;
use signet_agent::sds::{Machine, Notice, Step};
use signet_agent::svids::{Held, Seen, Trust, Verified};
use signet_certs::{SigningKey, TrustBundle, TrustDomain, X509Svid};
use signet_proto::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use signet_proto::wire::google::rpc::Status;
use tonic::Code;

use crate::fake_ca::{Tower, WORKLOAD, bundle, domain, now};

fn held(verified: Option<Verified>) -> Held {
    Held {
        id: WORKLOAD.parse().unwrap(),
        hint: None,
        verified,
        status: Arc::default(),
    }
}

fn snapshot(tower: &Tower) -> Seen {
    let own = bundle(&[tower], 1);
    let verified = Verified::check(
        tower.svid(Duration::from_secs(600)),
        Arc::clone(&own),
        now(),
        now(),
    );
    let trust = Arc::new(Trust::new(own, Vec::new()));
    Seen::new(domain(), vec![held(Some(verified.unwrap()))], trust)
}

fn empty() -> Seen {
    Seen::new(domain(), vec![held(None)], Arc::default())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn ask(wanted: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names(wanted),
        node: crate::harness::node("n"),
        ..Default::default()
    }
}

fn answer(response: &DiscoveryResponse, wanted: &[&str], error: Option<&str>) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        resource_names: names(wanted),
        error_detail: error.map(|text| Status {
            message: text.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn sent<R>(step: Step<R>) -> R {
    match step {
        Step::Send(response) => response,
        Step::Close(closing) => panic!("closed: {}", closing.text),
        Step::Wait => panic!("nothing was sent"),
    }
}

fn closed<R>(step: Step<R>) -> (Code, &'static str) {
    match step {
        Step::Close(closing) => (closing.code, closing.reason),
        _ => panic!("not closed"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a step is used up by looking at it")]
fn waits<R>(step: Step<R>) -> bool {
    matches!(step, Step::Wait)
}

fn resource_names(response: &DiscoveryResponse) -> Vec<String> {
    use prost::Message as _;
    use signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::Secret;
    response
        .resources
        .iter()
        .map(|any| Secret::decode(any.value.as_slice()).unwrap().name)
        .collect()
}

#[test]
fn the_first_request_is_answered_with_every_name_roots_first_and_an_ack_with_nothing() {
    let shelf = snapshot(&Tower::new());
    let mut stream = Sotw::default();
    let response = sent(stream.receive(ask(&["default", "ROOTCA", "ALL"]), &shelf));
    assert_eq!(resource_names(&response), ["ROOTCA", "ALL", "default"]);
    assert!(waits(stream.receive(
        answer(&response, &["default", "ROOTCA", "ALL"], None),
        &shelf
    )));
    assert_eq!(stream.book().take_notices(), [Notice::Acked]);
}

#[test]
fn an_old_version_at_the_start_is_answered_all_the_same() {
    let shelf = snapshot(&Tower::new());
    let first = DiscoveryRequest {
        version_info: "from another life".into(),
        ..ask(&["default"])
    };
    sent(Sotw::default().receive(first, &shelf));
    let with_nonce = DiscoveryRequest {
        response_nonce: "41".into(),
        ..ask(&["default"])
    };
    sent(Sotw::default().receive(with_nonce, &shelf));
}

#[test]
fn added_names_are_answered_alone() {
    let shelf = snapshot(&Tower::new());
    let mut stream = Sotw::default();
    let first = sent(stream.receive(ask(&["default"]), &shelf));
    let second = sent(stream.receive(answer(&first, &["default", "ROOTCA"], None), &shelf));
    assert_eq!(resource_names(&second), ["ROOTCA"]);
    // Later additions come with the nonce that was answered already.
    assert!(waits(
        stream.receive(answer(&second, &["default", "ROOTCA"], None), &shelf)
    ));
    let third = sent(stream.receive(answer(&second, &["default", "ROOTCA", "ALL"], None), &shelf));
    assert_eq!(resource_names(&third), ["ALL"]);
}

#[test]
fn a_stale_nonce_changes_nothing_and_is_counted() {
    let shelf = snapshot(&Tower::new());
    let mut stream = Sotw::default();
    let first = sent(stream.receive(ask(&["default"]), &shelf));
    let second = sent(stream.receive(answer(&first, &["default", "ROOTCA"], None), &shelf));
    stream.book().take_notices();
    assert!(waits(
        stream.receive(answer(&first, &["default", "ALL"], Some("late")), &shelf)
    ));
    assert_eq!(stream.book().take_notices(), [Notice::Stale]);
    assert!(waits(
        stream.receive(answer(&second, &["default", "ROOTCA"], None), &shelf)
    ));
}

#[test]
fn no_names_after_some_is_an_unsubscription_and_gets_no_answer() {
    let tower = Tower::new();
    let (shelf, next) = (snapshot(&tower), snapshot(&tower));
    let mut stream = Sotw::default();
    let first = sent(stream.receive(ask(&["default"]), &shelf));
    assert!(waits(stream.receive(answer(&first, &[], None), &shelf)));
    assert!(waits(stream.refresh(&next)));
    assert!(stream.book().waiting().is_empty());
}

#[test]
fn one_push_is_unanswered_at_a_time_and_the_newest_snapshot_replaces_those_that_waited() {
    let tower = Tower::new();
    let shelves = [snapshot(&tower), snapshot(&tower), snapshot(&tower)];
    let mut stream = Sotw::default();
    let first = sent(stream.receive(ask(&["default"]), &shelves[0]));
    assert!(waits(stream.refresh(&shelves[1])));
    assert!(waits(stream.refresh(&shelves[2])));
    let newest = sent(stream.receive(answer(&first, &["default"], None), &shelves[2]));
    assert_eq!(
        newest.version_info,
        sent(Sotw::default().receive(ask(&["default"]), &shelves[2])).version_info
    );
    assert!(waits(
        stream.receive(answer(&newest, &["default"], None), &shelves[2])
    ));
}

#[test]
fn an_unchanged_secret_is_not_pushed_again() {
    let tower = Tower::new();
    let (shelf, next) = (snapshot(&tower), snapshot(&tower));
    let mut stream = Sotw::default();
    let first = sent(stream.receive(ask(&["ROOTCA"]), &shelf));
    assert!(waits(stream.receive(answer(&first, &["ROOTCA"], None), &shelf)));
    assert!(waits(stream.refresh(&next)), "the roots are the same in both");
}

#[test]
fn a_rejected_version_is_told_and_never_sent_again_on_that_stream() {
    let tower = Tower::new();
    let (shelf, next) = (snapshot(&tower), snapshot(&tower));
    let mut stream = Sotw::default();
    let first = sent(stream.receive(ask(&["default"]), &shelf));
    assert!(waits(stream.receive(
        answer(&first, &["default"], Some("KEY_VALUES_MISMATCH")),
        &shelf
    )));
    let notices = stream.book().take_notices();
    let Some(Notice::Nacked { rejected, text }) = notices.first() else {
        panic!("{notices:?}")
    };
    assert_eq!(rejected, &format!("default {}", first.version_info));
    assert_eq!(text, "KEY_VALUES_MISMATCH");
    assert!(waits(stream.refresh(&shelf)));
    assert!(waits(stream.receive(answer(&first, &[], None), &shelf)));
    assert!(
        waits(stream.receive(answer(&first, &["default"], None), &shelf)),
        "asked for anew, still unchanged"
    );
    assert!(
        stream
            .book()
            .give_up("x")
            .text
            .contains("this client rejected the current version")
    );
    sent(stream.refresh(&next));
    sent(Sotw::default().receive(ask(&["default"]), &shelf));
}

#[test]
fn names_that_cannot_be_had_close_the_stream_even_beside_good_ones() {
    let shelf = snapshot(&Tower::new());
    let close = |name: &str| closed(Sotw::default().receive(ask(&["default", name]), &shelf));
    assert_eq!(close("file-root:/etc/passwd"), (Code::NotFound, "no_such_name"));
    assert_eq!(close("spiffe://elsewhere"), (Code::NotFound, "no_such_name"));
    assert_eq!(
        close("spiffe://cluster.local/ns/shop/sa/other"),
        (Code::PermissionDenied, "not_yours")
    );
    assert_eq!(close(&"x".repeat(3_000)), (Code::NotFound, "no_such_name"));
}

#[test]
fn requests_that_make_no_sense_are_invalid() {
    let shelf = snapshot(&Tower::new());
    assert_eq!(
        closed(Sotw::default().receive(ask(&[]), &shelf)),
        (Code::InvalidArgument, "no_names")
    );
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    let wrong = DiscoveryRequest {
        type_url: cluster,
        ..ask(&["default"])
    };
    assert_eq!(
        closed(Sotw::default().receive(wrong, &shelf)),
        (Code::InvalidArgument, "type_url")
    );
    let many: Vec<String> = (0..65).map(|n| format!("name-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        closed(Sotw::default().receive(ask(&many), &shelf)),
        (Code::ResourceExhausted, "too_many_names")
    );
}

#[test]
fn a_secret_on_its_way_makes_the_stream_wait_and_names_itself_when_patience_ends() {
    let mut stream = Sotw::default();
    assert!(waits(stream.receive(ask(&["default"]), &empty())));
    assert_eq!(stream.book().waiting(), ["default"]);
    let closing = stream.book().give_up("the CA is down");
    assert_eq!(
        (closing.code, closing.text.as_str()),
        (Code::Unavailable, "default: not ready: the CA is down")
    );
    let shelf = snapshot(&Tower::new());
    sent(stream.refresh(&shelf));
    assert!(stream.book().waiting().is_empty());
}

#[test]
fn a_spiffe_id_is_judged_as_soon_as_our_own_is_known() {
    let unknown = Seen::new(domain(), Vec::new(), Arc::default());
    let mut stream = Sotw::default();
    assert!(waits(
        stream.receive(ask(&["spiffe://cluster.local/ns/shop/sa/other"]), &unknown)
    ));
    assert_eq!(
        closed(stream.refresh(&empty())),
        (Code::PermissionDenied, "not_yours")
    );
}

#[test]
fn an_svid_that_is_withdrawn_takes_nothing_from_a_client_that_has_it() {
    let tower = Tower::new();
    let mut stream = Sotw::default();
    let first = sent(stream.receive(ask(&["default"]), &snapshot(&tower)));
    let trust = Arc::new(Trust::new(bundle(&[&tower], 2), Vec::new()));
    let bare = Seen::new(domain(), vec![held(None)], trust);
    assert!(waits(stream.receive(answer(&first, &["default"], None), &bare)));
    assert!(stream.book().waiting().is_empty());
    let mut late = Sotw::default();
    assert!(waits(late.receive(ask(&["default"]), &bare)));
    assert_eq!(late.book().waiting(), ["default"]);
}

/// A workload with two identities, in a domain that federates with another.
fn two_identities(tower: &Tower) -> (Seen, TrustDomain) {
    let own = bundle(&[tower], 1);
    let foreign: TrustDomain = "partner.test".parse().unwrap();
    let root = tower.root.certificate().clone();
    let partner = TrustBundle::new(foreign.clone(), vec![root], 4).unwrap();
    let svids = [WORKLOAD, "spiffe://cluster.local/ns/shop/sa/second"].map(|id| {
        let key = Arc::new(SigningKey::generate().unwrap());
        let chain = tower.leaf(id, &key, Duration::from_secs(600), &[]);
        let svid = X509Svid::new(chain, key).unwrap();
        let verified = Verified::check(svid, Arc::clone(&own), now(), now()).unwrap();
        Held {
            id: id.parse().unwrap(),
            ..held(Some(verified))
        }
    });
    let trust = Arc::new(Trust::new(own, vec![Arc::new(partner)]));
    (Seen::new(domain(), svids.into(), trust), foreign)
}

#[test]
fn the_first_identity_is_the_default_and_each_is_had_by_its_own_name() {
    let (seen, _) = two_identities(&Tower::new());
    let version = |name: &str| sent(Sotw::default().receive(ask(&[name]), &seen)).version_info;
    assert_eq!(version("default"), version(WORKLOAD));
    assert_ne!(
        version("default"),
        version("spiffe://cluster.local/ns/shop/sa/second")
    );
    let third = "spiffe://cluster.local/ns/shop/sa/third";
    let Step::Close(closing) = Sotw::default().receive(ask(&[third]), &seen) else {
        panic!("an identity of somebody else was given")
    };
    assert_eq!(
        (closing.code, closing.reason),
        (Code::PermissionDenied, "not_yours")
    );
    assert!(closing.text.ends_with(
        "; it has spiffe://cluster.local/ns/shop/sa/cart, spiffe://cluster.local/ns/shop/sa/second"
    ));
}

#[test]
fn a_foreign_domains_roots_come_under_its_id_and_in_a_store_of_their_own() {
    use prost::Message as _;
    use signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::{
        Secret, SpiffeCertValidatorConfig, secret,
    };
    let tower = Tower::new();
    let (seen, foreign) = two_identities(&tower);
    let mut stream = Sotw::default();
    let wanted = [foreign.id().as_str().to_owned(), "ALL".to_owned()];
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let response = sent(stream.receive(ask(&wanted), &seen));
    assert_eq!(resource_names(&response), ["spiffe://partner.test", "ALL"]);
    let all = Secret::decode(response.resources[1].value.as_slice()).unwrap();
    let Some(secret::Type::ValidationContext(context)) = all.r#type else {
        panic!("no roots")
    };
    let config = context.custom_validator_config.unwrap().typed_config.unwrap();
    let config = SpiffeCertValidatorConfig::decode(config.value.as_slice()).unwrap();
    let names: Vec<&str> = config.trust_domains.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["cluster.local", "partner.test"]);
    assert_eq!(
        closed(Sotw::default().receive(ask(&["spiffe://stranger.test"]), &seen)),
        (Code::NotFound, "no_such_name")
    );
    assert!(
        waits(Sotw::default().receive(ask(&["spiffe://partner.test"]), &empty())),
        "before the first bundle nobody knows with whom we federate"
    );
}

#[test]
fn withdrawing_a_foreign_domain_changes_all_and_nothing_else() {
    let tower = Tower::new();
    let (seen, _) = two_identities(&tower);
    let own = Arc::clone(seen.trust.own().unwrap());
    let without = Seen::new(
        domain(),
        seen.svids.clone(),
        Arc::new(Trust::new(own, Vec::new())),
    );
    let names = ["ALL", "ROOTCA", "default"];
    let mut stream = Sotw::default();
    let first = sent(stream.receive(ask(&names), &seen));
    assert_eq!(first.resources.len(), 3);
    assert!(waits(stream.receive(answer(&first, &names, None), &seen)));
    assert_eq!(resource_names(&sent(stream.refresh(&without))), ["ALL"]);
}

#[test]
fn a_node_in_later_messages_or_none_at_all_does_not_matter() {
    let shelf = snapshot(&Tower::new());
    let mut stream = Sotw::default();
    let nameless = DiscoveryRequest {
        node: None,
        ..ask(&["default"])
    };
    let first = sent(stream.receive(nameless, &shelf));
    let named = DiscoveryRequest {
        node: crate::harness::node("late"),
        ..answer(&first, &["default"], None)
    };
    assert!(waits(stream.receive(named, &shelf)));
    assert_eq!(stream.book().node(), "");
}

#[test]
fn debug_output_of_a_snapshot_holds_no_key() {
    let shelf = snapshot(&Tower::new());
    let mut stream = Sotw::default();
    let response = sent(stream.receive(ask(&["default"]), &shelf));
    for text in [
        format!("{shelf:?}"),
        format!("{response:?}"),
        format!("{stream:?}"),
    ] {
        assert!(
            !text.contains("PRIVATE") && !text.contains("45, 45, 45"),
            "{text}"
        );
    }
}

fn subscribe(wanted: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: crate::harness::node("n"),
        resource_names_subscribe: names(wanted),
        ..Default::default()
    }
}

fn delta_answer(response: &DeltaDiscoveryResponse, error: Option<&str>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: response.nonce.clone(),
        error_detail: error.map(|text| Status {
            message: text.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn delta_sends_each_resource_with_its_version_and_only_what_changed() {
    let tower = Tower::new();
    let (shelf, next) = (snapshot(&tower), snapshot(&tower));
    let mut stream = Delta::default();
    let first = sent(stream.receive(subscribe(&["default", "ROOTCA"]), &shelf));
    assert_eq!(
        first
            .resources
            .iter()
            .map(|r| r.name.as_str())
            .collect::<Vec<_>>(),
        ["ROOTCA", "default"]
    );
    assert!(waits(stream.receive(delta_answer(&first, None), &shelf)));
    let second = sent(stream.refresh(&next));
    assert_eq!(second.resources.len(), 1);
    assert_eq!(second.resources[0].name, "default");
    assert_ne!(second.resources[0].version, first.resources[1].version);
}

#[test]
fn delta_does_not_resend_what_a_reconnecting_client_holds() {
    let shelf = snapshot(&Tower::new());
    let version = sent(Delta::default().receive(subscribe(&["default"]), &shelf)).resources[0]
        .version
        .clone();
    let again = |version: &str| DeltaDiscoveryRequest {
        initial_resource_versions: [("default".to_owned(), version.to_owned())].into(),
        ..subscribe(&["default"])
    };
    assert!(waits(Delta::default().receive(again(&version), &shelf)));
    sent(Delta::default().receive(again("older"), &shelf));
}

#[test]
fn delta_removes_names_that_cannot_be_had_and_the_others_go_on() {
    let shelf = snapshot(&Tower::new());
    let mut stream = Delta::default();
    let first = sent(stream.receive(subscribe(&["bogus", "default"]), &shelf));
    assert_eq!(first.removed_resources, ["bogus"]);
    assert_eq!(first.resources.len(), 1);
    let notices = stream.book().take_notices();
    assert!(
        matches!(&notices[..], [Notice::Refused(closing)] if closing.reason == "no_such_name"),
        "{notices:?}"
    );
    assert!(waits(stream.receive(delta_answer(&first, None), &shelf)));
}

#[test]
fn delta_takes_names_that_come_while_a_push_is_unanswered_and_sends_them_after_it() {
    let shelf = snapshot(&Tower::new());
    let mut stream = Delta::default();
    let first = sent(stream.receive(subscribe(&["default"]), &shelf));
    assert!(waits(stream.receive(subscribe(&["ROOTCA"]), &shelf)));
    let second = sent(stream.receive(delta_answer(&first, None), &shelf));
    assert_eq!(second.resources[0].name, "ROOTCA");
}

#[test]
fn delta_forgets_what_is_unsubscribed_and_sends_it_again_when_asked_again() {
    let tower = Tower::new();
    let (shelf, next) = (snapshot(&tower), snapshot(&tower));
    let mut stream = Delta::default();
    let first = sent(stream.receive(subscribe(&["default"]), &shelf));
    let leave = DeltaDiscoveryRequest {
        resource_names_unsubscribe: names(&["default"]),
        ..delta_answer(&first, None)
    };
    assert!(waits(stream.receive(leave, &shelf)));
    assert!(waits(stream.refresh(&next)));
    sent(stream.receive(subscribe(&["default"]), &next));
}

#[test]
fn delta_does_not_resend_a_rejected_version() {
    let tower = Tower::new();
    let (shelf, next) = (snapshot(&tower), snapshot(&tower));
    let mut stream = Delta::default();
    let first = sent(stream.receive(subscribe(&["default"]), &shelf));
    assert!(waits(stream.receive(delta_answer(&first, Some("no")), &shelf)));
    assert!(waits(stream.receive(subscribe(&["default"]), &shelf)));
    sent(stream.refresh(&next));
}

#[derive(Clone, Debug)]
enum Move {
    Ask {
        names: Vec<&'static str>,
        nonce: u64,
        reject: bool,
    },
    Renew,
}

fn any_move() -> impl Strategy<Value = Move> {
    let name = prop_oneof![Just("default"), Just("ROOTCA"), Just("ALL"), Just(WORKLOAD)];
    prop_oneof![
        3 => (proptest::collection::vec(name, 1..4), 0u64..6, any::<bool>())
            .prop_map(|(names, nonce, reject)| Move::Ask { names, nonce, reject }),
        1 => Just(Move::Renew),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a client says in whatever order: never two pushes unanswered, and nothing it rejected
    /// is sent again unchanged.
    #[test]
    fn a_stream_keeps_its_promises_whatever_the_client_says(moves in proptest::collection::vec(any_move(), 1..30)) {
        let tower = Tower::new();
        let mut shelf = Arc::new(snapshot(&tower));
        let mut stream = Sotw::default();
        let mut pending: Option<DiscoveryResponse> = None;
        let mut rejected: Vec<prost_types::Any> = Vec::new();
        for next in moves {
            let step = match next {
                Move::Ask { names, nonce, reject } => {
                    let nonce = if nonce == 0 { String::new() } else { nonce.to_string() };
                    if pending.as_ref().is_some_and(|p| p.nonce == nonce) {
                        let answered = pending.take().unwrap();
                        if reject {
                            rejected.extend(answered.resources);
                        }
                    }
                    let error_detail = reject.then(Status::default);
                    let names = names.into_iter().map(str::to_owned).collect();
                    let request =
                        DiscoveryRequest { resource_names: names, response_nonce: nonce, error_detail, ..Default::default() };
                    stream.receive(request, &shelf)
                }
                Move::Renew => {
                    shelf = Arc::new(snapshot(&tower));
                    stream.refresh(&shelf)
                }
            };
            match step {
                Step::Send(response) => {
                    prop_assert!(pending.is_none(), "two pushes unanswered");
                    for resource in &response.resources {
                        prop_assert!(!rejected.contains(resource), "a rejected secret was sent again");
                    }
                    pending = Some(response);
                }
                Step::Close(closing) => prop_assert!(false, "closed: {}", closing.text),
                Step::Wait => {}
            }
        }
    }
}
